"""What the libraries do on this machine: they are tried in another process, so that a crash there is a finding here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vggtransfer.doctor.finding import Finding
from vggtransfer.doctor.probe import STEPS

_SECONDS = 300


def try_libraries() -> tuple[dict[str, dict[str, Any]], str]:
    """Runs `vggtransfer.doctor.probe`.

    Returns:
        The facts by library, each with `error` if it failed, and how the process ended: empty if well.
    """
    try:
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "vggtransfer.doctor.probe"],
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        printed = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        return _facts(printed), f"took more than {_SECONDS} seconds"
    ending = ""
    if run.returncode < 0:
        ending = f"killed by {signal.Signals(-run.returncode).name}"
    elif run.returncode:
        ending = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
    return _facts(run.stdout), ending


def _facts(printed: str) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith('{"step"') and line.endswith("}")]
    return {line.pop("step"): line for line in lines}


def library_findings(
    facts: Mapping[str, Mapping[str, Any]], ending: str, *, nvidia_driver: bool, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """Says what the facts of `try_libraries` mean.

    Args:
        facts: Its first result.
        ending: Its second one.
        nvidia_driver: Whether the machine has a driver for NVIDIA GPUs.
        environment: Variables of the process.
    """
    failed = [name for name in STEPS if "error" in facts.get(name, {})]
    crashed = next((name for name in STEPS if name not in facts), None)
    for name in failed:
        if name != "precision":
            yield Finding(name, "broken", f"cannot be used: {facts[name]['error']}", _reinstall(name))
    if crashed is not None:
        yield Finding(crashed, "broken", f"crashes: {ending or 'the process ended'}", _reinstall(crashed))
    for name in ("torch", "torchvision", "faiss"):
        if name in facts and name not in failed:
            yield Finding(name, "ok", _described(name, facts[name]))
    if "torch" in facts and "torch" not in failed:
        yield from _devices(facts["torch"], nvidia_driver, environment)
        if faiss_on_cpu := _faiss_without_gpu(facts):
            yield faiss_on_cpu
    if "precision" in facts and "precision" not in failed:
        yield _precision(facts["precision"])


def has_nvidia_driver() -> bool:
    """Whether there is a driver for NVIDIA GPUs, whatever torch thinks of it."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def findings_of_this_machine() -> list[Finding]:
    """Tries the libraries here and now."""
    facts, ending = try_libraries()
    return list(library_findings(facts, ending, nvidia_driver=has_nvidia_driver(), environment=os.environ))


def _reinstall(module: str) -> str:
    if module in ("torch", "torchvision", "precision"):
        names = "torch torchvision"  # they have to be built for each other
    else:
        names = " ".join(sorted(set(metadata.packages_distributions().get(module, [module]))))
    return f"python -m pip install --force-reinstall --no-cache-dir {names}"


def _described(name: str, facts: Mapping[str, Any]) -> str:
    text = str(facts["version"])
    if name == "torch":
        build = f"CUDA {facts['cuda']}" if facts["cuda"] else f"ROCm {facts['hip']}" if facts["hip"] else "CPUs only"
        text += f", built for {build}, {facts['threads']} threads"
    return text


def _devices(torch: Mapping[str, Any], nvidia_driver: bool, environment: Mapping[str, str]) -> Iterator[Finding]:
    for number, device in enumerate(torch["devices"]):
        subject = f"cuda:{number}"
        described = f"{device['name']}, compute capability {device['capability']}"
        if device["error"]:
            remedy = "update NVIDIA's driver, or install a torch built for this GPU: https://pytorch.org/get-started"
            yield Finding(subject, "broken", f"{described}: {device['error']}", remedy)
        else:
            memory = f"{device['free'] / 2**30:.1f} of {device['total'] / 2**30:.1f} GiB free"
            yield Finding(subject, "ok", f"{described}, {memory}")
    if torch["devices"]:
        return
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if torch["mps"]:
        yield Finding("GPU", "ok", "Apple's, by MPS")
    elif not nvidia_driver:
        yield Finding("GPU", "ok", "none; everything runs on the CPU")
    elif not torch["cuda"]:
        remedy = (
            "python -m pip install --force-reinstall torch torchvision (which index: https://pytorch.org/get-started)"
        )
        yield Finding("GPU", "hint", "an NVIDIA driver is there, but this torch is built without CUDA", remedy)
    elif hidden is not None:
        yield Finding("GPU", "hint", f"hidden by CUDA_VISIBLE_DEVICES={hidden!r}", "unset CUDA_VISIBLE_DEVICES")
    else:
        found = f"torch finds none, although an NVIDIA driver is there; it wants one for CUDA {torch['cuda']}"
        yield Finding("GPU", "hint", found, "nvidia-smi (does it list the GPU?), then update the driver")


def _faiss_without_gpu(facts: Mapping[str, Mapping[str, Any]]) -> Finding | None:
    faiss = facts.get("faiss", {})
    if facts["torch"]["devices"] and "error" not in faiss and faiss.get("gpus") == 0:
        found = "finds no GPU although torch does; searching runs on the CPU"
        remedy = "python -m pip uninstall -y faiss-cpu && python -m pip install --force-reinstall faiss-gpu"
        return Finding("faiss", "hint", found, remedy)
    return None


def _precision(facts: Mapping[str, Any]) -> Finding:
    found = f"--precision auto computes in {facts['auto']} on {facts['device']}"
    if facts["device"] == "cpu" and facts["cpu"] == "float32":
        found += f"; this CPU ({facts['cpu_instructions']}) does not multiply bfloat16 natively"
    elif facts["device"] != "cpu":
        found += f", in {facts['cpu']} on the CPU"
    return Finding("precision", "ok", found)
