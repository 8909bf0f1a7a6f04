"""Recipes as YAML: a strict reader and the writer whose output it reads back unchanged.

PyYAML follows YAML 1.1, where `off` and `no` are booleans and `1e-3` is text. A recipe follows the core schema of
YAML 1.2: booleans are `true` and `false`, and `1e-3` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

import yaml

import vggtransfer
from vggtransfer.errors import OptionError

_CORE_SCHEMA = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)


class _RecipeLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 that refuses a key given twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own name and type)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value:
            name, line = snake_case(str(key_node.value)), key_node.start_mark.line + 1
            if name in first_lines:
                raise OptionError(f"line {line}: key '{key_node.value}' is already given in line {first_lines[name]}")
            first_lines[name] = line
        return super().construct_mapping(node, deep)


class _RecipeDumper(yaml.SafeDumper):
    """SafeDumper that also quotes what only YAML 1.2 would take for a number, so that every text stays text."""


for _tag, _pattern, _first_characters in _CORE_SCHEMA:
    _RecipeLoader.add_implicit_resolver(_tag, _pattern, _first_characters)
    _RecipeDumper.add_implicit_resolver(_tag, _pattern, _first_characters)
_RecipeDumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))
_RecipeDumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def snake_case(name: str) -> str:
    """Returns the canonical spelling of an option or key: `batch-size` becomes `batch_size`."""
    return name.replace("-", "_")


def read_yaml(path: Path) -> object:
    """Reads a YAML file with the scalars of YAML 1.2.

    Raises:
        OptionError: The file cannot be read, is no YAML, or gives a key twice; the message has file, line and key.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_RecipeLoader)
    except FileNotFoundError:
        raise OptionError(f"{path}: no such file") from None
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OptionError(f"{path}: not a text file in UTF-8") from None
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise OptionError(f"{path}: {line}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise OptionError(f"{path}: {' '.join(str(error).split())}") from None


def read_recipe(path: str | Path) -> dict[str, object]:
    """Reads a recipe: option names in snake_case and their values, both exactly as far as YAML knows them.

    Names and types are checked against a command only when the command line is parsed.

    Raises:
        OptionError: The file cannot be read, is no mapping, or gives a key twice; the message has file, line and key.
    """
    recipe = read_yaml(Path(path))
    if recipe is None:
        return {}
    if not isinstance(recipe, dict):
        raise OptionError(f"{path}: a recipe is a list of `option: value` lines, not a {type(recipe).__name__}")
    return {snake_case(str(key)): value for key, value in recipe.items()}


def resolved_recipe(command: str, options: Mapping[str, object]) -> str:
    """Returns the YAML text from which `vggtransfer COMMAND --config` gets exactly these options again.

    Args:
        command: The command's name, such as `finetune`.
        options: Values by name in snake_case: scalars, None, paths, and lists or tuples of them.
    """
    header = (
        f"# All options of `vggtransfer {command}`, as version {vggtransfer.__version__} understood them.\n"
        f"# command:   vggtransfer {command} --config THIS_FILE\n"
    )
    return header + yaml.dump(
        dict(options), Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000
    )
