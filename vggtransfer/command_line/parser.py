"""Reads the recipes and the command line of one command, whose options are the parameters of a function.

jsonargparse converts the values to the types of the signature and prints the help. What a person sees is worded here:
every mistake is an `OptionError` of one line that names the option or the recipe's key, the value, and what would be
accepted.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType

from jsonargparse import ArgumentParser

from vggtransfer.command_line.help_text import HelpFormatter, described, shown
from vggtransfer.command_line.parameters import Parameter, parameters_of
from vggtransfer.errors import OptionError, did_you_mean
from vggtransfer.recipe_files import read_recipe, snake_case

_OWN_OPTIONS = {
    "config": ("--config RECIPE", "YAML file with options in the form `batch_size: 32`. Those typed here win."),
    "print_config": ("--print-config", "Print all options as a recipe and exit."),
    "help": ("-h, --help", "Show this message and exit."),
}
_TRUTH_VALUES = {"true", "false", "yes", "no", "on", "off"}


@dataclass(frozen=True)
class Given:
    """A value as it was written, and where."""

    value: object
    place: str


@dataclass
class Request:
    """A command line taken apart and joined with its recipes; the values are not converted yet."""

    given: dict[str, Given] = field(default_factory=dict)
    wants_help: bool = False
    wants_recipe: bool = False


class CommandParser:
    """Parser of one command.

    Args:
        command: The command as it is typed, such as `finetune`.
        function: Its parameters are scalars, Literals, paths, lists of these or None, each one in the docstring.
        positionals: Parameters given by position; only the last one may be a list.
        sections: Titles of sections of the help by the first option in each; the others follow as in the signature.
    """

    def __init__(
        self,
        command: str,
        function: Callable[..., object],
        *,
        positionals: Sequence[str] = (),
        sections: Mapping[str, str] | None = None,
    ) -> None:
        self.parameters = parameters_of(function, positionals)
        self._positionals = [self.parameters[name] for name in positionals]
        required = [p for p in self.parameters.values() if p.required and not p.positional]
        usage = [p.spelling + ("..." if p.items else "") for p in self._positionals] + [
            f"{p.spelling} {p.metavar}" for p in required
        ]
        self._parser = ArgumentParser(
            prog=f"vggtransfer {command}",
            usage=" ".join(["%(prog)s", *usage, "[--option VALUE ...]"]),
            description=(inspect.getdoc(function) or "").partition("\nArgs:")[0].strip(),
            formatter_class=HelpFormatter,
            exit_on_error=False,
            add_help=False,
            print_config=None,
        )
        for title, parameters in self._sections(sections or {}).items():
            group = self._parser.add_argument_group(title)
            for p in parameters:
                invocation, text = described(p)
                default = None if p.required else p.default
                group.add_argument(f"--{p.name}", type=p.type, default=default, metavar=invocation, help=text)
        group = self._parser.add_argument_group("Recipe and help")
        for name, (invocation, text) in _OWN_OPTIONS.items():
            group.add_argument(f"--{name}", metavar=invocation, help=text, default=argparse.SUPPRESS)

    def _sections(self, titles: Mapping[str, str]) -> dict[str, list[Parameter]]:
        title = "Options"
        sections: dict[str, list[Parameter]] = {}
        for name, parameter in self.parameters.items():
            title = titles.get(name, title)
            sections.setdefault("Arguments" if parameter.positional else title, []).append(parameter)
        return sections

    def format_help(self) -> str:
        """Returns the text of `--help`."""
        return self._parser.format_help()

    def read(self, arguments: Sequence[str]) -> Request:
        """Takes a command line apart and reads its recipes; options win over recipes, later ones over earlier ones.

        Raises:
            OptionError: An option, key or argument is unknown, lacks its value, or a recipe cannot be read.
        """
        request, recipes, loose = Request(), list[str](), list[str]()
        tokens = deque(arguments)
        while tokens:
            token = tokens.popleft()
            if token == "--":
                loose.extend(tokens)
                break
            if not token.startswith("-") or re.fullmatch(r"-[\d.]*", token):
                loose.append(token)
                continue
            spelled, equals, value = token.partition("=")
            name = {"-h": "help", "-k": "k"}.get(spelled) or self._name(snake_case(spelled.removeprefix("--")))
            parameter = self.parameters.get(name)
            if name == "help":
                request.wants_help = True
            elif name == "print_config":
                request.wants_recipe = True
            elif name == "config":
                recipes.append(value if equals else _next_value(tokens, "option '--config'", "a recipe"))
            elif parameter is not None:
                if not equals and parameter.is_flag:
                    value = tokens.popleft() if tokens and tokens[0].lower() in _TRUTH_VALUES else "true"
                elif not equals:
                    value = _next_value(tokens, parameter.place, parameter.accepted)
                request.given[name] = Given(value, parameter.place)
            elif (
                (negated := self.parameters.get(name.removeprefix("no_"))) is not None
                and negated.is_flag
                and not equals
            ):
                request.given[negated.name] = Given("false", negated.place)
            else:
                spellings = [p.spelling for p in self.parameters.values()]
                spellings += [f"--{known.replace('_', '-')}" for known in _OWN_OPTIONS]
                longer = [spelling for spelling in spellings if spelling.startswith(spelled)]
                raise OptionError(f"unknown option '{spelled}'{did_you_mean(spelled, longer or spellings)}")
        if not request.wants_help:
            self._place_positionals(loose, request)
            for recipe in reversed(recipes):
                request.given = self._read_recipe(recipe) | request.given
        return request

    def _place_positionals(self, loose: list[str], request: Request) -> None:
        for parameter in self._positionals:
            if loose and parameter.items is not None:
                request.given[parameter.name] = Given(loose, parameter.place)
                return
            if loose:
                request.given[parameter.name] = Given(loose.pop(0), parameter.place)
        if loose:
            # Most often the subject of the command, its first parameter, lacks its name: `finetune ./flowers`.
            first = [p for p in list(self.parameters.values())[:1] if p.name not in request.given and not p.positional]
            hint = f" (did you mean '{first[0].spelling} {loose[0]}'?)" if first else ""
            raise OptionError(f"unexpected argument '{loose[0]}'{hint}")

    def _read_recipe(self, path: str) -> dict[str, Given]:
        recipe = {self._name(key): value for key, value in read_recipe(path).items()}
        for key in recipe:
            if key not in self.parameters:
                raise OptionError(f"{path}: unknown key '{key}'{did_you_mean(key, self.parameters)}")
        return {key: Given(value, f"{path}: '{key}'") for key, value in recipe.items()}

    def _name(self, written: str) -> str:
        """The parameter's name: `class` is written for `class_`, which Python cannot call otherwise."""
        return f"{written}_" if written not in self.parameters and f"{written}_" in self.parameters else written

    def missing(self, request: Request) -> list[Parameter]:
        """Returns the required parameters that nobody gave."""
        return [p for p in self.parameters.values() if p.required and p.name not in request.given]

    def options(self, request: Request) -> dict[str, object]:
        """Converts what was given and adds the defaults; required parameters that are missing are left out.

        Raises:
            OptionError: A value does not fit the type of its parameter.
        """
        options: dict[str, object] = {}
        to_convert: list[str] = []
        for name, given in request.given.items():
            parameter = self.parameters[name]
            text = _text(parameter, given)
            if text is None or parameter.text_kind is not None:
                options[name] = _verbatim(parameter.text_kind, text)
            else:
                to_convert.append(f"--{name}={json.dumps(text) if isinstance(text, list) else text}")
        try:
            converted = self._parser.parse_args(to_convert)
        except argparse.ArgumentError as error:
            key = re.search(r'Parser key "(\w+)"', str(error))
            if key is None or key[1] not in request.given:
                raise
            raise _unaccepted(self.parameters[key[1]], request.given[key[1]]) from None
        missing = self.missing(request)
        return {p.name: options.get(p.name, converted[p.name]) for p in self.parameters.values() if p not in missing}


def _next_value(tokens: deque[str], place: str, accepted: str) -> str:
    if not tokens or tokens[0].startswith("--"):
        raise OptionError(f"{place} needs a value: {accepted}")
    return tokens.popleft()


def _text(parameter: Parameter, given: Given) -> str | list[str] | None:
    """Returns a value as text, a list as texts, and None for null."""
    value = given.value
    if isinstance(value, dict) or (isinstance(value, list) and parameter.items is None):
        raise _unaccepted(parameter, given)
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, float):
        return re.sub(r"(inf|nan)", r".\1", repr(value))
    text = shown(value)
    if text.lower() in {"none", "null"}:
        # People write either word for "nothing"; which one a parameter knows is an accident of its type.
        if "none" in parameter.choices or (str in parameter.kinds and NoneType not in parameter.kinds):
            return "none"
        if NoneType in parameter.kinds:
            return None
    if not text and str not in parameter.kinds:
        raise _unaccepted(parameter, given)
    if parameter.items is not None and str not in parameter.kinds:
        items = text.removeprefix("[").removesuffix("]")
        return [item.strip() for item in items.split(",")] if items else []
    return text


def _verbatim(kind: type[str] | type[Path] | None, text: str | list[str] | None) -> object:
    """Returns text and paths as they are: what reads numbers as YAML would refuse or change some file names."""
    if isinstance(text, list):
        return [_verbatim(kind, item) for item in text]
    if text is None or kind is None:
        return None
    # No shell expands `~` inside a recipe or after `--data=`.
    return Path(text).expanduser() if kind is Path and (text == "~" or text.startswith("~/")) else kind(text)


def _unaccepted(parameter: Parameter, given: Given) -> OptionError:
    value = shown(given.value)
    hint = did_you_mean(value, map(str, parameter.choices))
    return OptionError(f"{given.place} must be {parameter.accepted}, not '{value}'{hint}")
