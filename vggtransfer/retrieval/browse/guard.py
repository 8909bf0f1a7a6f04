"""Stands before the application: lets in only what comes from this machine's own pages, and sends out safe headers."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The pages have no script or style of their own but the two files; nothing may frame them or be sent elsewhere.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DRAINED = 8


class Guard:
    """Wraps an application.

    - The Host header must name this machine. Else a foreign site could point its own name at 127.0.0.1 and read the
      pages as if they were its own (DNS rebinding).
    - Forms are taken from our own pages only.
    - Bodies have an upper size.

    Args:
        app: The application.
        hosts: Names it is reached by, without port: whoever forwards a port may choose another.
        max_body: Bytes.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], max_body: int) -> None:
        self._app, self._hosts, self._max_body = app, frozenset(hosts), max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if _host_of(f"//{headers.get('host', '')}") not in self._hosts:
            refusal = PlainTextResponse("This page answers to 127.0.0.1 and localhost only.\n", 421)
            await refusal(scope, receive, send_safely)
        elif scope["method"] not in ("GET", "HEAD") and not _is_from_our_page(headers):
            await PlainTextResponse("Forms of other sites are not taken.\n", 403)(scope, receive, send_safely)
        else:
            await self._app(scope, self._limited(receive), send_safely)

    def _limited(self, receive: Receive) -> Receive:
        seen = 0

        async def receive_limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body:
                # A browser shows an answer only once it has sent everything, within reason.
                while message.get("more_body") and seen <= _DRAINED * self._max_body:
                    message = await receive()
                    seen += len(message.get("body", b""))
                raise HTTPException(413, f"The file is too large; the limit is {self._max_body / 1e6:.0f} MB.")
            return message

        return receive_limited


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _is_from_our_page(headers: Headers) -> bool:
    # Browsers send at least one of the two with every form; programs such as curl send neither.
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or _place_of(origin) == headers.get("host")


def _place_of(address: str) -> str:
    """Host and port; empty if the address is none."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""
