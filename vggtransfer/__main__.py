"""`python -m vggtransfer`, as torchrun needs it."""

from __future__ import annotations

import os
import sys

from vggtransfer.cli import main


def _end(code: int) -> None:
    """Ends this process; one of several without the interpreter's own way of ending.

    Threads of gloo may still let go of Python's objects when everything is done. If the interpreter ends meanwhile,
    they abort the process ("terminate called without an active exception"), and torchrun takes that for a failed run.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        result = main()
    except SystemExit as request:
        result = request.code if isinstance(request.code, int) else 1
    _end(result)
