"""What a run must have in common with the checkpoint it goes on from."""

from __future__ import annotations

import hashlib


def fingerprint(values: object) -> str:
    """16 hexadecimal digits that change whenever the plain values do."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
