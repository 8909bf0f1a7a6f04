"""Imports and tries the libraries, in a process of its own: `python -m vggtransfer.doctor.probe`.

Prints one JSON object per library, each before the next one is touched. What crashes the process (a library built for
another processor, two copies of OpenMP) is then known to be the one after the last line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

Facts = dict[str, Any]


def _try_torch() -> Facts:
    import torch

    square = torch.ones(8, 8)
    facts: Facts = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "mps": torch.backends.mps.is_available(),
        "sum": float((square @ square).sum()),
        "threads": torch.get_num_threads(),
        "devices": [],
    }
    if torch.cuda.is_available():
        facts["devices"] = [_try_device(number) for number in range(torch.cuda.device_count())]
    return facts


def _try_device(number: int) -> Facts:
    import torch

    properties = torch.cuda.get_device_properties(number)
    facts: Facts = {"name": properties.name, "capability": f"{properties.major}.{properties.minor}", "error": ""}
    try:
        square = torch.ones(8, 8, device=f"cuda:{number}")
        float((square @ square).sum())
        facts["free"], facts["total"] = torch.cuda.mem_get_info(number)
    except Exception as error:
        facts["error"] = _first_line(error)
    return facts


def _try_precision() -> Facts:
    import torch

    from vggtransfer.encoder.precision import resolve_device, resolve_precision

    device = resolve_device("auto")
    return {
        "device": device.type,
        "auto": str(resolve_precision("auto", device)).removeprefix("torch."),
        "cpu": str(resolve_precision("auto", torch.device("cpu"))).removeprefix("torch."),
        "cpu_instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _try_torchvision() -> Facts:
    import torch
    import torchvision

    # Built against another torch, it imports, and its operators are missing.
    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    return {"version": torchvision.__version__}


def _try_faiss() -> Facts:
    # Named as text: retrieval/index.py alone works with it.
    faiss = import_module("faiss")
    return {"version": faiss.__version__, "gpus": faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0}


def _try_import(module: str) -> Callable[[], Facts]:
    return lambda: {"version": str(getattr(import_module(module), "__version__", ""))}


STEPS: dict[str, Callable[[], Facts]] = {
    "numpy": _try_import("numpy"),
    "torch": _try_torch,
    "precision": _try_precision,
    "torchvision": _try_torchvision,
    "faiss": _try_faiss,
    **{
        name: _try_import(name)
        for name in ("PIL", "cv2", "h5py", "pyarrow", "sklearn", "timm", "torchmetrics", "accelerate", "matplotlib")
    },
}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def main() -> None:
    """Tries one library after another and prints what came of it."""
    for name, attempt in STEPS.items():
        try:
            facts = attempt()
        except Exception as error:
            facts = {"error": _first_line(error)}
        print(json.dumps({"step": name, **facts}), flush=True)


if __name__ == "__main__":
    main()
