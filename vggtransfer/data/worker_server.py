"""What the process imports that forks the loader workers of processes that train together.

Importing it has an effect, and is meant for that process alone: SIGTERM from torchrun or a batch system reaches the
whole process group, and the workers, which outlive it to finish a step, take the end of their parent for their own.
"""

from __future__ import annotations

import signal

import vggtransfer.data.dataset  # noqa: F401  (once, for all workers)

signal.signal(signal.SIGTERM, signal.SIG_IGN)
