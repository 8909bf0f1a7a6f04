"""Publishing to a real Milvus server: Milvus Lite, in an environment of its own.

Milvus Lite brings faiss-cpu, which must never be installed over faiss-gpu: the environment is a new one that sees the
packages of this one behind its own.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).parents[2]
STEPS = """
import sys, shutil
from dataclasses import replace
from pathlib import Path
import numpy as np
from vggtransfer.cli import main
from vggtransfer.retrieval.image_index import ImageIndex
from vggtransfer.retrieval.publishing import Link
from vggtransfer.retrieval.vector_store import StoredPicture, open_store

step, address, place = sys.argv[1], sys.argv[2], Path(sys.argv[3])
photos, index = place / "photos", place / "my photos"

def agree():
    opened, store = ImageIndex.open(index), open_store(address, "my photos")
    assert sorted(p.id for p in store.pictures()) == [item.id for item in opened.items]
    ids = [item.id for item in opened.items]
    np.testing.assert_allclose(store.vectors(ids), opened.vectors(), atol=1e-6)
    for label in (None, "a", 'b"'):
        here = opened.neighbours_of(ids[0], k=5, label=label)
        there = store.search(opened.vectors(ids[:1]), k=6, label=label)[0]
        there = [(p.id, score) for p, score in there if p.id != ids[0]][:5]
        assert [one.id for one in here] == [one for one, _ in there], (label, here, there)
        np.testing.assert_allclose([one.score for one in here], [score for _, score in there], atol=1e-5)

if step == "first":
    build = ["index", "build", "--data", str(photos), "--arch", "vgg16_bn_x0_25", "--image-size", "32",
             "--whiten", "8", "--out", str(index), "--store", address]
    assert main(build) == 0
    agree()
    shutil.copy(photos / "a/0.png", photos / "a/again.png")
    (photos / "a/1.png").unlink()
    assert main(["index", "sync", str(index)]) == 0
    agree()
    assert main(["index", "remove", str(index), str(photos / "a/2.png")]) == 0
    agree()
    assert main(["index", "add", str(index), str(photos / "a/2.png")]) == 0
    agree()
    assert main([*build[:-3], str(place / "elsewhere" / "my photos"), *build[-2:]]) == 2
    assert main(["index", "rebuild", str(index), "--whiten", "4"]) == 0
    agree()
    strange = StoredPicture(10**15, "a\\\\b\\n'\\u00e9\\U0001f33b\\".png", "it's \\"\\\\ \\u00e9\\n", "0" * 64, 2**40)
    store = open_store(address, "my photos")
    store.put([strange], np.ones((1, 4), np.float32))
    assert store.search(np.ones((1, 4), np.float32), k=3, label=strange.label)[0][0][0] == strange
    store.delete([strange.id])
    agree()
else:
    # After the server was started anew. The index directory is gone: the address is enough.
    query = str(photos / "b%22/3.png".replace("%22", '"'))
    shutil.move(index, place / "hidden")
    assert main(["search", "my photos", query, "-k", "2", "--store", address, "--format", "json"]) == 0
    assert main(["search", "my photos", query, "--filter", "label=a", "-k", "2", "--store", address]) == 0
    assert main(["search", "my photos", query, "--filter", "label=none", "--store", address]) == 2
    assert main(["search", "never built", query, "--store", address]) == 2
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment with Milvus Lite."""
    folder = tmp_path_factory.mktemp("milvus") / "environment"
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    install = [programs / "python", "-m", "pip", "install", "--quiet", "pymilvus>=2.5", "milvus-lite>=3"]
    run = subprocess.run(install, check=False, capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"Milvus Lite cannot be installed here: {run.stderr.strip().splitlines()[-1]}")
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(own, "behind.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return programs


class Server:
    """Milvus Lite on a port of its own; can be stopped and started anew with the same data."""

    def __init__(self, programs: Path, data: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._command = [programs / "milvus-lite", "server", "--data-dir", data, "--host", "127.0.0.1"]
        self._log = data.with_suffix(".log")

    def start(self) -> None:
        with self._log.open("w") as log:
            self._process = subprocess.Popen([*self._command, "--port", str(self.port)], stdout=log, stderr=log)
        end = time.monotonic() + 120
        while not re.search("listening on", self._log.read_text()):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, "Milvus Lite does not start"
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def server(environment: Path, tmp_path: Path) -> Iterator[Server]:
    made = Server(environment, tmp_path / "data")
    made.start()
    yield made
    made.stop()


def test_build_search_filter_change_and_reopen(environment: Path, server: Server, tmp_path: Path) -> None:
    for number in range(20):
        label = ("a", 'b"')[number % 2]
        path = tmp_path / "photos" / label / f"{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(blocks.repeat(12, axis=0).repeat(12, axis=1)).save(path)

    def run(step: str) -> str:
        address = f"milvus+http://127.0.0.1:{server.port}"
        command = [environment / "python", "-c", STEPS, step, address, tmp_path]
        given = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=given)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    told = run("first")
    assert "20 of 20 pictures sent or removed" in told
    assert "there is a collection of the name of my photos already" in told
    server.stop()
    server.start()
    told = run("then")
    assert '"score": 1.0' in told or '"score": 0.99999' in told
    assert "has the label 'none'" in told
    assert "there is no such collection" in told
