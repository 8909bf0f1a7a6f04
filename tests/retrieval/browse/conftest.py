"""A small collection of drawn pictures whose embeddings are their colours, and a real server for it."""

from __future__ import annotations

import hashlib
import http.client
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.types import ASGIApp

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.browse.app import make_app
from vggtransfer.retrieval.browse.serving import make_server
from vggtransfer.retrieval.browse.snapshot import Watched
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.neighbours import DuplicateGroup, Neighbour

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}
LABELS = ("red", "green", "blue", "<script>alert(1)</script>")


class ColourCollection:
    """Does what `ImageIndex` does, with mean colours for embeddings."""

    def __init__(self, folder: Path) -> None:
        self.path, self.data = folder / "index", folder
        self.items: list[Item] = []
        self.labels: dict[str, int] = {}
        random = np.random.default_rng(0)
        for label in LABELS:
            for number in range(4):
                path = folder / ("odd" if "<" in label else label) / f"{number}.png"
                path.parent.mkdir(exist_ok=True)
                noise = random.integers(-20, 20, (48, 64, 3))
                pixels = np.clip(np.array(COLOURS.get(label, (128, 128, 128))) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                self.items.append(Item(len(self.items) + 1, path, label, digest, path.stat().st_size))
            self.labels[label] = 4
        self._vectors = self.embed([Image.open(item.path) for item in self.items])

    def __len__(self) -> int:
        return len(self.items)

    def item(self, id: int) -> Item:  # noqa: A002
        if not 1 <= id <= len(self.items):
            raise OptionError(f"there is no item {id}")
        return self.items[id - 1]

    def embed(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        means = np.stack([np.asarray(picture).reshape(-1, 3).mean(axis=0) for picture in pictures]).astype(np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def search(self, query: NDArray[np.float32], *, k: int, label: str | None) -> list[Neighbour]:
        scores = self._vectors @ query
        order = [self.items[at] for at in np.argsort(-scores, kind="stable")]
        found = [item for item in order if label in (None, item.label)][:k]
        return [Neighbour(item.id, item.path, item.label, float(scores[item.id - 1])) for item in found]

    def neighbours_of(self, id: int, *, k: int, label: str | None) -> list[Neighbour]:  # noqa: A002
        found = self.search(self._vectors[id - 1], k=len(self.items), label=label)
        return [neighbour for neighbour in found if neighbour.id != id][:k]

    def duplicates(self, *, threshold: float | None) -> list[DuplicateGroup]:
        if threshold is not None and threshold > 0.98:
            return []
        return [
            DuplicateGroup("exact", (self.items[0], self.items[5]), 1.0),
            DuplicateGroup("near", tuple(self.items[8:11]), 0.99),
        ]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Site:
    """A running server and a client that sends exactly what it is told."""

    collection: ColourCollection
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, address: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, address, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def upload(self, content: bytes, *, name: str = "picture.png", address: str = "/search", **headers: str) -> Answer:
        boundary = secrets.token_hex(8)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="{name}"\r\n\r\n'.encode()
        given = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        given |= {key.replace("_", "-"): value for key, value in headers.items()}
        return self.ask(address, method="POST", body=head + content + f"\r\n--{boundary}--\r\n".encode(), headers=given)


@pytest.fixture(scope="session")
def serve_app() -> Iterator[Callable[..., Site]]:
    """Starts a server on a port of its own; all of them end with the tests."""
    running = []

    def start(app: ASGIApp, collection: Any) -> Site:
        listening = socket.create_server(("127.0.0.1", 0))
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread, listening))
        while not server.started:
            time.sleep(0.005)
        return Site(collection, listening.getsockname()[1])

    yield start
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(timeout=10)
        if thread.is_alive():  # a browser that was killed may have left a connection that never closes
            server.force_exit = True
            thread.join(timeout=10)
        listening.close()


@pytest.fixture(scope="session")
def serve(serve_app: Callable[..., Site]) -> Callable[..., Site]:
    """Starts a server for a collection."""

    def start(collection: ColourCollection, *, max_upload: int = 1_000_000) -> Site:
        app = make_app(Watched(collection, lambda before: before), max_upload=max_upload)
        return serve_app(app, collection)

    return start


@pytest.fixture(scope="session")
def site(serve: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    return serve(ColourCollection(tmp_path_factory.mktemp("colours")))
