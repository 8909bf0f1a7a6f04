import errno

import pytest
import torch

from vggtransfer.errors import OptionError, TrainingError
from vggtransfer.training.checkpoint import CHECKPOINT_FILE, find_checkpoint, load_checkpoint, save_checkpoint
from vggtransfer.training.run_directory import create_run_directory, write_rows


def test_round_trip(tmp_path):
    assert not find_checkpoint(tmp_path)
    state = {"model": {"weight": torch.rand(3)}, "progress": {"epoch": 2, "history": [{"loss": 0.5}]}, "ema": None}
    save_checkpoint(tmp_path, state)
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded["model"]["weight"], state["model"]["weight"])
    assert loaded["progress"] == state["progress"]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"epoch": 1})

    def half_a_file(state, path):
        path.write_bytes(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", half_a_file)
    with pytest.raises(TrainingError, match=r"cannot write .*No space left on device; make room"):
        save_checkpoint(tmp_path, {"epoch": 2})
    assert load_checkpoint(tmp_path) == {"epoch": 1}
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == [CHECKPOINT_FILE.name]


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = save_checkpoint(tmp_path, {"weights": torch.rand(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TrainingError, match=r"last\.pt: damaged checkpoint"):
        load_checkpoint(tmp_path)


def test_run_directories_are_numbered_and_never_reused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [create_run_directory("finetune", None).as_posix() for _ in range(2)] == [
        "runs/finetune/1",
        "runs/finetune/2",
    ]
    chosen = tmp_path / "mine"
    assert create_run_directory("finetune", chosen) == chosen
    (chosen / "recipe.yaml").touch()
    with pytest.raises(OptionError, match="--resume"):
        create_run_directory("finetune", chosen)


def test_rows_become_csv(tmp_path):
    write_rows(tmp_path / "metrics.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["epoch,loss", "1,0.5", "2,0.25"]
