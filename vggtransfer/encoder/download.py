"""One URL to one verified file: complete, of the right digest, or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from vggtransfer.cache import write_atomically
from vggtransfer.errors import WeightsError

_CHUNK = 1 << 20
# For connecting and for each read: long enough for slow mirrors, short enough that a machine without network answers.
_TIMEOUT_SECONDS = 30.0


def download(url: str, target: Path, *, sha256: str) -> str:
    """Downloads `url` to `target` and verifies it; `target` appears only when everything is right.

    Args:
        url: http(s) or file URL.
        target: The file to write.
        sha256: The SHA-256 of the file or its first hex digits. Empty: the digest that the Hugging Face hub
            announces in `X-Linked-ETag` is verified; without one the download is refused.

    Returns:
        The full SHA-256 of the file.

    Raises:
        WeightsError: No network, no such file, wrong size or digest, a page instead of a file, a full disk.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "vggtransfer"})
    redirects = _Redirects()
    try:
        with write_atomically(target) as temporary:
            with urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT_SECONDS) as response:
                length = int(response.headers.get("Content-Length") or -1)
                announced = redirects.announced_digest or _linked_digest(response.headers)
                digest = _save(response, temporary, url, length)
            _verify(url, temporary, length=length, digest=digest, expected=sha256 or announced)
    except WeightsError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise WeightsError(
            f"cannot download {url}: the server answered {error.code} {error.reason}; "
            f"check the address (a mirror?), or download the file yourself and give its path"
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise WeightsError(
            f"cannot download {url}: {_one_line(reason)}; without network, fetch on another machine and copy the "
            f"cache folder {target.parent}, or give the path of a file"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"cannot write {target}: {_one_line(error)}; free space or set VGGTRANSFER_CACHE to another folder"
        ) from error
    return digest


def _save(response: IO[bytes], path: Path, url: str, length: int) -> str:
    """Writes the body and returns its SHA-256."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"downloading {url}" + (f" ({length / 1e6:.0f} MB)" if length > 0 else ""), file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    digest = hashlib.sha256()
    with (
        path.open("wb") as file,
        Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(url.rsplit("/", 1)[-1], total=length if length > 0 else None)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            progress.advance(task, len(chunk))
    return digest.hexdigest()


def _verify(url: str, path: Path, *, length: int, digest: str, expected: str) -> None:
    size = path.stat().st_size
    # A closed connection ends the body early without an error.
    if length >= 0 and size != length:
        raise WeightsError(f"cannot download {url}: the connection ended after {size:,} of {length:,} bytes; try again")
    with path.open("rb") as file:
        start = file.read(512).lstrip()[:15].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise WeightsError(
            f"cannot download {url}: got an HTML page instead of the file (a login or proxy page?); "
            f"open the address in a browser, or download the file yourself and give its path"
        )
    if not expected:
        raise WeightsError(
            f"cannot verify {url}: its digest is not known here and the server announced none; "
            f"download the file yourself and give its path"
        )
    if not digest.startswith(expected.lower()):
        raise WeightsError(
            f"cannot use {url}: its SHA-256 is {digest[:16]}... instead of {expected[:16]}...; "
            f"the file on the server is damaged or another one, nothing was kept"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and remembers the digest that the Hugging Face hub sends with the first of them."""

    announced_digest = ""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        _request, _body, _code, _message, headers, _address = args
        self.announced_digest = self.announced_digest or _linked_digest(headers)
        return super().redirect_request(*args)


def _linked_digest(headers: Any) -> str:
    tag = str(headers.get("X-Linked-ETag") or "").strip('"').lower()
    return tag if len(tag) == 64 and set(tag) <= set("0123456789abcdef") else ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
