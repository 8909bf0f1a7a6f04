from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vggtransfer.cli import main
from vggtransfer.data.decode import decode_image
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import DataError, OptionError, WeightsError
from vggtransfer.features import assembly, extraction_plan
from vggtransfer.features.extract import extract
from vggtransfer.features.feature_set import load_features
from vggtransfer.features.frozen_trunk import FrozenTrunk
from vggtransfer.features.pooling import PoolName, pool_maps

SMALL: dict[str, Any] = {
    "arch": "vgg16_bn_x0_25",
    "layers": "pool2,relu1_2",
    "image_size": 32,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def parts_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction_plan, "_FEWEST_PICTURES", 4)
    monkeypatch.setattr(extraction_plan, "_MOST_PICTURES", 4)


@pytest.fixture(params=[True, False], ids=["finished", "begun"])
def finished(request: pytest.FixtureRequest, parts_of_four: None, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether an extraction finds nobody else to wait for."""
    if not request.param:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
    return bool(request.param)


def write_pictures(folder: Path, *, count: int = 11, seed: int = 0) -> list[str]:
    """Writes noise as blue/0.png, red/1.png, blue/2.png, ... and returns the names in the order of their paths."""
    names = []
    for number in range(count):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        name = f"{('blue', 'red')[number % 2]}/{number:03d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        names.append(name)
    return sorted(names)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "data")
    return tmp_path / "data"


def expected_rows(data: Path, names: list[str], layer: str, pool: PoolName, **options: Any) -> torch.Tensor:
    """The features as the encoder itself computes them."""
    transform = evaluation_transform(options.pop("image_size", 32))
    pixels = np.stack([transform(decode_image(data / name), key=0) for name in names])
    encoder = VGGEncoder("vgg16_bn_x0_25", **options).eval()
    with torch.inference_mode():
        maps = encoder.features(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, layers=[layer])[layer]
        return pool_maps(maps, pool)


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pool", ["gap", "max", "gem", "rmac", "crow", "none"])
def test_rows_are_what_the_encoder_computes(data: Path, tmp_path: Path, pool: PoolName) -> None:
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    result = extract(data, out=tmp_path / "out", pool=pool, batch_size=4, **SMALL)
    assert result.finished
    assert (result.pictures, result.bad_pictures) == (11, 0)
    found = load_features(tmp_path / "out", check_digests=True)
    assert found.paths == tuple(names)
    assert list(found.features) == ["pool2", "relu1_2"]
    for layer in found.features:
        expected = expected_rows(data, names, layer, pool).numpy()
        assert found.features[layer].shape[1:] == result.shapes[layer]
        np.testing.assert_allclose(found.features[layer], expected, rtol=1e-5, atol=1e-5 * float(expected.max()))


def test_defaults_are_those_of_evaluation_at_224_pixels(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "red")
    (data / "blue" / "004.png").replace(data / "only.png")
    shutil.rmtree(data / "blue")
    extract(data, out=tmp_path / "out", arch="vgg16_bn_x0_25", layers=["relu1_1"], device="cpu", precision="fp32")
    found = load_features(tmp_path / "out")
    assert found.manifest["preprocessing"]["image_size"] == 224
    assert found.manifest["preprocessing"]["crop_fraction"] == 0.875
    expected = expected_rows(data, ["only.png"], "relu1_1", "gap", image_size=224)
    np.testing.assert_allclose(found.features["relu1_1"], expected, rtol=1e-5, atol=1e-6)
    assert found.labels.tolist() == [""]


@pytest.mark.parametrize("file_format", ["safetensors", "npz", "parquet", "memmap"])
@pytest.mark.parametrize("store", ["fp32", "fp16"])
@pytest.mark.usefixtures("parts_of_four")
def test_all_formats_hold_the_same(data: Path, tmp_path: Path, file_format: Any, store: Any) -> None:
    extract(data, out=tmp_path / "out", pool="none", format=file_format, store=store, **SMALL)
    found = load_features(tmp_path / "out", check_digests=True)
    assert len(found) == 11
    for layer, side in (("pool2", 8), ("relu1_2", 32)):
        rows = found.features[layer]
        expected = expected_rows(data, list(found.paths), layer, "none").numpy()
        assert rows.dtype == {"fp32": np.float32, "fp16": np.float16}[store]
        assert rows.shape == (11, expected.shape[1], side, side)
        assert isinstance(rows, np.memmap) == (file_format != "parquet")
        tolerance = {"fp32": 1e-5, "fp16": 1e-3}[store]
        np.testing.assert_allclose(rows, expected, rtol=tolerance, atol=tolerance * float(expected.max()))
    expected_files = {"items.csv", "bad_pictures.csv", "manifest.json"}
    expected_files |= {"pool2.npy", "relu1_2.npy"} if file_format == "memmap" else {f"features.{file_format}"}
    assert set(all_files(tmp_path / "out")) == expected_files


def test_manifest_and_items_tell_all(data: Path, tmp_path: Path) -> None:
    (data / "loose.png").write_bytes((data / "red" / "001.png").read_bytes())
    extract(data, out=tmp_path / "out", **SMALL)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    encoder = VGGEncoder("vgg16_bn_x0_25")
    assert manifest["encoder"] == {
        "architecture": "vgg16_bn_x0_25",
        "origin": encoder.origin,
        "digest": encoder.digest,
    }
    assert manifest["layers"] == {"pool2": [32], "relu1_2": [16]}
    assert manifest["pool"] == "gap"
    assert manifest["precision"] == "fp32"
    assert manifest["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert manifest["versions"]["torch"] == torch.__version__
    assert (manifest["pictures"], manifest["bad_pictures"]) == (12, 0)
    for name, described in manifest["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert described == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with (tmp_path / "out" / "items.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(12))
    for row in rows:
        assert row["sha256"] == hashlib.sha256((data / row["path"]).read_bytes()).hexdigest()
        assert row["label"] == (row["path"].split("/")[0] if "/" in row["path"] else "")


def test_labels_of_a_folder_with_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path / "data" / split, count=2, seed=len(split))
    write_pictures(tmp_path / "data" / "others", count=2, seed=9)
    extract(tmp_path / "data", out=tmp_path / "out", **SMALL)
    found = load_features(tmp_path / "out")
    assert dict(zip(found.paths, found.labels.tolist(), strict=True)) == {
        "others/blue/000.png": "",
        "others/red/001.png": "",
        "test/blue/000.png": "blue",
        "test/red/001.png": "red",
        "train/blue/000.png": "blue",
        "train/red/001.png": "red",
    }


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("parts_of_four")
def test_bad_pictures_are_left_out_and_listed(
    data: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names = write_pictures(data)
    (data / "blue" / "002.png").write_bytes(b"text")
    (data / "red" / "001.png").write_bytes((data / "red" / "001.png").read_bytes()[:900])
    (data / "red" / "nowhere.png").symlink_to(data / "missing.png")
    (data / "zzz.png").mkdir()
    for number in range(8):  # so many in a row that one part of four has no good picture
        (data / "blue" / f"a{number}.png").write_bytes(b"")
    result = extract(data, out=tmp_path / "out", **SMALL | {"workers": workers})
    assert (result.pictures, result.bad_pictures) == (9, 11)
    found = load_features(tmp_path / "out", check_digests=True)
    good = [name for name in names if name not in ("blue/002.png", "red/001.png")]
    assert list(found.paths) == good
    np.testing.assert_allclose(found.features["pool2"], expected_rows(data, good, "pool2", "gap"), rtol=1e-5, atol=1e-5)
    with (tmp_path / "out" / "bad_pictures.csv").open(newline="") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert len(reasons) == 11
    assert reasons["blue/002.png"].startswith("not a picture in a known format")
    assert reasons["blue/a0.png"] == "the file is empty"
    assert "No such file" in reasons["red/nowhere.png"]
    assert "11 unreadable pictures left out" in capsys.readouterr().err


def test_stop_at_a_bad_picture(data: Path, tmp_path: Path) -> None:
    (data / "blue" / "002.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"002\.png: not a picture .*--on-bad-image skip"):
        extract(data, out=tmp_path / "out", on_bad_image="stop", **SMALL)


def test_no_picture_can_be_read(data: Path, tmp_path: Path) -> None:
    for path in data.rglob("*.png"):
        path.write_bytes(b"text")
    with pytest.raises(DataError, match=r"none of 11 pictures can be read, the first: .*000\.png: not a picture"):
        extract(data, out=tmp_path / "out", **SMALL)


def interrupt_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Ctrl-C comes while a later batch is computed; returns what makes it stop coming."""
    compute, calls = FrozenTrunk.__call__, []

    def computed(self: FrozenTrunk, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(pictures)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return compute(self, pictures)

    monkeypatch.setattr(FrozenTrunk, "__call__", computed)
    return lambda: monkeypatch.setattr(FrozenTrunk, "__call__", compute)


@pytest.mark.usefixtures("parts_of_four")
def test_an_interrupted_extraction_goes_on_where_it_was(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(data, out=tmp_path / "at once", **SMALL)
    release = interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 parts are finished .* repeat the same command to go on"):
        extract(data, out=tmp_path / "out", batch_size=2, **SMALL)
    with pytest.raises(DataError, match="not finished; repeat its command"):
        load_features(tmp_path / "out")
    release()
    # The part that is there is not computed again, so it may as well be made by another batch size.
    result = extract(data, out=tmp_path / "out", batch_size=3, **SMALL)
    assert result.parts_computed == 2
    found, expected = load_features(tmp_path / "out"), load_features(tmp_path / "at once")
    assert found.paths == expected.paths
    np.testing.assert_allclose(found.features["pool2"], expected.features["pool2"], rtol=1e-5, atol=1e-6)
    assert all_files(tmp_path / "out").keys() == all_files(tmp_path / "at once").keys()
    again = extract(data, out=tmp_path / "out", **SMALL)
    assert again.finished
    assert again.parts_computed == 0
    assert again.pictures == 11
    assert "complete: " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.usefixtures("parts_of_four")
def test_a_part_that_is_lost_or_damaged_is_computed_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(data, out=tmp_path / "out", **SMALL)
    release()
    first, second = sorted((tmp_path / "out" / "parts").glob("part-*"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    assert extract(data, out=tmp_path / "out", **SMALL).parts_computed == 3
    assert len(load_features(tmp_path / "out", check_digests=True)) == 11


@pytest.mark.usefixtures("parts_of_four")
def test_a_kill_between_the_manifest_and_the_end_leaves_nothing_to_mend(data: Path, tmp_path: Path) -> None:
    extract(data, out=tmp_path / "out", **SMALL)
    expected = all_files(tmp_path / "out")
    (tmp_path / "out" / "parts").mkdir()
    (tmp_path / "out" / "parts" / "plan.json").write_text("{}")
    assert extract(data, out=tmp_path / "out", **SMALL).finished
    assert all_files(tmp_path / "out") == expected


@pytest.mark.usefixtures("parts_of_four")
def test_two_processes_share_the_parts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(data, out=tmp_path / "alone", **SMALL)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = extract(data, out=tmp_path / "out", **SMALL)
    assert not result.finished
    assert result.pictures is None
    assert result.parts_computed == 1
    monkeypatch.setenv("RANK", "0")
    result = extract(data, out=tmp_path / "out", **SMALL)
    assert result.finished
    assert result.parts_computed == 2
    assert all_files(tmp_path / "out") == all_files(tmp_path / "alone")
    monkeypatch.setenv("RANK", "1")  # comes again when all is done
    assert extract(data, out=tmp_path / "out", **SMALL).finished
    assert all_files(tmp_path / "out") == all_files(tmp_path / "alone")


@pytest.mark.usefixtures("parts_of_four")
def test_one_process_does_what_another_left_undone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    extract(data, out=tmp_path / "out", **SMALL)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert extract(data, out=tmp_path / "out", **SMALL).parts_computed == 2
    assert len(set(load_features(tmp_path / "out").paths)) == 11


@pytest.mark.usefixtures("parts_of_four")
def test_many_may_assemble_at_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(data, out=tmp_path / "alone", **SMALL)
    assemble, work = assembly.assemble, {}
    monkeypatch.setattr(assembly, "assemble", lambda folder, **given: work.update(given, folder=folder))
    extract(data, out=tmp_path / "out", **SMALL)
    (tmp_path / "out" / ".features.123-0a1b2c3d.safetensors").touch()  # a process was killed here once
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(assemble, **work) for _ in range(8)]
        assert [future.result() for future in futures] == [True] * 8
    assert all_files(tmp_path / "out") == all_files(tmp_path / "alone")


@pytest.mark.slow
def test_processes_at_the_same_time_lose_and_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_pictures(tmp_path / "data", count=300)
    command = [sys.executable, "-m", "vggtransfer", "extract", "--data", "data", "--out", "out"]
    command += ["--weights", "none", "--batch-size", "16"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    processes = []
    for rank in range(3):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("RANK", str(rank))
        processes.append(subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
    for process in processes:
        assert process.wait(timeout=300) == 0, process.communicate()[1]
        process.communicate()
    found = load_features(tmp_path / "out", check_digests=True)
    assert list(found.paths) == names
    expected = expected_rows(tmp_path / "data", names[:3], "pool2", "gap", weights=None)
    assert found.features["pool2"].shape == (300, 32)
    assert not np.allclose(found.features["pool2"][:3], expected)  # random weights are those of seed 0
    torch.manual_seed(0)
    expected = expected_rows(tmp_path / "data", names[-3:], "pool2", "gap", weights=None)
    np.testing.assert_allclose(found.features["pool2"][-3:], expected, rtol=1e-5, atol=1e-5)
    assert not (tmp_path / "out" / "parts").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": "pool2"}, "layers pool2,relu1_2 there, pool2 now"),
        ({"pool": "max"}, "pool gap there, max now"),
        ({"image_size": 40}, "image-size 32 there, 40 now"),
        ({"crop_fraction": 0.5}, "crop-fraction 1 there, 0.5 now"),
        ({"weights": "none"}, r"encoder vgg16_bn_x0_25 \w+ there, vgg16_bn_x0_25 \w+ now"),
        ({"store": "fp16"}, "store fp32 there, fp16 now"),
        ({"format": "npz"}, "format safetensors there, npz now"),
        ({"precision": "bf16"}, "precision fp32 there, bf16 now"),
    ],
)
def test_another_extraction_in_the_same_folder_is_refused(
    data: Path, tmp_path: Path, changed: dict[str, Any], message: str, finished: bool
) -> None:
    assert extract(data, out=tmp_path / "out", **SMALL).finished == finished
    before = all_files(tmp_path / "out")
    with pytest.raises(OptionError, match=message):
        extract(data, out=tmp_path / "out", **SMALL | changed)
    assert all_files(tmp_path / "out") == before


def test_other_pictures_in_the_same_folder_are_refused(data: Path, tmp_path: Path, finished: bool) -> None:
    assert extract(data, out=tmp_path / "out", **SMALL).finished == finished
    write_pictures(tmp_path / "namesakes", seed=1)
    with pytest.raises(DataError, match=r"namesakes.*\.png has changed since its features were computed"):
        extract(tmp_path / "namesakes", out=tmp_path / "out", **SMALL)
    (data / "blue" / "new.png").touch()
    with pytest.raises(OptionError, match=r"pictures 11 \(list \w+\) there, 12 \(list \w+\) now"):
        extract(data, out=tmp_path / "out", **SMALL)


@pytest.mark.usefixtures("parts_of_four")
def test_stop_at_a_bad_picture_that_an_earlier_run_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "blue" / "002.png").write_bytes(b"text")
    release = interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(data, out=tmp_path / "out", **SMALL)
    release()
    with pytest.raises(DataError, match=r"002\.png: not a picture .*--on-bad-image skip"):
        extract(data, out=tmp_path / "out", on_bad_image="stop", **SMALL)


def test_nothing_of_other_people_is_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("...")
    with pytest.raises(OptionError, match="exists and holds something else than features"):
        extract(data, out=tmp_path / "out", **SMALL)
    with pytest.raises(OptionError, match="is a file"):
        extract(data, out=tmp_path / "out" / "thesis.tex", **SMALL)
    assert all_files(tmp_path / "out") == {"thesis.tex": b"..."}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "pool6"}, r"no layer 'pool6' \(did you mean 'pool5'\?\)"),
        ({"layers": "pool5,pool5"}, "pool5 twice"),
        ({"layers": "pool5", "image_size": 16}, "image_size=16 is not possible for pool5"),
        ({"image_size": 5000}, "image_size=5000"),
        ({"crop_fraction": 0.0}, "crop_fraction=0.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": -1}, "workers=-1"),
        ({"arch": "vgg17"}, "arch='vgg17' is not possible"),
        ({"pool": "sum"}, "pool='sum' is not possible"),
        ({"format": "hdf5"}, "format='hdf5' is not possible"),
        ({"precision": "fp16"}, "precision=fp16 is for GPUs"),
        ({"precision": "int8", "device": "cuda"}, "precision=int8 is for CPUs"),
        ({"device": "tpu"}, "device=tpu is not possible"),
        ({"model": Path("run")}, "--model brings its own encoder; leave out --arch vgg16_bn_x0_25"),
        ({"model": Path("run"), "arch": None, "weights": "timm"}, "leave out --weights timm"),
    ],
)
def test_options_that_are_not_possible(
    data: Path, tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrozenTrunk, "__init__", lambda *_, **__: pytest.fail("computed before it looked"))
    with pytest.raises(OptionError, match=message):
        extract(data, out=tmp_path / "out", **SMALL | options)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_there(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        extract(tmp_path / "nowhere", out=tmp_path / "out", **SMALL)
    with pytest.raises(WeightsError, match="no weights file"):
        extract(data, out=tmp_path / "out", **SMALL | {"arch": None, "model": tmp_path / "nowhere"})
    with pytest.raises(DataError, match="there are no features here"):
        load_features(tmp_path)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "set both"),
        ({"WORLD_SIZE": "2"}, "set both"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 WORLD_SIZE=2 .*RANK from 0 to WORLD_SIZE - 1"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one in the environment is not a whole number"),
    ],
)
def test_an_environment_that_makes_no_sense(
    data: Path, tmp_path: Path, environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=message):
        extract(data, out=tmp_path / "out", **SMALL)


def test_the_encoder_of_a_finetuned_model(data: Path, tmp_path: Path) -> None:
    from vggtransfer.classification.model import Task, VGGClassifier, save_classifier

    torch.manual_seed(3)
    encoder = VGGEncoder("vgg16_bn_x0_25", weights=None, layers=["pool5"])
    for buffer_name, buffer in encoder.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_()
    model = VGGClassifier(encoder, Task(("blue", "red"), 48, 0.75, "linear", 0.5)).eval()
    save_classifier(model, tmp_path / "run" / "model.safetensors")
    options = SMALL | {"arch": None, "image_size": None, "model": tmp_path / "run"}
    extract(data, out=tmp_path / "out", **options)
    found = load_features(tmp_path / "out")
    assert found.manifest["preprocessing"]["image_size"] == 48
    assert found.manifest["preprocessing"]["crop_fraction"] == 0.75
    transform = evaluation_transform(48, crop_fraction=0.75)
    pixels = np.stack([transform(decode_image(data / name), key=0) for name in found.paths])
    with torch.inference_mode():
        maps = encoder.features(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, layers=["pool2"])["pool2"]
    np.testing.assert_allclose(found.features["pool2"], pool_maps(maps, "gap"), rtol=1e-5, atol=1e-5)


def test_a_file_of_weights_is_no_model(data: Path, tmp_path: Path) -> None:
    from vggtransfer.encoder.weight_sources import find_source

    weights = find_source("vgg16_bn_x0_25", "embedded").path
    with pytest.raises(WeightsError, match=r"this is no model of `vggtransfer finetune`.*--weights"):
        extract(data, out=tmp_path / "out", **SMALL | {"arch": None, "model": weights})


def test_numbers_that_float16_cannot_hold(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = FrozenTrunk.__call__
    monkeypatch.setattr(
        FrozenTrunk, "__call__", lambda self, x: {name: 1e6 * maps for name, maps in compute(self, x).items()}
    )
    with pytest.raises(OptionError, match="pool2 has values above 65504, too large for store=fp16"):
        extract(data, out=tmp_path / "out", store="fp16", **SMALL)


def test_damaged_weights_are_noticed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = FrozenTrunk.__call__
    monkeypatch.setattr(
        FrozenTrunk, "__call__", lambda self, x: {name: maps / 0 for name, maps in compute(self, x).items()}
    )
    with pytest.raises(WeightsError, match="NaN or infinity"):
        extract(data, out=tmp_path / "out", **SMALL)


def test_features_that_changed_since_are_noticed(data: Path, tmp_path: Path) -> None:
    extract(data, out=tmp_path / "out", **SMALL)
    path = tmp_path / "out" / "features.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_features(tmp_path / "out")
    with pytest.raises(DataError, match="SHA-256 differs"):
        load_features(tmp_path / "out", check_digests=True)
    path.write_bytes(content[:-4])
    with pytest.raises(DataError, match="bytes, its manifest says"):
        load_features(tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        load_features(tmp_path / "out")


def test_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["extract", "--data", str(data), "--layers", "pool5,relu4_3", "--pool", "gem", "--out"]
    command += [str(tmp_path / "out"), "--arch", "vgg16_bn_x0_25", "--image-size", "32", "--workers", "0"]
    assert main([*command, "--precision", "fp32", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"wrote {tmp_path / 'out'}: 11 pictures, pool5 [128], relu4_3 [128] in fp32\n"
    assert printed.err == "extracting pool5, relu4_3 in fp32 on cpu: 11 of 11 pictures\n"
    assert load_features(tmp_path / "out").manifest["pool"] == "gem"
    assert main(["extract", "--data", str(data), "--out", str(data), "--layers", "pool5"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_int8_is_near_fp32_and_says_how_near(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not torch.cpu._is_vnni_supported():
        with pytest.raises(OptionError, match="VNNI"):
            extract(data, out=tmp_path / "out", **SMALL | {"precision": "int8"})
        return
    (data / "blue" / "002.png").write_bytes(b"text")
    extract(data, out=tmp_path / "exact", **SMALL)
    capsys.readouterr()
    extract(data, out=tmp_path / "out", **SMALL | {"precision": "int8", "device": "auto"})
    found, exact = load_features(tmp_path / "out"), load_features(tmp_path / "exact")
    assert found.manifest["precision"] == "int8"
    assert found.paths == exact.paths
    cosines = {}
    for layer in ("pool2", "relu1_2"):
        one, other = np.array(found.features[layer]), np.array(exact.features[layer])
        assert not np.array_equal(one, other)
        cosines[layer] = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines[layer].min() > 0.99
    printed = capsys.readouterr().err
    shown = re.search(r"on 3 pictures it was not calibrated on: pool2 mean ([\d.]+), lowest ([\d.]+); relu1_2", printed)
    assert shown is not None, printed
    # Every third picture in the list, which are these rows.
    assert float(shown[1]) == pytest.approx(cosines["pool2"][[1, 4, 7]].mean(), abs=2e-5)
    assert float(shown[2]) == pytest.approx(cosines["pool2"][[1, 4, 7]].min(), abs=2e-5)


def test_pictures_for_calibration_are_spread_and_not_compared() -> None:
    from vggtransfer.features.calibration import chosen_pictures

    for_calibration, for_comparison = chosen_pictures(1000)
    assert len(for_calibration) == 64
    assert len(for_comparison) == 32
    assert not set(for_calibration) & set(for_comparison)
    assert max(for_calibration + for_comparison) > 980
    assert chosen_pictures(1) == ([0], [])
