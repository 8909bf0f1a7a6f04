"""When the best model and the checkpoint of a run are written, and what is in them."""

import pytest
import torch

from vggtransfer.training.checkpoint import find_checkpoint, load_checkpoint
from vggtransfer.training.saving import Saving


@pytest.fixture
def clock(monkeypatch):
    """Seconds; each look at it takes one."""
    now = [100.0]

    def monotonic():
        now[0] += 1
        return now[0]

    monkeypatch.setattr("vggtransfer.training.saving.time.monotonic", monotonic)
    return now


def state(epoch):
    return {"progress": {"epoch": epoch}}


def test_writing_takes_a_twentieth_of_the_time_after_the_first_epoch(tmp_path, clock):
    saving = Saving(tmp_path, save_model=None, resume_from=tmp_path)
    saving.write(state(0))
    assert saving.is_due()
    saving.write(state(1))  # for one second
    assert not saving.is_due()
    clock[0] += 15
    assert not saving.is_due()
    clock[0] += 5
    assert saving.is_due()
    saving.write(state(9))
    assert load_checkpoint(tmp_path) == state(9)


def test_the_best_model_is_written_as_it_was_and_before_the_checkpoint(tmp_path):
    written = []

    def save_model(model):
        written.append((model.weight.tolist(), find_checkpoint(tmp_path)))

    saving = Saving(tmp_path, save_model=save_model, resume_from=tmp_path)
    model = torch.nn.Linear(1, 1, bias=False)
    for value in (1.0, 2.0):
        torch.nn.init.constant_(model.weight, value)
        saving.remember_best(model)
    torch.nn.init.constant_(model.weight, 3.0)
    saving.write(state(3))
    assert written == [([[2.0]], None)]
    saving.write(state(4))
    saving.write_best()
    assert len(written) == 1
