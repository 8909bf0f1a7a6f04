"""Where a run may be written; apart from `run_directory.py`, because this is checked before torch is imported."""

from __future__ import annotations

from pathlib import Path

from vggtransfer.errors import OptionError


def check_out(out: Path | None) -> None:
    """Refuses a run directory that already holds something.

    Raises:
        OptionError: `out` is a file, or a folder that is not empty.
    """
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise OptionError(f"--out {out}: is a file; name a folder")
    if any(out.iterdir()):
        resume = f", or --resume {out}" if (out / "recipe.yaml").is_file() else ""
        raise OptionError(f"--out {out}: exists and is not empty; choose another folder{resume}")
