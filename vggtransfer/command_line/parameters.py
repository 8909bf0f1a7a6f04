"""The parameters of a command's function, and how a person reads and types them."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union

import docstring_parser

_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_METAVARS = {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "PATH"}
_LISTS = (list, tuple, Sequence)
_LONGEST_LIST_OF_CHOICES = 40


@dataclass(frozen=True)
class Parameter:
    """One parameter of a command's function.

    Args:
        name: As in the signature.
        type: As in the signature.
        default: As in the signature, or `inspect.Parameter.empty`.
        help: Its line in the docstring.
        positional: Whether the command line gives it by position.
    """

    name: str
    type: Any
    default: object
    help: str
    positional: bool

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The members of a union, or the type alone."""
        return typing.get_args(self.type) if typing.get_origin(self.type) in (Union, UnionType) else (self.type,)

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def spelling(self) -> str:
        """`--batch-size`, `-k`, `PATHS` when it is given by position; `--class` of `class_`, which Python needs so."""
        dashes = "-" if len(self.name) == 1 else "--"
        return self.name.upper() if self.positional else f"{dashes}{self.name.removesuffix('_').replace('_', '-')}"

    @property
    def place(self) -> str:
        """Where a value stands, for an error message."""
        return f"{'argument' if self.positional else 'option'} '{self.spelling}'"

    @property
    def choices(self) -> list[object]:
        return [choice for kind in self.kinds if typing.get_origin(kind) is Literal for choice in typing.get_args(kind)]

    @property
    def items(self) -> Any:
        """The type of the items when it takes a list, else None."""
        return next((typing.get_args(kind)[0] for kind in self.kinds if typing.get_origin(kind) in _LISTS), None)

    @property
    def text_kind(self) -> type[str] | type[Path] | None:
        """`str` or `Path` when it, or each of its items, is nothing but text or a path."""
        kinds = [kind for kind in self.kinds if kind is not NoneType]
        for kind in (str, Path):
            if kinds[0] in (kind, list[kind]) and set(kinds[1:]) <= {str, Path}:  # type: ignore[valid-type]
                return kind
        return None

    @property
    def is_flag(self) -> bool:
        """Whether `--name` alone means true and `--no-name` false."""
        return self.kinds == (bool,)

    @property
    def metavar(self) -> str:
        """`INT`, `PATH,...`, `none|light|PATH`; a long list of choices is left to the help text."""
        if self.is_flag:
            return "[true|false]"
        choices = "|".join(map(str, self.choices))
        names = [choices if len(choices) <= _LONGEST_LIST_OF_CHOICES else "NAME"] if choices else []
        names += [_METAVARS[kind] for kind in self.kinds if kind in _METAVARS]
        if self.items is not None:
            names.append(f"{_METAVARS.get(self.items, 'NAME')},...")
        return "|".join(names)

    @property
    def accepted(self) -> str:
        """What a right value is, for an error message."""
        choices = ", ".join(f"'{choice}'" for choice in self.choices)
        parts = [f"one of {choices}" if len(self.choices) > 1 else choices] if choices else []
        parts += [_NOUNS[kind] for kind in self.kinds if kind in _NOUNS]
        if self.items is not None:
            parts.append(f"a list such as [{_METAVARS.get(self.items, 'NAME')}, ...]")
        if NoneType in self.kinds:
            parts.append("null")
        return " or ".join(parts)


def parameters_of(function: Callable[..., object], positionals: Sequence[str] = ()) -> dict[str, Parameter]:
    """Returns the parameters by name, in the order of the signature."""
    # jsonargparse's own reading of a signature runs the imports under `if TYPE_CHECKING`, and so imports torch for a
    # mere --help. Only the parameters' types are resolved here, and they need no torch.
    annotations = {name: kind for name, kind in function.__annotations__.items() if name != "return"}
    types = typing.get_type_hints(SimpleNamespace(__annotations__=annotations), vars(sys.modules[function.__module__]))
    documented = docstring_parser.parse(function.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE).params
    help_texts = {parameter.arg_name: parameter.description or "" for parameter in documented}
    return {
        name: Parameter(name, types[name], parameter.default, help_texts.get(name, ""), name in positionals)
        for name, parameter in inspect.signature(function).parameters.items()
    }
