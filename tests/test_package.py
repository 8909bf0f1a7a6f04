"""What a user gets by installing and importing the package."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import vggtransfer

PROJECT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def run_python(program: str) -> str:
    """Runs a program in a fresh interpreter, warnings as errors, and returns what it printed."""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_version_is_the_installed_one_and_follows_the_standard() -> None:
    assert str(Version(vggtransfer.__version__)) == vggtransfer.__version__
    assert importlib.metadata.version("vggtransfer") == vggtransfer.__version__


def test_changelog_has_the_version_or_unreleased_changes() -> None:
    titles = re.findall(r"^## \[(.+?)\]", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles[0] in {"Unreleased", vggtransfer.__version__}


def test_package_is_marked_as_typed() -> None:
    assert files("vggtransfer").joinpath("py.typed").is_file()


def test_import_is_light() -> None:
    program = (
        "import sys, vggtransfer; print([m for m in ('torch', 'numpy', 'PIL', 'rich', 'yaml') if m in sys.modules])"
    )
    assert run_python(program).strip() == "[]"


def test_public_names_are_listed_and_there() -> None:
    names = vggtransfer.__all__
    assert {"VGGEncoder", "finetune", "evaluate", "predict"} <= set(names)
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(vggtransfer))
    assert [name for name in names if getattr(vggtransfer, name, None) is None] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="VGGEncodr"):
        vggtransfer.VGGEncodr  # noqa: B018


def test_star_import_brings_the_public_names_only() -> None:
    program = "before = set(globals()); from vggtransfer import *; print(*sorted(set(globals()) - before - {'before'}))"
    assert run_python(program).split() == sorted(vggtransfer.__all__)


def test_command_is_installed() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="vggtransfer")
    assert script.value == "vggtransfer.cli:main"


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("linux", "x86_64", "faiss-gpu"),
        ("linux", "aarch64", "faiss-cpu"),
        ("darwin", "arm64", "faiss-cpu"),
        ("win32", "AMD64", "faiss-cpu"),
    ],
)
def test_exactly_one_faiss_is_asked_for(system: str, machine: str, expected: str) -> None:
    environment = {"sys_platform": system, "platform_machine": machine}
    requirements = [Requirement(text) for text in SETTINGS["project"]["dependencies"]]
    chosen = [
        requirement.name
        for requirement in requirements
        if requirement.name.startswith("faiss") and requirement.marker and requirement.marker.evaluate(environment)
    ]
    assert chosen == [expected]


def test_every_imported_library_is_a_dependency() -> None:
    extras = SETTINGS["project"]["optional-dependencies"]
    asked_for = [*SETTINGS["project"]["dependencies"], *extras["tensorboard"], *extras["web"], *extras["milvus"]]
    wanted = {Requirement(text).name.lower() for text in asked_for}
    distributions = importlib.metadata.packages_distributions()
    sources = sorted((PROJECT / "vggtransfer").rglob("*.py"))
    modules = {
        module
        for source in sources
        for module in re.findall(r"^ *(?:import|from) ([a-z]\w*)", source.read_text(encoding="utf-8"), re.MULTILINE)
        if module in distributions and module not in sys.stdlib_module_names
    }
    assert {"torch", "yaml"} <= modules
    missing = {
        module
        for module in modules - {"vggtransfer"}
        if not wanted & {name.lower().replace("_", "-") for name in distributions[module]}
    }
    assert missing == set()


def test_readme_has_the_two_commands_that_do_everything() -> None:
    lines = [line.strip() for line in (PROJECT / "README.md").read_text(encoding="utf-8").splitlines()]
    assert "python -m pip install -e . && vggtransfer demo" in lines
    assert "python -m pip install -e '.[test]' && python -m pytest" in lines


def test_no_machine_or_package_index_is_named() -> None:
    written = [PROJECT / "pyproject.toml", PROJECT / "README.md", PROJECT / ".ci" / "run"]
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"--(extra-)?index-url|--find-links|https?://[\w.-]*pypi", text) is None, path
