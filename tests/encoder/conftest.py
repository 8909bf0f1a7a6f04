"""A cache folder of its own for each test, no way to the real network, and a hub on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class Page:
    """What the hub answers: `announced` is the Content-Length it claims, by default the true one."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None


@dataclass
class Hub:
    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder; the servers of the real sources are out of reach (nothing listens on port 9)."""
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VGGTRANSFER_TORCHVISION_URL", "http://127.0.0.1:9/models")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A web server on the loopback device that both torchvision's and timm's addresses lead to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(self.path)
            page = hub.pages.get(self.path, Page(b"not found", status=404))
            self.send_response(page.status)
            self.send_header("Content-Length", str(len(page.body) if page.announced is None else page.announced))
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """A client that hangs up is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VGGTRANSFER_TORCHVISION_URL", f"{hub.url}/models")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()
