"""The pages in a real browser: Chromium without a window, driven through chromedriver by the WebDriver protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .conftest import ColourCollection, Site

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Whatever proxy the environment names is not for this machine itself.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RefusedError(OSError):
    """Chromedriver did not do what it was asked for."""


class Browser:
    """One window."""

    def __init__(self, driver: str, profile: Path) -> None:
        self._driver = driver
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        options = {"binary": chromium, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def _send(self, method: str, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._driver + path, data, method=method)
        try:
            with DIRECTLY.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(error.read(1000).decode(errors="replace")) from None

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        given = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        content = {"cmd": "Emulation.setDeviceMetricsOverride", "params": given}
        self._send("POST", f"{self._session}/goog/cdp/execute", content)

    def go(self, address: str) -> None:
        self._send("POST", f"{self._session}/url", {"url": address})

    @property
    def address(self) -> str:
        return str(self._send("GET", f"{self._session}/url"))

    def run(self, script: str) -> Any:
        return self._send("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def _element(self, selector: str) -> str:
        found = self._send("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return f"{self._session}/element/{found[ELEMENT]}"

    def click(self, selector: str) -> None:
        self._send("POST", f"{self._element(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._send("POST", f"{self._element(selector)}/value", {"text": text})

    def wait_for(self, pattern: str) -> None:
        """Waits until the address matches and the page with its pictures is there."""
        self.wait(
            f"new RegExp({json.dumps(pattern)}).test(location.href) && document.readyState === 'complete'"
            " && [...document.images].every(image => image.complete || image.getBoundingClientRect().top > innerHeight)"
        )

    def wait(self, condition: str) -> None:
        """Waits until a condition in JavaScript is true."""
        end = time.monotonic() + 120
        while not self._is_true(condition):
            assert time.monotonic() < end, f"{self.address} does not come to {condition}"
            time.sleep(0.02)

    def _is_true(self, condition: str) -> bool:
        try:
            return self.run(f"return {condition}") is True
        except RefusedError:  # the page went away under the question
            return False

    def troubles(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [entry["message"] for entry in self._send("POST", f"{self._session}/se/log", {"type": "browser"})]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("GET", f"{self._session}/screenshot")))

    def close(self) -> None:
        self._send("DELETE", self._session)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("Chromium and chromedriver are not installed, so the pages are not tried in a browser")
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            said = (re.search(r"successfully on port (\d+)", line) for line in process.stdout)
            started = next(filter(None, said), None)
            if started is None:
                pytest.skip("chromedriver does not start here")
            try:
                window = Browser(f"http://127.0.0.1:{started[1]}", tmp_path_factory.mktemp("profile"))
            except OSError as error:  # an answer of chromedriver's, or none
                pytest.skip(f"Chromium does not start here: {error}")
            yield window
            with suppress(OSError):
                window.close()
        finally:
            process.terminate()
            process.stdout.read()


def test_upload_click_filter_and_duplicates_without_a_console_message(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    picture = tmp_path / "mine.jpg"
    Image.new("RGB", (90, 60), (235, 20, 20)).save(picture)
    browser.size(1280, 900)
    browser.go(f"http://127.0.0.1:{site.port}/")
    browser.wait_for("/$")
    assert browser.run("return document.querySelectorAll('.grid img').length") == 16
    assert browser.run("return getComputedStyle(document.querySelector('.grid')).display") == "grid"

    browser.type("#picture", str(picture))  # the script sends it off
    browser.wait_for("/upload/")
    assert browser.run("return [...document.images].every(image => image.naturalWidth > 0)")
    names = browser.run("return [...document.querySelectorAll('.grid img')].map(image => image.alt)")
    assert {name.partition("/")[0] for name in names[:4]} == {"red"}

    browser.click(".grid .card a")
    browser.wait_for("/item/[1-4]$")
    browser.run("const label = document.querySelector('select[name=label]'); label.value = 'blue';"
                "label.dispatchEvent(new Event('change'))")  # fmt: skip
    browser.wait_for("label=blue")
    assert browser.run("return document.querySelectorAll('.grid .card').length") == 4
    browser.click(".grid .card a")
    browser.wait_for(r"/item/(9|1\d)\?label=blue")
    browser.click("nav a[href='/duplicates']")
    browser.wait_for("/duplicates$")
    assert browser.run("return document.querySelectorAll('.group').length") == 2
    assert browser.troubles() == []


def test_a_phone_shows_every_page_without_scrolling_sideways(browser: Browser, site: Site) -> None:
    browser.size(390, 844, phone=True)
    for place in ("/", "/item/13", "/duplicates", "/item/1?label=red"):
        browser.go(f"http://127.0.0.1:{site.port}{place}")
        browser.wait_for(re.escape(place) + "$")
        assert browser.run("return document.documentElement.scrollWidth") <= 390, place
        columns = browser.run(
            "return new Set([...document.querySelectorAll('.grid .card')].map(card => card.offsetLeft)).size"
        )
        assert columns >= 2, place
    assert browser.troubles() == []


def test_what_is_no_picture_or_too_large_is_said_on_the_page(
    browser: Browser, serve: Callable[..., Site], tmp_path: Path
) -> None:
    site = serve(ColourCollection(tmp_path), max_upload=5_000)
    browser.size(1280, 900)
    browser.go(f"http://127.0.0.1:{site.port}/")
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(50_000))
    browser.type("#picture", str(large))
    browser.wait("document.querySelector('.problem').textContent.includes('0.1 MB; the limit is 0 MB')")
    page = tmp_path / "page.jpg"
    page.write_text("<script>document.title = 'taken'</script>")
    browser.type("#picture", str(page))
    browser.wait_for("/search")
    assert "not a picture in a known format" in browser.run("return document.querySelector('main').textContent")
    assert browser.run("return document.title") != "taken"
    assert [message for message in browser.troubles() if "415" not in message] == []
