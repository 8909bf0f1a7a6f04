from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from vggtransfer.classification.model import Task, VGGClassifier, load_classifier, save_classifier
from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import WeightsError

SMALL = "vgg16_bn_x0_25"


@pytest.fixture
def model() -> VGGClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = VGGEncoder(SMALL, weights=None, layers=["pool5"], unfreeze="block5")
        model = VGGClassifier(encoder, Task(("a", "b c", "ü"), 40, 0.8, "mlp", 0.25))
        # So that BatchNorm's statistics are not those of a new layer.
        model.train()(torch.rand(4, 3, 40, 40))
    return model.eval()


@pytest.fixture
def run(model: VGGClassifier, tmp_path: Path) -> Path:
    save_classifier(model, tmp_path / "run" / "model.safetensors")
    return tmp_path / "run"


def header_of(run: Path) -> dict[str, Any]:
    with safe_open(run / "model.safetensors", "pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()["vggtransfer"])
    return header


def rewrite(run: Path, header: object) -> None:
    """Puts another header on the same tensors."""
    tensors = load_file(run / "model.safetensors")
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(tensors, run / "model.safetensors", metadata={"vggtransfer": text})


def test_everything_comes_back(model: VGGClassifier, run: Path) -> None:
    again = load_classifier(run)
    assert again.task == model.task
    assert again.encoder.architecture.name == SMALL
    assert again.encoder.origin == model.encoder.origin
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.encoder.parameters())
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    images = torch.rand(2, 3, 40, 40)
    assert torch.equal(again(images), model(images))


def test_a_text_and_the_file_itself_do_as_well(run: Path) -> None:
    for source in (str(run), run / "model.safetensors", str(run / "model.safetensors")):
        assert load_classifier(source).task.classes == ("a", "b c", "ü")


def test_the_digest_is_that_of_the_trunk_in_the_file(model: VGGClassifier, run: Path, tmp_path: Path) -> None:
    assert model.encoder.digest is None
    loaded = load_classifier(run)
    trunk = {
        key: tensor for key, tensor in model.encoder.trunk.state_dict().items() if "num_batches_tracked" not in key
    }
    assert loaded.encoder.digest == weights_digest(trunk) == header_of(run)["digest"]
    assert VGGEncoder(SMALL, weights=run).digest == loaded.encoder.digest

    with torch.no_grad():
        loaded.encoder.trunk.get_parameter("conv5_3.weight").mul_(1.5)
    save_classifier(loaded, tmp_path / "more" / "model.safetensors")
    trained = load_classifier(tmp_path / "more").encoder.digest
    assert trained != loaded.encoder.digest
    assert VGGEncoder(SMALL, weights=tmp_path / "more").digest == trained


def test_an_encoder_starts_from_a_run(model: VGGClassifier, run: Path) -> None:
    encoder = VGGEncoder(SMALL, weights=run, layers=["pool5"]).eval()
    images = torch.rand(1, 3, 40, 40)
    assert torch.equal(encoder(images)[0], model.encoder(images)[0])
    assert encoder.origin == f"{run / 'model.safetensors'} (random (He initialisation))"


def test_the_header_tells_what_made_it(run: Path) -> None:
    header = header_of(run)
    assert (header["format"], header["kind"], header["architecture"]) == (1, "classifier", SMALL)
    assert header["task"]["classes"] == ["a", "b c", "ü"]
    assert header["versions"]["torch"] == torch.__version__


def change(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda header: {**header, **values}


def change_task(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda header: {**header, "task": {**header["task"], **values}}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(format=2), "was written by another version of vggtransfer; update"),
        (change(kind="trunk"), "not a classifier trained by"),
        (change(digest="0" * 64), "is damaged: its weights have the digest"),
        (change(architecture="vgg99_bn"), "the architecture 'vgg99_bn', which this version does not know"),
        (change(architecture="vgg11"), "do not fit the vgg11"),
        (change(task=None), "damaged header"),
        (change(task={"classes": ["a"]}), "damaged header"),
        (change_task(classes=3), "damaged header"),
        (change_task(colour="red"), "damaged header"),
        (change_task(head="transformer"), "the head 'transformer', which this version does not know"),
        (change_task(head="linear"), "do not fit"),
        (change_task(classes=["a", "b"]), "do not fit"),
        (lambda header: {key: value for key, value in header.items() if key != "task"}, "damaged header"),
        (lambda header: {key: value for key, value in header.items() if key != "format"}, "damaged header"),
        (lambda _: "{half", "damaged header"),
        (lambda _: [], "damaged header"),
    ],
)
def test_headers_that_cannot_be_used(edit: Callable[[dict[str, Any]], object], message: str, run: Path) -> None:
    rewrite(run, edit(header_of(run)))
    with pytest.raises(WeightsError, match=message) as caught:
        load_classifier(run)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_classifier(run: Path, tmp_path: Path) -> None:
    whole = (run / "model.safetensors").read_bytes()
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    torch.save({"a": torch.zeros(3)}, tmp_path / "state.pth")
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("foreign.safetensors", "not a classifier trained by"),
        ("state.pth", "not a classifier trained by"),
        ("half.safetensors", "damaged or incomplete"),
        ("empty.safetensors", "is empty"),
        ("text.safetensors", "not a weights file"),
        ("folder", r"no model\.safetensors there"),
        ("nowhere", r"no model\.safetensors there"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            load_classifier(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_one_flipped_bit_in_the_trunk_is_noticed(run: Path) -> None:
    path = run / "model.safetensors"
    content = bytearray(path.read_bytes())
    weight = load_file(path)["encoder.trunk.conv3_1.weight"].numpy().tobytes()
    content[content.find(weight) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        load_classifier(run)
    with pytest.raises(WeightsError, match="is damaged"):
        VGGEncoder(SMALL, weights=run)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_full_disk_leaves_the_model_before(
    error: Exception, model: VGGClassifier, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "model.safetensors").read_bytes()

    def full(_tensors: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WeightsError, match="No space left on device") as caught:
        save_classifier(model, run / "model.safetensors")
    message = str(caught.value)
    assert message.startswith(f"cannot write {run / 'model.safetensors'}: ")
    assert message.endswith(f"; free space and go on with: vggtransfer finetune --resume {run}")
    assert [path.name for path in run.iterdir()] == ["model.safetensors"]
    assert (run / "model.safetensors").read_bytes() == before
