"""Where a run may be written; apart from `run_directory.py`, because this is checked before torch is imported."""

from __future__ import annotations

from pathlib import Path

from vggtransfer.errors import OptionError


def check_out(out: Path | None) -> None:
    """Refuses a run directory that already holds something.

    Raises:
        OptionError: `out` exists and is not empty.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError(f"--out {out}: exists and is not empty; choose another folder, or --resume {out}")
