from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from vggtransfer.doctor.machine import cache_finding, machine_findings


def test_the_cache_is_measured_and_need_not_be_there(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "x").write_bytes(bytes(3_000_000))
    assert cache_finding(tmp_path).found.endswith("3 MB in it")
    missing = cache_finding(tmp_path / "not" / "yet")
    assert missing.state == "ok"
    assert not (tmp_path / "not").exists()


def test_a_cache_that_cannot_be_written_is_broken(tmp_path: Path) -> None:
    if os.name == "posix" and os.geteuid() == 0:
        folder = Path("/proc/nothing")  # not even root can make files there
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    finding = cache_finding(folder)
    assert finding.state == "broken"
    assert "VGGTRANSFER_CACHE" in finding.remedy


def test_little_room_and_half_a_launch_are_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])(10**9, 9 * 10**8, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert cache_finding(tmp_path).state == "hint"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    told = {finding.subject: finding for finding in machine_findings()}
    assert "RANK=0 WORLD_SIZE=4" in told["processes"].found
