"""`vggtransfer browse`: look through a collection in a browser on this machine."""

from __future__ import annotations

import importlib
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from vggtransfer.errors import OptionError, VGGTransferError

if TYPE_CHECKING:
    from vggtransfer.retrieval.browse.collection import Collection

_ADDRESS = "127.0.0.1"
_NEEDED = ("fastapi", "uvicorn", "python_multipart")


def browse(index: Path, *, port: int = 8000, open_browser: bool = False, max_upload: float = 20.0) -> None:
    """Shows a collection in the browser: search by an uploaded picture, walk from picture to picture, see duplicates.

    The pages are for this machine alone (127.0.0.1) and load nothing from elsewhere. From another machine:
    `ssh -L 8000:127.0.0.1:8000 HOST`. Ctrl-C ends it.

    Args:
        index: Index directory.
        port: Of the address; 0 takes any free one.
        open_browser: Open the page in the browser that is set up here.
        max_upload: Largest picture that may be searched by, in megabytes.
    """
    if not 0 <= port <= 65535:
        raise OptionError(f"port={port} is not possible: use 0 to 65535")
    if max_upload <= 0:
        raise OptionError(f"max_upload={max_upload} is not possible: it must be above 0")
    for module in _NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            text = f"vggtransfer browse needs {module}, which is not installed: pip install 'vggtransfer[web]'"
            raise VGGTransferError(text) from None
    from vggtransfer.retrieval.browse.app import make_app
    from vggtransfer.retrieval.browse.serving import serve
    from vggtransfer.retrieval.browse.snapshot import Watched
    from vggtransfer.retrieval.image_index import ImageIndex

    def reopened(before: Collection) -> Collection:
        return ImageIndex.open(before.path, embedder=opened.embedder)

    opened = ImageIndex.open(index)
    with _listening(port) as listening:
        address = f"http://{_ADDRESS}:{listening.getsockname()[1]}/"
        print(f"{len(opened):,} pictures of {opened.data} at {address} (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        serve(make_app(Watched(opened, reopened), max_upload=round(max_upload * 1e6)), listening)


def _listening(port: int) -> socket.socket:
    """A socket that takes connections from now on, so that no browser comes too early."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((_ADDRESS, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = (error.strerror or str(error)).lower()
        raise OptionError(f"--port {port}: {reason}; choose another one, or 0 for any that is free") from None
    return listening
