"""U-Nets on VGG16 against those of segmentation_models_pytorch: python tests/benchmarks/segmentation.py

Both arms of a line have the same weights and do the same work in this process, in turn. Memory is what a process of its
own takes at most while it does the work, beyond what it held before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from interleaved import ROUNDS, Measurement, interleave, show
from torch import Tensor, nn

from vggtransfer import VGGUNet
from vggtransfer.comparison.memory import PeakMemory
from vggtransfer.segmentation.frozen_segmenter import FrozenSegmenter

CPU = torch.device("cpu")
BATCH, SIDE, CLASSES = 4, 256, 11
PICTURES = "4 pictures of 256x256"
PEER = "smp Unet('vgg16'), float32, NCHW, eager"


def peer_unet() -> nn.Module:
    """Smp's, with its default decoder and random weights."""
    torch.manual_seed(0)
    return smp.Unet("vgg16", encoder_weights=None, classes=CLASSES)


def our_unet(peer: nn.Module, *, full_resolution_skip: bool = False) -> VGGUNet:
    """Ours with the peer's weights; the skip that the peer lacks keeps its random ones."""
    ours = VGGUNet(
        "vgg16",
        classes=CLASSES,
        weights=None,
        unfreeze="none",
        full_resolution_skip=full_resolution_skip,
        normalize=False,
    )
    convolutions = [layer for layer in ours.encoder.trunk.values() if isinstance(layer, nn.Conv2d)]
    of_peer = [layer for layer in peer.encoder.features if isinstance(layer, nn.Conv2d)]
    for layer, other in zip(convolutions, of_peer, strict=True):
        layer.load_state_dict(other.state_dict())
    for block, other in zip(ours.decoder.center, peer.decoder.center, strict=True):
        block.conv.load_state_dict({"weight": other[0].weight})
        block.norm.load_state_dict(other[1].state_dict())
    for stage, other in zip(ours.decoder.stages, peer.decoder.blocks, strict=True):
        below, skip = stage.join.below, stage.join.skip
        weight = other.conv1[0].weight
        below.load_state_dict({"weight": weight[:, : below.in_channels]})
        if weight.shape[1] > below.in_channels:
            skip.load_state_dict({"weight": weight[:, below.in_channels :]})
        stage.join.norm.load_state_dict(other.conv1[1].state_dict())
        stage.refine.conv.load_state_dict({"weight": other.conv2[0].weight})
        stage.refine.norm.load_state_dict(other.conv2[1].state_dict())
    ours.decoder.head.load_state_dict(peer.segmentation_head[0].state_dict())
    return ours


def pictures() -> Tensor:
    """The same for both arms."""
    return torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def predicting(model: nn.Module) -> Callable[[], Tensor]:
    """What the peer does."""
    images = pictures()
    model.eval()

    def run() -> Tensor:
        with torch.inference_mode():
            return model(images)  # type: ignore[no-any-return]

    return run


def predicting_fast(model: VGGUNet, compute_type: torch.dtype) -> Callable[[], Tensor]:
    """What ours is made for."""
    images = pictures()
    frozen = FrozenSegmenter(model, device=CPU, compute_type=compute_type)
    return lambda: frozen(images)


def training(
    model: nn.Module, compute_type: torch.dtype, layout: torch.memory_format = torch.channels_last
) -> Callable[[], Tensor]:
    """One step of AdamW on the decoder."""
    images = pictures().to(memory_format=layout)
    targets = torch.randint(CLASSES, (BATCH, SIDE, SIDE), generator=torch.Generator().manual_seed(2))
    model.train().to(memory_format=layout)
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4)

    def step() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=compute_type == torch.bfloat16):
            logits = model(images)
        loss = nn.functional.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


ARMS: dict[str, Callable[[], Callable[[], Tensor]]] = {
    "peer predicts": lambda: predicting(peer_unet()),
    "bf16": lambda: predicting_fast(our_unet(peer_unet()), torch.bfloat16),
    "fp32": lambda: predicting_fast(our_unet(peer_unet()), torch.float32),
    "bf16 with full-resolution skip": lambda: predicting_fast(
        our_unet(peer_unet(), full_resolution_skip=True), torch.bfloat16
    ),
    "peer trains": lambda: training(peer_unet(), torch.float32, torch.contiguous_format),
    "bf16 step": lambda: training(our_unet(peer_unet()), torch.bfloat16),
    "fp32 step": lambda: training(our_unet(peer_unet()), torch.float32),
    "bf16 step with full-resolution skip": lambda: training(
        our_unet(peer_unet(), full_resolution_skip=True), torch.bfloat16
    ),
}
LINES = {
    "bf16": ("peer predicts", f"inference, {PICTURES}, bf16", 3.0),
    "fp32": ("peer predicts", f"inference, {PICTURES}, fp32", 1.2),
    "bf16 with full-resolution skip": ("peer predicts", f"inference, {PICTURES}, bf16, with the skip smp lacks", None),
    "bf16 step": ("peer trains", f"training step, frozen encoder, {PICTURES}, bf16", 2.5),
    "fp32 step": ("peer trains", f"training step, frozen encoder, {PICTURES}, fp32", None),
    "bf16 step with full-resolution skip": (
        "peer trains",
        f"training step, frozen encoder, {PICTURES}, bf16, with the skip smp lacks",
        None,
    ),
}


def measured_memory(arm: str) -> float:
    """MiB that the work of an arm takes at most, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--memory-of", arm, "--threads", str(torch.get_num_threads())]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def memory_of(arm: str) -> float:
    """The same in this process."""
    work = ARMS[arm]()
    work()  # the first one also fills the caches of the libraries, and makes the optimizer's state
    memory = PeakMemory(CPU)
    memory.start()
    held = memory.mebibytes()
    work()
    peak = memory.mebibytes()
    assert held is not None
    assert peak is not None
    return peak - held


def measure(name: str, *, rounds: int, memory: bool) -> Measurement:
    """One line of the table."""
    peer, what, goal = LINES[name]
    ours, theirs = ARMS[name](), ARMS[peer]()
    ours_said, theirs_said = ours(), theirs()
    difference = ((ours_said - theirs_said).abs().max() / theirs_said.abs().max()).item()
    measurement = Measurement(what, PEER, goal, *interleave(ours, theirs, rounds=rounds))
    notes = []
    if "skip" not in name:  # the other ones are different networks
        notes.append(f"{'losses' if 'step' in name else 'scores'} differ by {difference:.1e} of the largest")
    if memory:
        needed = measured_memory(name), measured_memory(peer)
        notes.append(f"peak memory {needed[0]:.0f} of {needed[1]:.0f} MiB, {needed[0] / needed[1]:.0%}")
    return replace(measurement, note="; ".join(notes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*LINES, []], help="lines of the table; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-memory", action="store_true", help="only times")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-of", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(memory_of(options.memory_of)))
        return
    show([measure(name, rounds=options.rounds, memory=not options.no_memory) for name in options.names or LINES])


if __name__ == "__main__":
    main()
