"""The pages as a browser or an attacker gets them, from a real server."""

from __future__ import annotations

import html
import io
import re
import socket
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vggtransfer.errors import WeightsError

from .conftest import ColourCollection, Site

TRACES = ("Traceback", ".py", "Error:", "site-packages")


def found_on(text: str) -> list[int]:
    """Ids of the pictures on a page, in their order."""
    return [int(number) for number in re.findall(r'href="/item/(\d+)', text)]


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "JPEG")
    return content.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it is side x side pixels large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def test_the_collection_by_label_and_its_pages_are_well_formed(site: Site, read_page: Callable[[str], Any]) -> None:
    everything = site.ask("/")
    assert found_on(everything.text) == [item.id for item in site.collection.items]
    assert found_on(site.ask("/?label=blue").text) == [9, 10, 11, 12]
    for address in ("/", "/?label=blue", "/?label=none", "/item/1", "/item/1?label=none", "/duplicates", "/item/77"):
        page = read_page(site.ask(address).text)
        assert all(picture["alt"] for picture in page.all("img"))
        assert not any(name.startswith("on") or name == "style" for _, names in page.elements for name in names)
        assert [script["src"] for script in page.all("script")] == ["/browse.js"]
        links = [link["href"] for link in page.all("a") + page.all("link")]
        assert all(re.match(r"/[^/]|/$|\?", link) for link in links), links


def test_neighbours_of_a_picture_with_scores_labels_and_filter(site: Site) -> None:
    page = site.ask("/item/9").text
    near = found_on(page)
    assert set(near[:3]) == {10, 11, 12}
    assert 9 not in near
    assert "3 of these 15 are <b>blue</b>, too." in page
    scores = [float(score) for score in re.findall(r"</meter> (\d\.\d+)", page)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.99 > scores[3]
    filtered = site.ask("/item/9?label=red&k=2").text
    assert set(found_on(filtered)) < {1, 2, 3, 4}
    assert len(found_on(filtered)) == 2
    assert 'href="/item/1?label=red&amp;k=2"' in filtered or 'href="/item/2?label=red&amp;k=2"' in filtered
    assert site.ask("/random").headers["location"].startswith("/item/")


def test_pictures_are_sent_by_id_as_jpeg_of_ours(site: Site) -> None:
    answer = site.ask("/picture/1/small")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.body)).size == (64, 48)
    again = site.ask("/picture/1/small", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    for address in ("/picture/1/huge", "/picture/999/small", "/picture/../../etc/passwd", "/picture/%2e%2e%2fx/small"):
        assert site.ask(address).status in (400, 404)


def test_a_picture_that_changed_or_went_is_told(serve: Callable[..., Site], tmp_path: Path) -> None:
    site = serve(ColourCollection(tmp_path))
    assert "vggtransfer index sync" not in site.ask("/item/1").text
    Image.new("RGB", (20, 20)).save(site.collection.item(1).path)
    assert "has changed since it was indexed" in site.ask("/item/1").text
    site.collection.item(1).path.unlink()
    assert "is gone" in site.ask("/item/1").text
    assert site.ask("/picture/1/large").status == 404


def test_an_uploaded_picture_finds_its_like_and_can_be_filtered(site: Site) -> None:
    answer = site.upload(jpeg((240, 10, 10)))
    assert answer.status == 303
    page = site.ask(answer.headers["location"])
    assert set(found_on(page.text)[:4]) == {1, 2, 3, 4}
    assert set(found_on(site.ask(answer.headers["location"] + "?label=green").text)) == {5, 6, 7, 8}
    shown = site.ask(answer.headers["location"] + "/picture")
    assert Image.open(io.BytesIO(shown.body)).size == (40, 30)
    assert (
        site.upload(jpeg((1, 1, 1)), address="/search?label=red&k=12").headers["location"].endswith("?label=red&k=12")
    )
    forgotten = site.ask("/upload/nobody-knows-this")
    assert forgotten.status == 404
    assert "choose the picture again" in forgotten.text


def test_duplicates_by_threshold(site: Site, read_page: Callable[[str], Any]) -> None:
    page = read_page(site.ask("/duplicates").text)
    assert "2 pictures, byte for byte the same" in page.text
    assert "3 pictures, cosine 0.990" in page.text
    assert "red/0.png" in page.text
    assert site.ask("/duplicates?threshold=").text == site.ask("/duplicates").text
    assert "No two pictures" in read_page(site.ask("/duplicates?threshold=0.99").text).text


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        pytest.param(bomb(60_000), 415, "decompression bomb", id="bomb"),
        pytest.param(b"<html><script>alert(1)</script></html>", 415, "not a picture", id="html named .jpg"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "not a picture", id="svg"),
        pytest.param(jpeg((9, 9, 9), (200, 200))[:700], 415, "cannot be searched by", id="cut off"),
        pytest.param(b"", 400, "No picture was sent", id="empty"),
        pytest.param(bytes(1_500_000), 413, "too large", id="too many bytes"),
        pytest.param(bytes(20_000_000), 413, "too large", id="far too many bytes"),
    ],
)
def test_hostile_uploads_get_one_sentence(site: Site, content: bytes, status: int, reason: str) -> None:
    try:
        answer = site.upload(content, name="x.jpg")
    except (BrokenPipeError, ConnectionResetError):
        assert len(content) > 8_000_000  # what is far too large need not be read to its end
        return
    assert answer.status == status
    assert reason in html.unescape(answer.text)
    assert not any(trace in answer.text for trace in TRACES)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_names_of_uploads_lead_nowhere(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("../../evil.png", "/etc/passwd", "<script>alert(1)</script>.png", "x" * 3000 + ".png", "a\x00b.png"):
        answer = site.upload(jpeg((1, 2, 3)), name=name)
        assert answer.status == 303
        assert "evil" not in site.ask(answer.headers["location"]).text
    assert list(tmp_path.iterdir()) == []


def test_forms_that_are_none(site: Site) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for body, headers in [
        (b"picture=1", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"no form at all", kind),
        (b"--x\r\nContent-Disposition: form-data; name=picture\r\n\r\ntext\r\n--x--\r\n", kind),
        (b"{}", {"Content-Type": "application/json"}),
        (b"--x\r\n", {"Content-Type": "multipart/form-data"}),
    ]:
        answer = site.ask("/search", method="POST", body=body, headers=headers)
        assert answer.status == 400, body
        assert not any(trace in answer.text for trace in TRACES)


def test_foreign_sites_are_kept_out(site: Site) -> None:
    assert site.ask("/", headers={"Host": "evil.example"}).status == 421
    assert site.ask("/", headers={"Host": "127.0.0.1.evil.example:8000"}).status == 421
    assert site.ask("/", headers={"Host": "[broken"}).status == 421
    assert site.ask("/", headers={"Host": "localhost:9999"}).status == 200  # a forwarded port
    assert site.upload(jpeg((1, 1, 1)), Origin="http://evil.example").status == 403
    assert site.upload(jpeg((1, 1, 1)), Origin="null").status == 403
    assert site.upload(jpeg((1, 1, 1)), Origin="http://[broken").status == 403
    assert site.upload(jpeg((1, 1, 1)), Sec_Fetch_Site="cross-site").status == 403
    assert (
        site.upload(jpeg((1, 1, 1)), Origin=f"http://127.0.0.1:{site.port}", Sec_Fetch_Site="same-origin").status == 303
    )


def test_odd_addresses_and_headers_are_answered_plainly(site: Site) -> None:
    for address in ("/item/-1", "/item/1e3", f"/item/{10**30}", "/item/1?k=0", "/item/1?k=1000000", "/?page=0", "/x"):
        answer = site.ask(address)
        assert answer.status in (400, 404), address
        assert not any(trace in answer.text for trace in TRACES)
    assert site.ask("/?page=999999").status == 200
    assert site.ask("/", method="DELETE").status == 405
    assert site.ask("/openapi.json").status == 404
    assert site.ask("/docs").status == 404
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Huge: " + b"x" * 100_000)
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 4")
    assert site.ask("/").status == 200


def test_an_error_inside_shows_no_traceback(
    serve: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = serve(ColourCollection(tmp_path))

    def fail(*_: object) -> None:
        raise WeightsError("the weights are gone; fetch them with ...")

    monkeypatch.setattr(site.collection, "embed", fail)
    answer = site.upload(jpeg((1, 2, 3)))
    assert (answer.status, "the weights are gone; fetch them" in answer.text) == (503, True)
    monkeypatch.setattr(site.collection, "neighbours_of", lambda *_, **__: 1 / 0)
    answer = site.ask("/item/1")
    assert answer.status == 500
    assert "The terminal tells more" in answer.text
    assert not any(trace in answer.text for trace in (*TRACES, "division"))
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_thirty_at_once_each_get_their_own_answer(site: Site) -> None:
    pictures = {"red": jpeg((240, 10, 10)), "green": jpeg((10, 240, 10)), "blue": jpeg((10, 10, 240))}

    def search(label: str) -> tuple[str, str]:
        answer = site.upload(pictures[label])
        return label, site.ask(answer.headers["location"]).text

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(search, [*pictures] * 10))
    first = {"red": 1, "green": 5, "blue": 9}
    assert len(answers) == 30
    for label, page in answers:
        assert set(found_on(page)[:4]) == set(range(first[label], first[label] + 4))
