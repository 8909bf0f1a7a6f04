"""Pictures as the pages show them: decoded by us and written anew as JPEG, whatever the file holds besides."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from vggtransfer.data.cores import usable_cores
from vggtransfer.data.decode import decode_image

_QUALITY = 85
_KEPT_BYTES = 64 * 2**20


class PictureServer:
    """Makes JPEGs of bounded size, and keeps the latest ones in memory.

    Args:
        kept_bytes: Memory for them.
    """

    def __init__(self, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._room = kept_bytes
        self._lock = threading.Lock()
        # A page asks for dozens at once, and each takes the memory of a decoded photograph.
        self._decoders = threading.BoundedSemaphore(usable_cores())

    def jpeg(self, path: Path, *, key: str, side: int) -> bytes:
        """Returns a picture file as JPEG, no side of it longer than `side` pixels.

        Args:
            path: The file.
            key: Names its content.
            side: In pixels.

        Raises:
            BadImageError: It cannot be decoded.
        """
        with self._lock:
            if (content := self._kept.get((key, side))) is not None:
                self._kept.move_to_end((key, side))
                return content
        with self._decoders:
            image = Image.fromarray(decode_image(path, min_side=side))
            content = as_jpeg(image, side=side)
        with self._lock:
            if (key, side) not in self._kept:
                self._kept[key, side] = content
                self._room -= len(content)
            while self._room < 0:
                self._room += len(self._kept.popitem(last=False)[1])
        return content


def as_jpeg(image: Image.Image, *, side: int) -> bytes:
    """Returns an RGB picture as JPEG, shrunk until no side is longer than `side` pixels."""
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return content.getvalue()


def is_unchanged(path: Path, sha256: str) -> bool | None:
    """Whether a file is still the one that was indexed; None if it is gone."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return None
