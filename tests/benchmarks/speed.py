"""Speed against the ways people use today: python tests/benchmarks/speed.py [NAME ...]

Prints one table. Both arms of a line do the same work in this process, in turn, and the ratio of their times is what
counts; absolute times say more about the machine. Pictures come from $VGGTRANSFER_DATA, else ../shared/data. One line
needs img2vec_pytorch from PyPI.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from interleaved import Measurement, interleave, matrix_rate, show
from peers import MEAN, STD, decode_and_resize, img2vec_vgg16, tutorial_extraction, tutorial_training
from PIL import Image
from torch import Tensor

from vggtransfer import VGGEncoder, extract, finetune
from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import read_split
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.features.frozen_trunk import FrozenTrunk
from vggtransfer.features.quantized_trunk import QuantizedTrunk

CPU = torch.device("cpu")
MACS = 15_346_630_656  # of VGG16's convolutions at 224 pixels
BATCH = 8


class Bench:
    """Pictures and weights that several lines share.

    Args:
        scratch: Folder for everything written.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        source = Path(os.environ.get("VGGTRANSFER_DATA", "../shared/data"))
        if not source.is_dir():
            raise SystemExit("no pictures: set VGGTRANSFER_DATA, see the first lines of this file")
        shutil.unpack_archive(source / "flowers12.zip", scratch / "flowers12")
        self.flowers = next(path.parent for path in (scratch / "flowers12").rglob("train"))
        torch.manual_seed(0)
        self.features = torchvision.models.vgg16(weights=None).features.eval().requires_grad_(False)
        torch.save(self.features.state_dict(), scratch / "vgg16.pth")
        torch.save(
            {f"features.{name}": tensor for name, tensor in self.features.state_dict().items()},
            scratch / "torchvision.pth",
        )
        self.encoder = VGGEncoder("vgg16", weights=scratch / "torchvision.pth").eval()
        _, samples = read_split(self.flowers, "test")
        plain = evaluation_transform(224)
        self.pictures = torch.stack(
            [
                torch.from_numpy(np.ascontiguousarray(plain(decode_image(sample.path), key=0).transpose(2, 0, 1)))
                for sample in samples[:: len(samples) // (9 * BATCH)][: 9 * BATCH]
            ]
        )
        self.batch = self.pictures[:BATCH]

    def normalised(self) -> Tensor:
        """The batch as torchvision's networks take it."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (self.batch / 255 - mean) / std

    def few(self, train: int, val: int) -> Path:
        """A data folder with so many pictures of each class."""
        folder = self.scratch / f"few-{train}-{val}"
        for split, source, count in (("train", "train", train), ("val", "test", val)):
            for place in sorted((self.flowers / source).iterdir()):
                (folder / split / place.name).mkdir(parents=True, exist_ok=True)
                for path in sorted(place.iterdir())[:count]:
                    shutil.copy(path, folder / split / place.name)
        return folder


@contextlib.contextmanager
def empty_cache(scratch: Path) -> Iterator[None]:
    """Nothing found from earlier rounds, nothing left for later ones."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        os.environ["VGGTRANSFER_CACHE"] = folder
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def finetune_block5(bench: Bench) -> Measurement:
    """A whole run, from pictures to report."""
    return _finetune(bench, "block5", trainable_from=24, goal=10)


def finetune_head(bench: Bench) -> Measurement:
    """A whole run that trains the head alone."""
    return _finetune(bench, "none", trainable_from=31, goal=25)


def _finetune(bench: Bench, unfreeze: str, *, trainable_from: int, goal: float) -> Measurement:
    data = bench.few(8, 2)
    losses = {"ours": 0.0, "theirs": 0.0}

    def ours() -> None:
        with empty_cache(bench.scratch) as _, tempfile.TemporaryDirectory(dir=bench.scratch) as out:
            result = finetune(
                data,
                weights=str(bench.scratch / "torchvision.pth"),
                unfreeze=unfreeze,
                augmentation="none",
                epochs=10,
                warmup_epochs=0,
                out=Path(out) / "run",
            )
        losses["ours"] = float(result.history[-1]["val_loss"])

    def theirs() -> None:
        losses["theirs"] = tutorial_training(
            data, bench.scratch / "vgg16.pth", trainable_from=trainable_from, epochs=10, batch_size=32, lr=1e-3
        )

    seconds = interleave(ours, theirs, warm_up=False)
    return Measurement(
        f"`finetune --unfreeze {unfreeze}`, whole run, 10 epochs of 96 pictures, vgg16 at 224",
        "torchvision in float32 with requires_grad=False, as in PyTorch's tutorial",
        goal,
        *seconds,
        note=f"last validation loss {losses['ours']:.4f}, of the peer {losses['theirs']:.4f}",
    )


def steady_epoch(bench: Bench) -> Measurement:
    """An epoch with block5 training, once all maps are there."""
    data = bench.few(16, 1)
    rates: dict[str, list[float]] = {"off": [], "memory": []}

    def run(cache: str) -> Callable[[], None]:
        def arm() -> None:
            with empty_cache(bench.scratch), tempfile.TemporaryDirectory(dir=bench.scratch) as out:
                result = finetune(
                    data,
                    weights=str(bench.scratch / "torchvision.pth"),
                    augmentation="none",
                    epochs=2,
                    cache=cache,  # type: ignore[arg-type]
                    out=Path(out) / "run",
                )
            rates[cache].append(1 / float(result.history[-1]["images_per_second"]))

        return arm

    interleave(run("memory"), run("off"), warm_up=False)
    return Measurement(
        "steady epoch, block5, batches of 32", "our own loop, uncached", 3.5, rates["memory"], rates["off"]
    )


def extraction(
    bench: Bench, name: str, ours: Callable[[Tensor], Tensor], compute_type: torch.dtype, goal: float
) -> Measurement:
    """Pictures in memory to pooled features."""
    images = bench.normalised()

    def theirs() -> Tensor:
        with torch.inference_mode():
            return bench.features(images).mean(dim=(2, 3))

    cosines = torch.cosine_similarity(ours(bench.batch).float().mean(dim=(2, 3)), theirs())
    seconds = interleave(lambda: ours(bench.batch), theirs)
    return Measurement(
        f"extraction, vgg16 at 224, {name}",
        "torchvision, float32, NCHW, eager",
        goal,
        *seconds,
        operations=2 * MACS * BATCH,
        rate=matrix_rate(compute_type),
        note=f"lowest cosine of pooled features {cosines.min():.5f} (random weights)",
    )


def extraction_bf16(bench: Bench) -> Measurement:
    """BatchNorm folded, weights converted once, channels last."""
    trunk = FrozenTrunk(bench.encoder, ["pool5"], device=CPU, compute_type=torch.bfloat16)
    return extraction(bench, "bf16", lambda pictures: trunk(pictures)["pool5"], torch.bfloat16, 3.5)


def extraction_fp32(bench: Bench) -> Measurement:
    """The same in the peer's own number format."""
    trunk = FrozenTrunk(bench.encoder, ["pool5"], device=CPU, compute_type=torch.float32)
    return extraction(bench, "fp32", lambda pictures: trunk(pictures)["pool5"], torch.float32, 1.0)


def extraction_int8(bench: Bench) -> Measurement:
    """Calibrated on other pictures."""
    trunk = QuantizedTrunk(bench.encoder, ["pool5"], bench.pictures[BATCH:].split(BATCH))
    return extraction(bench, "int8", lambda pictures: trunk(pictures)["pool5"], torch.int8, 7.0)


def extraction_timm(bench: Bench) -> Measurement:
    """All five maps of a U-Net's encoder."""
    network = timm.create_model("vgg16", pretrained=False, features_only=True).eval()
    layers = list(bench.encoder.layers)
    trunk = FrozenTrunk(bench.encoder, layers, device=CPU, compute_type=torch.bfloat16)
    images = bench.normalised()

    def theirs() -> list[Tensor]:
        with torch.inference_mode():
            return network(images)  # type: ignore[no-any-return]

    return Measurement(
        "all six maps, vgg16 at 224, bf16",
        "timm features_only, float32",
        None,
        *interleave(lambda: trunk(bench.batch), theirs),
    )


def extraction_img2vec(bench: Bench) -> Measurement:
    """Pictures of the right size in memory to one vector each."""
    encoder = VGGEncoder("vgg16_bn", weights=None).eval()
    trunk = FrozenTrunk(encoder, ["pool5"], device=CPU, compute_type=torch.bfloat16)
    peer = img2vec_vgg16()
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in bench.batch]
    return Measurement(
        "extraction, vgg16_bn at 224, bf16",
        "img2vec_pytorch, `vgg16`, float32",
        None,
        *interleave(lambda: trunk(bench.batch)["pool5"].float().mean(dim=(2, 3)), lambda: peer.get_vec(pictures)),
        note="512 pooled values of pool5; the peer gives 4,096 of fc7, for which it runs the three fully connected "
        "layers as well (0.8% of the arithmetic), and makes tensors of PIL pictures",
    )


def freed_memory(bench: Bench) -> Measurement:
    """Whether glibc keeps what a step frees."""
    seconds: dict[str, list[float]] = {"kept": [], "returned": []}

    def run(setting: str) -> Callable[[], None]:
        words = [sys.executable, str(Path(__file__).with_name("freed_memory.py")), setting]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        return lambda: seconds[setting].append(
            float(subprocess.run(words, env=environment, capture_output=True, check=True, text=True).stdout)
        )

    interleave(run("kept"), run("returned"), warm_up=False)
    return Measurement(
        "training step of all of vgg16, batches of 8 at 224, freed memory kept",
        "the same step in a process that returns it",
        None,
        seconds["kept"],
        seconds["returned"],
    )


def files_to_features(bench: Bench) -> Measurement:
    """JPEG files to pooled features on disk."""
    folder = bench.few(8, 1) / "train"

    def ours() -> None:
        with tempfile.TemporaryDirectory(dir=bench.scratch) as out, contextlib.redirect_stdout(io.StringIO()):
            extract(folder, out=Path(out) / "features", weights=str(bench.scratch / "torchvision.pth"), arch="vgg16")

    def theirs() -> None:
        tutorial_extraction(bench.features, folder, batch_size=32, out=bench.scratch / "peer.pt")

    seconds = interleave(ours, theirs)
    trunk = FrozenTrunk(bench.encoder, ["pool5"], device=CPU, compute_type=torch.bfloat16)
    bare, _ = interleave(lambda: [trunk(part) for part in bench.pictures.split(64)], lambda: None)
    rates = [96 / min(seconds[0]), len(bench.pictures) / min(bare)]
    return Measurement(
        "96 JPEG files to pooled features on disk, bf16",
        "PIL + torchvision transforms + DataLoader + float32",
        3.5,
        *seconds,
        note=f"{rates[0] / rates[1]:.0%} of the rate of the bare network",
    )


def decoding(bench: Bench) -> Measurement:
    """Large photographs to what the network sees of them."""
    _, samples = read_split(bench.flowers, "test")
    paths = []
    for number, sample in enumerate(samples[::24]):
        with Image.open(sample.path) as image:
            image.resize((1600, 1200), Image.Resampling.BICUBIC).save(
                path := bench.scratch / f"{number}.jpg", quality=90
            )
        paths.append(path)
    plain = evaluation_transform(224)
    return Measurement(
        "decoding and resizing of 1600x1200 JPEGs",
        "PIL at full size, torchvision's Resize and CenterCrop",
        3.0,
        *interleave(
            lambda: [plain(decode_image(path, min_side=plain.min_side), key=0) for path in paths],
            lambda: [decode_and_resize(path) for path in paths],
        ),
    )


LINES: dict[str, Callable[[Bench], Measurement]] = {
    line.__name__: line
    for line in (
        decoding,
        extraction_fp32,
        extraction_bf16,
        extraction_int8,
        extraction_timm,
        extraction_img2vec,
        freed_memory,
        files_to_features,
        steady_epoch,
        finetune_head,
        finetune_block5,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*LINES, []], help="lines of the table; default: all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    names = options.names or [name for name in LINES if name != "extraction_img2vec" or find_spec("img2vec_pytorch")]
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch))
        show([LINES[name](bench) for name in names])


if __name__ == "__main__":
    main()
