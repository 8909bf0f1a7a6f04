"""The command line with stub commands, so that no test here trains anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import yaml

import vggtransfer
from vggtransfer.cli import COMMANDS, Command, main
from vggtransfer.errors import TrainingError
from vggtransfer.recipe_files import read_recipe, resolved_recipe
from vggtransfer.training.interruption import TrainingInterrupted

if TYPE_CHECKING:
    from torch import Tensor

HEAVY_MODULES = ("torch", "torchvision", "numpy", "PIL", "matplotlib", "albumentations", "sklearn", "timm", "rich")

calls: list[dict[str, object]] = []


def train(
    data: Path,
    *,
    arch: Literal["vgg11", "vgg16"] = "vgg16",
    weights: str = "default",
    cache: Literal["off", "memory"] = "memory",
    test_augmentation: Literal["none", "flip"] = "flip",
    augment: Literal["light", "strong"] | Path = "light",
    image_size: int | Literal["auto"] = "auto",
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 0.01,
    backbone_lr: float | None = 0.1,
    ema: bool = False,
    compile: bool = True,  # noqa: A002
    milestones: list[int] | None = None,
    mean: tuple[float, float] = (0.5, 0.25),
    layers: list[str] | None = None,
    pair_of_names: tuple[str, ...] = (),
    resume: Path | None = None,
) -> Tensor:
    """Trains a classifier.

    The second paragraph says more; it names
    100% of it.

    Args:
        data: Folder of pictures.
        arch: Architecture.
        weights: Weights to start with.
        cache: Where pictures are kept.
        test_augmentation: Views averaged at evaluation.
        augment: Preset or file.
        image_size: Side in pixels.
        epochs: Passes over the pictures.
        batch_size: Pictures per step; here is a text that is long enough for a second line in the help
            and goes on in the next line of the docstring.
        lr: Learning rate of the head.
        backbone_lr: Learning rate of the encoder.
        ema: Whether to average weights.
        compile: Whether to compile.
        milestones: Epochs.
        mean: Two numbers.
        layers: Names.
        pair_of_names: More names.
        resume: Run to go on with.
    """
    calls.append(dict(locals()))


def classify(paths: list[Path], *, model: Path, top: int = 5) -> None:
    """Classifies pictures.

    Args:
        paths: Pictures.
        model: Run directory.
        top: Number of classes.
    """
    calls.append(dict(locals()))


def show(arch: str = "vgg16", *, image_size: int = 224) -> None:
    """Shows a network.

    Args:
        arch: Architecture.
        image_size: Side in pixels.
    """
    calls.append(dict(locals()))


def fail_as_user() -> None:
    """Raises a user's error."""
    raise TrainingError("the loss is not finite\nuse a smaller --lr")


def fail_as_bug() -> None:
    """Raises something unexpected."""
    raise RuntimeError("a bug")


def get_interrupted() -> None:
    """Is interrupted by the keyboard."""
    raise KeyboardInterrupt


def stop_on_request() -> None:
    """Ends like training after SIGTERM."""
    raise TrainingInterrupted("stopped; go on with --resume", exit_code=143)


def exit_three() -> None:
    """Leaves by itself."""
    raise SystemExit(3)


def break_another_pipe() -> None:
    """Loses some pipe that is not the standard output."""
    raise BrokenPipeError("worker")


STUBS = (
    Command("train", f"{__name__}:train", "Train it.", sections={"arch": "Model", "epochs": "Optimisation"}),
    Command("classify", f"{__name__}:classify", "Classify it.", positionals=("paths",)),
    Command("weights show", f"{__name__}:show", "Show it.", positionals=("arch",)),
    Command("weights list", f"{__name__}:fail_as_user", "List them."),
    *(
        Command(f.__name__, f"{__name__}:{f.__name__}", "")
        for f in (fail_as_bug, get_interrupted, stop_on_request, exit_three)
    ),
    Command("break_another_pipe", f"{__name__}:break_another_pipe", ""),
)


def called_with(*arguments: str) -> dict[str, object]:
    """Runs a command line that must succeed and returns what its function got."""
    calls.clear()
    assert main(arguments, STUBS) == 0
    assert len(calls) == 1
    return calls[0]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command line that must fail in one line and returns the line without its `error: `."""
    calls.clear()
    assert main(arguments, STUBS) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.endswith("\n")
    assert output.err.count("\n") == 1
    assert not calls
    return output.err.removeprefix("error: ").rstrip("\n")


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# Values


def test_defaults_are_passed_as_they_stand_in_the_signature() -> None:
    options = called_with("train", "--data", "flowers")
    assert options == {
        "data": Path("flowers"),
        "arch": "vgg16",
        "weights": "default",
        "cache": "memory",
        "test_augmentation": "flip",
        "augment": "light",
        "image_size": "auto",
        "epochs": 10,
        "batch_size": 32,
        "lr": 0.01,
        "backbone_lr": 0.1,
        "ema": False,
        "compile": True,
        "milestones": None,
        "mean": (0.5, 0.25),
        "layers": None,
        "pair_of_names": (),
        "resume": None,
    }


@pytest.mark.parametrize(
    ("arguments", "name", "expected"),
    [
        (["--batch-size", "8"], "batch_size", 8),
        (["--batch_size", "8"], "batch_size", 8),
        (["--batch-size=8"], "batch_size", 8),
        (["--batch_size=8", "--batch-size=9"], "batch_size", 9),
        (["--lr", "1e-3"], "lr", 0.001),
        (["--lr", "1"], "lr", 1.0),
        (["--lr", "-1.5"], "lr", -1.5),
        (["--backbone-lr", "3E-4"], "backbone_lr", 0.0003),
        (["--backbone-lr", "none"], "backbone_lr", None),
        (["--backbone-lr", "null"], "backbone_lr", None),
        (["--weights", "none"], "weights", "none"),
        (["--weights", "None"], "weights", "none"),
        (["--weights", "null"], "weights", "none"),
        (["--weights", "1e-3"], "weights", "1e-3"),
        (["--weights", "[x: y"], "weights", "[x: y"),
        (["--cache", "off"], "cache", "off"),
        (["--test-augmentation", "none"], "test_augmentation", "none"),
        (["--image-size", "64"], "image_size", 64),
        (["--image-size", "auto"], "image_size", "auto"),
        (["--augment", "strong"], "augment", "strong"),
        (["--augment", "my list.yaml"], "augment", Path("my list.yaml")),
        (["--pair-of-names", "a,b"], "pair_of_names", ("a", "b")),
        (["--ema"], "ema", True),
        (["--ema", "--lr", "1"], "ema", True),
        (["--ema", "true"], "ema", True),
        (["--ema=no"], "ema", False),
        (["--no-compile"], "compile", False),
        (["--no_compile"], "compile", False),
        (["--milestones", "3,5"], "milestones", [3, 5]),
        (["--milestones", "[3, 5]"], "milestones", [3, 5]),
        (["--milestones", "3"], "milestones", [3]),
        (["--milestones", "none"], "milestones", None),
        (["--mean", "1,1e-2"], "mean", (1.0, 0.01)),
        (["--layers", "relu1_2, off"], "layers", ["relu1_2", "off"]),
        (["--layers", "[]"], "layers", []),
        (["--resume", "none"], "resume", None),
        (["--resume=~/runs"], "resume", Path.home() / "runs"),
    ],
)
def test_option(arguments: list[str], name: str, expected: object) -> None:
    value = called_with("train", "--data", "flowers", *arguments)[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("lr: 1e-3", "lr", 0.001),
        ("lr: 1", "lr", 1.0),
        ("batch_size: 8", "batch_size", 8),
        ("batch-size: 8", "batch_size", 8),
        ("weights: none", "weights", "none"),
        ("weights: None", "weights", "none"),
        ("weights: null", "weights", "none"),
        ("weights:", "weights", "none"),
        ("weights: 2024", "weights", "2024"),
        ("weights: 2024-01-31", "weights", "2024-01-31"),
        ("weights: 007", "weights", "007"),
        ("cache: off", "cache", "off"),
        ("test_augmentation: none", "test_augmentation", "none"),
        ("test_augmentation: null", "test_augmentation", "none"),
        ("ema: true", "ema", True),
        ("ema: yes", "ema", True),
        ("compile: off", "compile", False),
        ("backbone_lr: null", "backbone_lr", None),
        ("backbone_lr: none", "backbone_lr", None),
        ("backbone_lr: 2.5e-05", "backbone_lr", 2.5e-05),
        ("milestones: [3, 5]", "milestones", [3, 5]),
        ("layers: [off, 1e-3, 'a,b: c']", "layers", ["off", "0.001", "a,b: c"]),
        ("layers:\n  - relu1_2\n  - yes", "layers", ["relu1_2", "yes"]),
        ("data: ~/flowers", "data", Path.home() / "flowers"),
        ("data: flowers  # kept outside", "data", Path("flowers")),
    ],
)
def test_recipe_value(tmp_path: Path, line: str, name: str, expected: object) -> None:
    recipe = write(tmp_path / "recipe.yaml", line if name == "data" else f"data: flowers\n{line}\n")
    value = called_with("train", "--config", recipe)[name]
    assert value == expected
    assert type(value) is type(expected)


def test_options_win_over_recipes_wherever_they_stand(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "data: a\nepochs: 1\nlr: 1\nbatch_size: 1\n")
    second = write(tmp_path / "second.yaml", "epochs: 2\nlr: 2\n")
    options = called_with("train", "--lr", "3", "--config", first, f"--config={second}")
    assert (options["data"], options["batch_size"], options["epochs"], options["lr"]) == (Path("a"), 1, 2, 3.0)


# Positionals


def test_positionals_stand_anywhere() -> None:
    options = called_with("classify", "a.jpg", "--model", "run", "b c.jpg", "-", "--top=3", "--", "--odd.jpg")
    assert options == {
        "paths": [Path("a.jpg"), Path("b c.jpg"), Path("-"), Path("--odd.jpg")],
        "model": Path("run"),
        "top": 3,
    }


def test_positional_with_commas_is_one_file() -> None:
    assert called_with("classify", "a,b.jpg", "--model", "run")["paths"] == [Path("a,b.jpg")]


ODD_NAMES = [
    "\udcff.jpg",
    "😀.jpg",
    'a"b\\c',
    "tab\t",
    "new\nline",
    "\x01",
    "\u2028",
    "{a",
    "[b]",
    "a: b # c",
    " x ",
    "1e-3",
    "é,~",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_file_names_and_texts_arrive_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert called_with("classify", name, "b", "--model", name) == {
        "paths": [Path(name), Path("b")],
        "model": Path(name),
        "top": 5,
    }
    options = called_with("train", f"--data={name}", "--weights", name)
    assert (options["data"], options["weights"]) == (Path(name), name)
    assert main(["train", f"--data={name}", "--weights", name, "--print-config"], STUBS) == 0
    recipe = write(tmp_path / "recipe.yaml", capsys.readouterr().out)
    assert called_with("train", "--config", recipe) == options


def test_positional_may_come_from_a_recipe_or_be_left_out(tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.yaml", "paths: [a.jpg, b.jpg]\nmodel: run\n")
    assert called_with("classify", "--config", recipe)["paths"] == [Path("a.jpg"), Path("b.jpg")]
    assert called_with("classify", "--config", recipe, "c.jpg")["paths"] == [Path("c.jpg")]
    assert called_with("weights", "show")["arch"] == "vgg16"
    assert called_with("weights", "show", "vgg11", "--image_size", "32") == {"arch": "vgg11", "image_size": 32}


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--batchsize", "3"], "unknown option '--batchsize' (did you mean '--batch-size'?)"),
        (["train", "--batch=3"], "unknown option '--batch' (did you mean '--batch-size'?)"),
        (["train", "-b", "3"], "unknown option '-b'"),
        (["train", "--no-lr"], "unknown option '--no-lr' (did you mean '--lr'?)"),
        (["train", "--data", "x", "--epochs", "ten"], "option '--epochs' must be a whole number, not 'ten'"),
        (["train", "--data", "x", "--epochs", "1.5"], "option '--epochs' must be a whole number, not '1.5'"),
        (["train", "--data", "x", "--lr", "fast"], "option '--lr' must be a number, not 'fast'"),
        (["train", "--data", "x", "--lr", "none"], "option '--lr' must be a number, not 'none'"),
        (["train", "--data", "x", "--backbone_lr=x"], "option '--backbone-lr' must be a number or null, not 'x'"),
        (["train", "--data", "x", "--ema=maybe"], "option '--ema' must be true or false, not 'maybe'"),
        (
            ["train", "--data", "x", "--cache", "memroy"],
            "option '--cache' must be one of 'off', 'memory', not 'memroy' (did you mean 'memory'?)",
        ),
        (
            ["train", "--data", "x", "--image-size", "big"],
            "option '--image-size' must be 'auto' or a whole number, not 'big'",
        ),
        (
            ["train", "--data", "x", "--milestones", "1,x"],
            "option '--milestones' must be a list such as [INT, ...] or null, not '1,x'",
        ),
        (["train", "--data", "x", "--mean", "1"], "option '--mean' must be a list such as [NUMBER, ...], not '1'"),
        (["train", "--data", ""], "option '--data' must be a path, not ''"),
        (["train", "--data"], "option '--data' needs a value: a path"),
        (["train", "--epochs", "--data", "x"], "option '--epochs' needs a value: a whole number"),
        (["train", "--config"], "option '--config' needs a value: a recipe"),
        (["train"], "missing option '--data'"),
        (["train", "flowers"], "unexpected argument 'flowers' (did you mean '--data flowers'?)"),
        (["train", "--data", "x", "y"], "unexpected argument 'y'"),
        (["classify"], "missing argument 'PATHS' and option '--model'"),
        (["weights", "show", "vgg11", "vgg13"], "unexpected argument 'vgg13'"),
        (["weights", "shwo"], "unknown command 'weights shwo' (did you mean 'weights show'?)"),
        (["trian", "--data", "x"], "unknown command 'trian' (did you mean 'train'?)"),
        (["--data", "x", "train"], "unknown option '--data' before the command (vggtransfer COMMAND --option VALUE)"),
    ],
)
def test_mistake_on_the_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert error_of(capsys, *arguments) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key 'epoch' (did you mean 'epochs'?)"),
        ("epochs: ten", "'epochs' must be a whole number, not 'ten'"),
        ("epochs: null", "'epochs' must be a whole number, not 'null'"),
        ("epochs: true", "'epochs' must be a whole number, not 'true'"),
        ("epochs: [1]", "'epochs' must be a whole number, not '1'"),
        ("epochs:\n  first: 1", "'epochs' must be a whole number, not '{'first': 1}'"),
        ("cache: on", "'cache' must be one of 'off', 'memory', not 'on'"),
        ("lr: 1e", "'lr' must be a number, not '1e'"),
        ("epochs: 1\nlr: 1\nepochs: 2", "line 3: key 'epochs' is already given in line 1"),
        ("batch_size: 1\nbatch-size: 2", "line 2: key 'batch-size' is already given in line 1"),
        ("epochs: 1\n lr: 2", "line 2: mapping values are not allowed here"),
        ("epochs: [1", "line 1: expected ',' or ']', but got '<stream end>'"),
        ("- epochs", "a recipe is a list of `option: value` lines, not a list"),
        ("just words", "a recipe is a list of `option: value` lines, not a str"),
        (
            "weights: !!python/object:os.system x",
            "line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
        ),
    ],
)
def test_mistake_in_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    recipe = write(tmp_path / "recipe.yaml", text)
    assert error_of(capsys, "train", "--data", "x", "--config", recipe) == f"{recipe}: {message}"


def test_recipe_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent, binary = tmp_path / "absent.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    assert error_of(capsys, "train", "--config", str(absent)) == f"{absent}: no such file"
    assert error_of(capsys, "train", "--config", str(tmp_path)) == f"{tmp_path}: Is a directory"
    assert error_of(capsys, "train", "--config", str(binary)) == f"{binary}: not a text file in UTF-8"


def test_an_empty_recipe_changes_nothing(tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.yaml", "# only a comment\n")
    assert called_with("train", "--data", "x", "--config", recipe)["epochs"] == 10


# Exit codes


def test_user_error_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, "weights", "list") == "the loss is not finite use a smaller --lr"


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        main(["fail_as_bug"], STUBS)
    with pytest.raises(BrokenPipeError, match="worker"):
        main(["break_another_pipe"], STUBS)


def test_keyboard_interrupt_and_exit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get_interrupted"], STUBS) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert main(["stop_on_request"], STUBS) == 143
    assert capsys.readouterr().err == "stopped; go on with --resume\n"
    with pytest.raises(SystemExit) as exit_information:
        main(["exit_three"], STUBS)
    assert exit_information.value.code == 3


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_met_quietly(unbuffered: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as nobody_reads:
        run = subprocess.run(
            [sys.executable, "-m", "vggtransfer", "--help"],
            check=False,
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert run.returncode == 141
    assert run.stderr == ""


# Recipes written


def test_print_config_prints_a_recipe_that_reads_back_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", "a b/#c", "--lr", "1e-05", "--backbone-lr", "0.30000000000000004", "--cache", "off"]
    arguments += ["--weights", "1e-3", "--milestones", "1,2", "--layers", "off,null,x: y", "--ema", "--augment", "~x"]
    options = dict(called_with("train", *arguments))
    for spelling in ("--print-config", "--print_config"):
        assert main(["train", *arguments, spelling], STUBS) == 0
        recipe = write(tmp_path / "recipe.yaml", capsys.readouterr().out)
        assert called_with("train", "--config", recipe) == options
    assert yaml.safe_load(Path(recipe).read_text())["cache"] == "off"


def test_print_config_needs_no_required_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print-config"], STUBS) == 0
    recipe = write(tmp_path / "recipe.yaml", capsys.readouterr().out)
    assert "data" not in read_recipe(recipe)
    assert called_with("train", "--config", recipe, "--data", "x")["epochs"] == 10


def test_print_config_checks_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be a whole number" in error_of(capsys, "train", "--print-config", "--epochs", "x")


def test_resolved_recipe_keeps_every_value(tmp_path: Path) -> None:
    options: dict[str, object] = {
        "path": Path("runs") / "ä b",
        "numbers": [1, -1, 10**20, 0.1 + 0.2, 1e-05, 1e22, 5e-324, -0.0, float("inf")],
        "nothing": None,
        "truth": [True, False],
        "texts": ["", "off", "yes", "none", "null", "~", "1e-3", "007", "0x10", "1_000", "12:30", "2024-01-31", ".5"],
        "odd": [
            "a: b",
            "# no comment",
            "- x",
            "<<",
            "=",
            " blank ",
            "two\nlines",
            "[x",
            "{",
            "%",
            "é",
            "'",
            '"',
            "@",
            "!",
        ],
        "pair": (0.5, 2),
        "empty": [],
    }
    text = resolved_recipe("finetune", options)
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    expected = options | {"path": str(options["path"]), "pair": [0.5, 2]}
    assert repr(read_recipe(path)) == repr(expected)
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert "vggtransfer finetune" in header[0]
    assert vggtransfer.__version__ in header[0]


# Help


def test_help_of_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help"], STUBS) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "usage: vggtransfer train --data PATH [--option VALUE ...]\n\n"
        "Trains a classifier.\n\nThe second paragraph says more; it names 100% of it.\n\n"
    )
    assert "  --data PATH                 Folder of pictures. (required)\n" in text
    assert "  --cache off|memory          Where pictures are kept. (default: memory)\n" in text
    assert "  --batch-size INT            Pictures per step; here is a text that is long\n" in text
    assert "  --backbone-lr NUMBER        Learning rate of the encoder. (default: 0.1)\n" in text
    assert "  --compile [true|false]      Whether to compile. (default: true)\n" in text
    assert "  --milestones INT,...        Epochs.\n" in text
    assert "  --augment light|strong|PATH\n" in text
    assert "--batch_size" not in text
    assert text.index("\nModel:\n") < text.index("--arch") < text.index("\nOptimisation:\n") < text.index("--epochs")
    assert text.index("--resume") < text.index("\nRecipe and help:\n") < text.index("--config RECIPE")
    assert max(map(len, text.splitlines())) <= 80


def test_help_of_a_command_with_positionals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "-h"], STUBS) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: vggtransfer classify PATHS... --model PATH [--option VALUE ...]\n")
    assert "\nArguments:\n  PATHS " in text


def in_a_class(*, class_: str | None = None) -> None:
    """Stub with a parameter that Python cannot call by its name.

    Args:
        class_: A name.
    """
    calls.append({"class_": class_})


def test_a_name_that_python_keeps_for_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = (Command("stub", f"{__name__}:in_a_class", "Stub."),)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("class: rose\n")
    for arguments, expected in ((["--class", "iris"], "iris"), (["--config", str(recipe)], "rose"), ([], None)):
        calls.clear()
        assert main(["stub", *arguments], commands) == 0
        assert calls == [{"class_": expected}]
    assert main(["stub", "--help"], commands) == 0
    assert "--class TEXT" in capsys.readouterr().out
    assert main(["stub", "--clas", "x"], commands) == 2
    assert "did you mean '--class'?" in capsys.readouterr().err


def test_help_wins_over_mistakes_that_follow_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "flowers", "--help"], STUBS) == 0
    assert capsys.readouterr().out.startswith("usage: vggtransfer train ")


def test_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    asked = capsys.readouterr()
    assert asked.err == ""
    for command in COMMANDS:
        assert f"\n  {command.name} " in asked.out
        assert command.summary in asked.out
    assert main([]) == 2
    unasked = capsys.readouterr()
    assert unasked.out == ""
    assert unasked.err == asked.out


def test_list_of_a_group_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "--help"], STUBS) == 0
    text = capsys.readouterr().out
    assert "weights show" in text
    assert "train" not in text.partition("Commands:")[2]
    assert main(["weights"], STUBS) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vggtransfer {vggtransfer.__version__}\n"


def test_runs_as_a_module() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "vggtransfer", "finetun"], check=False, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr == "error: unknown command 'finetun' (did you mean 'finetune'?)\n"


# The real commands


HELP_OF_EVERYTHING = f"""
import sys
from vggtransfer.cli import COMMANDS, main
for words in ([], *(command.name.split() for command in COMMANDS)):
    assert main([*words, "--help"]) == 0
    loaded = [name for name in {HEAVY_MODULES!r} if name in sys.modules]
    assert not loaded, (words, loaded)
"""


def test_help_of_every_command_imports_nothing_heavy() -> None:
    run = subprocess.run([sys.executable, "-c", HELP_OF_EVERYTHING], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for command in COMMANDS:
        assert f"usage: vggtransfer {command.name} " in run.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_of_a_command_is_documented(command: Command) -> None:
    from vggtransfer.command_line.parser import CommandParser

    parser = CommandParser(command.name, command.load(), positionals=command.positionals, sections=command.sections)
    assert [name for name, parameter in parser.parameters.items() if not parameter.help] == []
    assert [name for name in command.sections if name not in parser.parameters] == []


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("finetune-it", 2)])
def test_one_of_several_processes_ends_with_the_same_code_and_words(processes: str, word: str, code: int) -> None:
    command = [sys.executable, "-m", "vggtransfer", word]
    environment = {**os.environ, "WORLD_SIZE": processes}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert finished.returncode == code
    assert finished.stdout.startswith("vggtransfer 0.") if code == 0 else "finetune-it" in finished.stderr
