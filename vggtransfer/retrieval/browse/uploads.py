"""Pictures that people search by: read once, kept for a while in memory, never written to a file."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from PIL import Image

from vggtransfer.data.decode import decode_image
from vggtransfer.errors import BadImageError
from vggtransfer.retrieval.browse.collection import Collection
from vggtransfer.retrieval.browse.pictures import as_jpeg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PIXELS = 50_000_000
SHOWN_SIDE = 1024
_KEPT = 100


class Upload(NamedTuple):
    """A picture searched by.

    Attributes:
        jpeg: It, for showing.
        vector: Its embedding, float32 [features].
    """

    jpeg: bytes
    vector: NDArray[np.float32]


class Uploads:
    """The latest uploads, by tokens nobody can guess."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()
        # One at a time: a decoded picture may take a gigabyte, and the network uses all cores anyway.
        self._turn = threading.Lock()

    def add(self, file: BinaryIO, collection: Collection) -> str:
        """Reads a picture file, embeds it as the collection was, and returns its token.

        Raises:
            BadImageError: It is no picture, is damaged, or has too many pixels; the message says so without a name.
        """
        with self._turn:
            try:
                pixels = decode_image(file.read(), min_side=SHOWN_SIDE, max_pixels=MAX_PIXELS)
            except BadImageError as error:
                raise BadImageError(str(error).partition(": ")[2]) from error
            image = Image.fromarray(pixels)
            upload = Upload(as_jpeg(image, side=SHOWN_SIDE), collection.embed([image])[0])
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = upload
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return token

    def get(self, token: str) -> Upload | None:
        """Returns an upload, or None if it is unknown or has made way for later ones."""
        with self._lock:
            if token in self._kept:
                self._kept.move_to_end(token)
            return self._kept.get(token)
