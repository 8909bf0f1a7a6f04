from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vggtransfer.doctor import libraries
from vggtransfer.doctor.finding import Finding
from vggtransfer.doctor.libraries import library_findings, try_libraries
from vggtransfer.doctor.probe import STEPS

TORCH: dict[str, Any] = {"version": "2.14", "cuda": "13.0", "hip": None, "mps": False, "threads": 4, "devices": []}
H200 = {"name": "H200", "capability": "9.0", "error": "", "free": 2**37, "total": 2**37}


def diagnose(
    *,
    driver: bool = False,
    ending: str = "",
    without: str = "",
    environment: dict[str, str] | None = None,
    **facts: Any,
) -> dict[str, Finding]:
    """What is said of a machine where everything works, except as given."""
    every: dict[str, dict[str, Any]] = {name: {"version": "1"} for name in STEPS if name != without}
    every |= {"torch": TORCH, "faiss": {"version": "1.15", "gpus": 0}}
    every["precision"] = {"device": "cpu", "auto": "float32", "cpu": "float32", "cpu_instructions": "AVX2"}
    found = library_findings(every | facts, ending, nvidia_driver=driver, environment=environment or {})
    return {finding.subject: finding for finding in found}


def test_gpus_as_they_are_found() -> None:
    assert diagnose()["GPU"].state == "ok"
    with_gpu = diagnose(driver=True, torch=TORCH | {"devices": [H200]})
    assert with_gpu["cuda:0"].found == "H200, compute capability 9.0, 128.0 of 128.0 GiB free"
    assert with_gpu["faiss"].state == "hint"
    assert "faiss-gpu" in with_gpu["faiss"].remedy
    too_new = diagnose(torch=TORCH | {"devices": [H200 | {"error": "RuntimeError: no kernel image"}]})
    assert too_new["cuda:0"].state == "broken"


def test_gpus_that_torch_does_not_see() -> None:
    assert "built without CUDA" in diagnose(driver=True, torch=TORCH | {"cuda": None})["GPU"].found
    hidden = diagnose(driver=True, environment={"CUDA_VISIBLE_DEVICES": ""})["GPU"]
    assert (hidden.state, hidden.remedy) == ("hint", "unset CUDA_VISIBLE_DEVICES")
    assert "update the driver" in diagnose(driver=True)["GPU"].remedy


def test_a_library_that_fails_and_one_that_crashes() -> None:
    broken = diagnose(torchvision={"error": "RuntimeError: operator torchvision::nms does not exist"})["torchvision"]
    assert broken.state == "broken"
    assert broken.remedy.endswith("torch torchvision")
    crashed = diagnose(without="cv2", ending="killed by SIGILL")["cv2"]
    assert (crashed.state, crashed.found) == ("broken", "crashes: killed by SIGILL")
    assert crashed.remedy.endswith("opencv-python-headless")


def test_a_crash_in_the_other_process_is_known_to_be_faiss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "faiss.py"
    broken.write_text("import os, signal; os.kill(os.getpid(), signal.SIGABRT)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    facts, ending = try_libraries()
    assert ending == "killed by SIGABRT"
    assert {"numpy", "torch", "precision", "torchvision"} == set(facts)
    assert not any("error" in fact for fact in facts.values())
    found = {f.subject: f.state for f in library_findings(facts, ending, nvidia_driver=False, environment={})}
    assert found["torch"] == "ok"
    assert found["faiss"] == "broken"


def test_a_process_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    monkeypatch.setattr(libraries, "_SECONDS", 1)
    assert try_libraries() == ({}, "took more than 1 seconds")
