from __future__ import annotations

import hashlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from vggtransfer.cache import cache_folder, write_atomically
from vggtransfer.encoder import download as download_module
from vggtransfer.encoder.download import download
from vggtransfer.errors import WeightsError

BODY = b"weights" * 100_000
DIGEST = hashlib.sha256(BODY).hexdigest()


def page(hub: Any, path: str, body: bytes = BODY, **options: Any) -> str:
    hub.pages[path] = type("Page", (), {"body": body, "status": 200, "headers": {}, "announced": None} | options)
    return f"{hub.url}{path}"


@pytest.mark.parametrize("known", [DIGEST, DIGEST[:8], DIGEST.upper()])
def test_good_file_arrives_whole(hub: Any, tmp_path: Path, known: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new folder" / "file.pth"
    assert download(page(hub, "/file.pth"), target, sha256=known) == DIGEST
    assert target.read_bytes() == BODY
    out, err = capsys.readouterr()
    assert out == ""
    assert "/file.pth (1 MB)" in err


def test_file_url_is_a_mirror_too(tmp_path: Path) -> None:
    (tmp_path / "mirror.pth").write_bytes(BODY)
    download((tmp_path / "mirror.pth").as_uri(), tmp_path / "file.pth", sha256=DIGEST)
    assert (tmp_path / "file.pth").read_bytes() == BODY


@pytest.mark.parametrize(
    ("options", "sha256", "message"),
    [
        ({}, "0" * 64, rf"SHA-256 is {DIGEST[:16]}\.\.\. instead of 0000000000000000\.\.\.; .* nothing was kept"),
        ({}, "12345678", "instead of 12345678"),
        ({"announced": 1_000_000}, DIGEST, r"ended after 700,000 of 1,000,000 bytes; try again"),
        ({"status": 404}, DIGEST, r"answered 404 Not Found; check the address"),
        ({"status": 503}, DIGEST, "answered 503"),
        ({"body": b"\n<!DOCTYPE html><html>log in</html>"}, DIGEST, "HTML page instead of the file"),
        ({}, "", "digest is not known here and the server announced none"),
    ],
)
def test_bad_answers_leave_nothing(
    hub: Any, tmp_path: Path, options: dict[str, Any], sha256: str, message: str
) -> None:
    url = page(hub, "/file.pth", **options)
    target = tmp_path / "cache" / "file.pth"
    target.parent.mkdir()
    target.write_bytes(b"from before")
    with pytest.raises(WeightsError, match=message) as caught:
        download(url, target, sha256=sha256)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [file.name for file in target.parent.iterdir()] == ["file.pth"]
    assert target.read_bytes() == b"from before"


@pytest.mark.parametrize("redirect", [True, False])
def test_hub_announces_the_digest(hub: Any, tmp_path: Path, redirect: bool) -> None:
    headers = {"X-Linked-ETag": f'"{DIGEST}"'}
    if redirect:
        page(hub, "/bucket/file")
        url = page(hub, "/file", b"", status=302, headers=headers | {"Location": "/bucket/file"})
    else:
        url = page(hub, "/file", headers=headers)
    assert download(url, tmp_path / "file", sha256="") == DIGEST

    page(hub, "/bucket/file" if redirect else "/file", b"something else", headers=headers)
    with pytest.raises(WeightsError, match="nothing was kept"):
        download(url, tmp_path / "file", sha256="")


def test_refused_connection_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/vgg16.pth"
        with pytest.raises(WeightsError, match=r"cannot download .*refused; without network, .*copy the cache folder"):
            download(url, tmp_path / "file", sha256=DIGEST)


def test_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(WeightsError, match="timed out"):
        download(f"http://127.0.0.1:{silent.getsockname()[1]}/vgg16.pth", tmp_path / "file", sha256=DIGEST)


def test_connection_that_breaks_off(tmp_path: Path) -> None:
    def answer() -> None:
        connection, _ = server.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nhalf a chunk")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(WeightsError, match="cannot"):
            download(f"http://127.0.0.1:{server.getsockname()[1]}/vgg16.pth", tmp_path / "file", sha256=DIGEST)
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_names_the_remedy(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(WeightsError, match=r"No space left.*free space or set VGGTRANSFER_CACHE"):
        download(page(hub, "/file.pth"), tmp_path / "file.pth", sha256=DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("VGGTRANSFER_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.setenv("VGGTRANSFER_CACHE", "")
    assert "vggtransfer" in str(cache_folder())


def test_write_atomically_keeps_the_old_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.txt"
    with write_atomically(path) as temporary:
        assert temporary.suffix == ".txt"
        assert temporary.parent == path.parent
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"

    def interrupted() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(FileNotFoundError), write_atomically(path) as temporary:
        pass
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "first"

    with write_atomically(path) as temporary:
        temporary.touch(mode=0o600)
    (tmp_path / "ordinary.txt").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary.txt").stat().st_mode
