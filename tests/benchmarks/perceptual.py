"""Losses against lpips and piq on the same random weights: python tests/benchmarks/perceptual.py [NAME ...]

Prints one table, as speed.py does. Each arm computes a loss of one photograph, blurred and noisy, against the
photograph at 224 pixels, and its gradient with respect to the pixels. Weights are He's normal initialisation, which
keeps the size of maps from layer to layer, as training does; torchvision's default would let them fade. Pictures come
from $VGGTRANSFER_DATA, else ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import lpips
import numpy as np
import piq
import torch
from interleaved import Measurement, interleave, show
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from vggtransfer import LPIPS, PerceptualLoss, PerceptualSuite, StyleLoss, VGGEncoder
from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import read_split
from vggtransfer.data.transforms import evaluation_transform

Step = Callable[[], tuple[float, Tensor]]


class Bench:
    """Weights in both arms, and pictures.

    Args:
        pictures: How many at once.
    """

    def __init__(self, pictures: int) -> None:
        torch.manual_seed(0)
        self.features = make_layers(cfgs["D"], batch_norm=False).eval().requires_grad_(False)
        self.encoder = VGGEncoder("vgg16", weights=None)
        ours = [layer for layer in self.encoder.trunk.values() if isinstance(layer, nn.Conv2d)]
        theirs = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        for one, other in zip(theirs, ours, strict=True):
            one.load_state_dict(other.state_dict())
        lpips.pretrained_networks.tv = SimpleNamespace(vgg16=lambda **_: SimpleNamespace(features=self.features))
        self.lpips = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        self.y = photographs(pictures)
        self.x = (F.avg_pool2d(self.y, 5, 1, 2) + 0.05 * torch.randn_like(self.y)).clamp(0, 1)

    def step(self, loss: Callable[..., Tensor], *, known: bool = False) -> Step:
        """Loss and gradient; a known target is the same tensor each time, otherwise a new one."""

        def run() -> tuple[float, Tensor]:
            x = self.x.clone().requires_grad_()
            value = loss(x, self.y if known else self.y.clone()).sum()
            value.backward()
            return value.item(), x.grad

        return run

    def their_lpips(self) -> Step:
        return self.step(lambda x, y: self.lpips(x, y, normalize=True))

    def their_content(self) -> Step:
        return self.step(piq.ContentLoss(self.features, layers=["15"], weights=[1.0]))


def photographs(count: int) -> Tensor:
    """Photographs of 224x224."""
    source = Path(os.environ.get("VGGTRANSFER_DATA", "../shared/data"))
    if not source.is_dir():
        raise SystemExit("no pictures: set VGGTRANSFER_DATA, see the first lines of this file")
    with tempfile.TemporaryDirectory() as scratch:
        import shutil

        shutil.unpack_archive(source / "flowers12.zip", scratch)
        folder = next(path.parent for path in Path(scratch).rglob("train"))
        _, samples = read_split(folder, "test")
        plain = evaluation_transform(224)
        arrays = [
            plain(decode_image(sample.path), key=0).transpose(2, 0, 1) for sample in samples[:: len(samples) // count]
        ]
        return torch.from_numpy(np.stack(arrays[:count])).float() / 255


def kept(run: Step, weights: nn.Module) -> int:
    """Bytes that a forward pass keeps for the backward pass, the peer's weights aside, which are there anyway."""
    seen: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in weights.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(seen.values())


def compared(what: str, peer: str, goal: float | None, ours: Step, theirs: Step) -> Measurement:
    """Times two arms and says how far their losses and gradients agree."""
    (value, gradient), (expected, direction) = ours(), theirs()
    likeness = torch.cosine_similarity(gradient.flatten(), direction.flatten(), dim=0).item()
    measured = Measurement(what, peer, goal, *interleave(ours, theirs))
    return replace(measured, note=f"loss {value / expected - 1:+.3%} apart, cosine of the gradients {likeness:.5f}")


@dataclass(frozen=True)
class Line:
    """One LPIPS line of the table."""

    precision: str
    known: bool
    goal: float | None


LPIPS_LINES = {
    "lpips_fp32": Line("fp32", known=False, goal=1.2),
    "lpips_fp32_known": Line("fp32", known=True, goal=1.8),
    "lpips_mixed": Line("mixed", known=False, goal=2.5),
    "lpips_mixed_known": Line("mixed", known=True, goal=3.5),
    "lpips_bf16": Line("bf16", known=False, goal=None),
    "lpips_bf16_known": Line("bf16", known=True, goal=None),
}


def lpips_line(bench: Bench, name: str) -> Measurement:
    """LPIPS in one precision against lpips in float32."""
    line = LPIPS_LINES[name]
    ours = bench.step(LPIPS(bench.encoder, precision=line.precision), known=line.known)
    what = f"LPIPS, {line.precision}, {'known' if line.known else 'new'} target"
    return compared(what, 'lpips.LPIPS(net="vgg"), float32', line.goal, ours, bench.their_lpips())


def content(bench: Bench, *, known: bool) -> Measurement:
    """Content loss at relu3_3, float32 in both arms."""
    # piq sums over the 256 channels.
    ours = bench.step(PerceptualLoss({"relu3_3": 256.0}, net=bench.encoder), known=known)
    what = f"content loss at relu3_3, fp32, {'known' if known else 'new'} target"
    return compared(what, "piq.ContentLoss, float32", 1.8, ours, bench.their_content())


def suite(bench: Bench) -> Measurement:
    """Three losses together against one of them: at most 1.25 times its cost, so at least 0.8 times as fast."""
    losses = {
        "content": PerceptualLoss(net=bench.encoder, precision="fp32"),
        "style": StyleLoss(net=bench.encoder, precision="fp32"),
        "lpips": LPIPS(bench.encoder, precision="fp32"),
    }
    together = bench.step(PerceptualSuite(losses))
    alone = bench.step(LPIPS(bench.encoder, precision="fp32"))
    seconds = interleave(together, alone)
    return Measurement("content + style + LPIPS in a suite, fp32", "our LPIPS alone, fp32", 0.8, *seconds)


def memory(bench: Bench) -> None:
    """What is kept between forward and backward pass."""
    new = bench.step
    content_loss = {
        "fp32": PerceptualLoss(net=bench.encoder),
        "mixed": PerceptualLoss(net=bench.encoder, precision="mixed"),
    }
    arms = [
        ("lpips", bench.their_lpips(), f"LPIPS {kind}", new(LPIPS(bench.encoder, precision=kind)), 1 / 6)
        for kind in ("fp32", "mixed")
    ]
    arms += [
        ("piq", bench.their_content(), f"content {kind}", new(loss), 1 / 10) for kind, loss in content_loss.items()
    ]
    print(
        "\n| kept for the backward pass | MB | of the peer | MB | part | goal |\n| --- | --- | --- | --- | --- | --- |"
    )
    for peer, theirs, what, ours, goal in arms:
        ours_bytes, their_bytes = (kept(run, bench.features) for run in (ours, theirs))
        print(
            f"| {what} | {ours_bytes / 1e6:.1f} | {peer} | {their_bytes / 1e6:.1f} "
            f"| {ours_bytes / their_bytes:.1%} | {goal:.1%} |"
        )


LINES: dict[str, Callable[[Bench], Measurement]] = {
    **{name: lambda bench, name=name: lpips_line(bench, name) for name in LPIPS_LINES},
    "content": lambda bench: content(bench, known=False),
    "content_known": lambda bench: content(bench, known=True),
    "suite": suite,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*LINES, "memory", []], help="lines of the table; default: all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pictures", type=int, default=1, help="pictures at once")
    options = parser.parse_args()
    names = options.names or [*LINES, "memory"]
    torch.set_num_threads(options.threads)
    bench = Bench(options.pictures)
    if lines := [LINES[name](bench) for name in names if name != "memory"]:
        show(lines)
    if "memory" in names:
        memory(bench)


if __name__ == "__main__":
    main()
