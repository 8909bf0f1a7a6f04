"""Lets `python -m vggtransfer`, and so `torchrun -m vggtransfer`, run the command line."""

from __future__ import annotations

import sys

from vggtransfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
