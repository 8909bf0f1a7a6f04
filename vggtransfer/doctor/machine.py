"""Cores, memory, disks, the cache folder and what the environment says of processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vggtransfer.cache import cache_folder
from vggtransfer.doctor.finding import Finding

_SCARCE_BYTES = 2 * 10**9


def machine_findings() -> Iterator[Finding]:
    """Looks at the machine itself."""
    import psutil

    from vggtransfer.data.cores import usable_cores

    memory = psutil.virtual_memory()
    found = f"{usable_cores()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free"
    yield Finding("machine", "ok", found)
    yield cache_finding(cache_folder())
    yield folder_finding("work folder", Path.cwd(), "cd to a folder you may write to; runs/ is made there")
    if ranks := _half_a_launch():
        yield ranks


def cache_finding(folder: Path) -> Finding:
    """Reports the folder for downloads and kept results: where, how full, and whether it can be written."""
    remedy = "export VGGTRANSFER_CACHE=FOLDER (one that you may write to, with some gigabytes free)"
    finding = folder_finding("cache", folder, remedy)
    if finding.state == "broken":
        return finding
    taken = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return Finding("cache", finding.state, f"{finding.found}, {taken / 1e6:,.0f} MB in it", finding.remedy)


def folder_finding(subject: str, folder: Path, remedy: str) -> Finding:
    """Reports whether a file can be written below a folder, which need not be there yet, and how much disk is free."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Finding(subject, "broken", f"{folder} cannot be written: {error.strerror}", remedy)
    free = shutil.disk_usage(existing).free
    found = f"{folder}, {free / 1e9:,.1f} GB free"
    if free < _SCARCE_BYTES:
        return Finding(subject, "hint", found, f"make room: VGG16's full checkpoint alone takes 0.5 GB, or {remedy}")
    return Finding(subject, "ok", found)


def _half_a_launch() -> Finding | None:
    """Variables of torchrun left over in a shell make every command wait for processes that never come."""
    found = [f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)]
    if not found:
        return None
    text = f"the environment says {' '.join(found)}: commands take themselves for one of several processes"
    return Finding("processes", "hint", text, "unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE (unless meant)")
