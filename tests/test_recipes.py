"""Every recipe of the project is read against the signature of its command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vggtransfer.command_line.parser import CommandParser
from vggtransfer.commands import COMMANDS, Command
from vggtransfer.recipe_files import read_recipe

PROJECT = Path(__file__).parents[1]
RECIPES = sorted((PROJECT / "recipes").rglob("*.yaml"))


def command_of(recipe: Path) -> Command:
    """The command that a recipe's header names."""
    words = command_line_of(recipe)
    return next(command for command in COMMANDS if words[: len(command.name.split())] == command.name.split())


def parser_of(recipe: Path) -> CommandParser:
    """The parser of that command."""
    command = command_of(recipe)
    return CommandParser(command.name, command.load(), positionals=command.positionals)


def command_line_of(recipe: Path) -> list[str]:
    """What the header says to type, after `vggtransfer`."""
    header = header_of(recipe)
    line = re.search(r"^# command: +([^\\\n]*(?:\\\n# +[^\\\n]*)*)", header, re.MULTILINE)
    assert line is not None, header
    words = shlex.split(re.sub(r"\\\n# +", " ", line[1]))
    return words[words.index("vggtransfer") + 1 :]


def header_of(recipe: Path) -> str:
    """The comment at the top of a recipe."""
    comment = re.match(r"(?:#.*\n)*", recipe.read_text(encoding="utf-8"))
    assert comment is not None
    return comment[0]


def test_there_are_recipes() -> None:
    assert [path for path in RECIPES if path.parent.name == "finetune"]


def test_every_recipe_has_the_suffix_that_is_looked_for() -> None:
    files = [path for path in (PROJECT / "recipes").rglob("*") if path.is_file()]
    assert [path for path in files if path not in RECIPES] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_lies_with_others_of_its_command_or_job(recipe: Path) -> None:
    assert recipe.parent.name in (command_of(recipe).name, "retrieval")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_fits_the_signature(recipe: Path) -> None:
    parser = parser_of(recipe)
    options = parser.options(parser.read(["--config", str(recipe)]))
    assert set(read_recipe(recipe)) <= set(options)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_holds_only_what_differs_from_the_defaults(recipe: Path) -> None:
    parser = parser_of(recipe)
    options = parser.options(parser.read(["--config", str(recipe)]))
    tuned = set(read_recipe(recipe)) - {"arch", "unfreeze", "epochs"}  # these say what the recipe is
    assert [name for name in tuned if options[name] == parser.parameters[name].default] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_header_has_hardware_and_a_command_line_that_parses(recipe: Path) -> None:
    assert re.search(r"^# hardware: +\S", header_of(recipe), re.MULTILINE), header_of(recipe)
    parser = parser_of(recipe)
    arguments = command_line_of(recipe)[len(command_of(recipe).name.split()) :]
    written = recipe.relative_to(PROJECT).as_posix()
    assert written in arguments
    request = parser.read([str(recipe) if word == written else word for word in arguments])
    assert not parser.missing(request)
    assert parser.options(request).get("data", "not asked for") is not None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_misspelt_key_would_be_found(recipe: Path, tmp_path: Path) -> None:
    parser = parser_of(recipe)
    key = next(iter(read_recipe(recipe)))
    changed = tmp_path / recipe.name
    changed.write_text(recipe.read_text(encoding="utf-8").replace(f"\n{key}:", f"\n{key}x:"), encoding="utf-8")
    with pytest.raises(ValueError, match=f"unknown key '{key}x'.*did you mean"):
        parser.read(["--config", str(changed)])
