"""One arm of `speed.py freed_memory`: seconds of a training step of all of VGG16, in a process of its own.

python tests/benchmarks/freed_memory.py kept|returned
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

from vggtransfer.classification.model import Task, VGGClassifier
from vggtransfer.encoder.precision import autocast, resolve_precision
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.process_memory import keep_freed_memory

BATCH, STEPS = 8, 3
CPU = torch.device("cpu")


def main(setting: str) -> None:
    if setting == "kept" and not keep_freed_memory():
        raise SystemExit("the C library of this machine cannot be told to keep freed memory")
    torch.manual_seed(0)
    encoder = VGGEncoder("vgg16", weights=None, layers=["pool5"])
    model = VGGClassifier(encoder, Task(("one", "other"), 224, 1.0, "linear", 0.5)).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.rand(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 2
    seconds = []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, resolve_precision("auto", CPU)):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    print(min(seconds[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
