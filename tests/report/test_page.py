from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from vggtransfer.report.charts import line_chart
from vggtransfer.report.page import percent, render_page, write_page

TEMPLATE = """\
{% extends "report/page.html" %}
{% import "report/parts.html" as parts %}
{% block title %}{{ name }}{% endblock %}
{% block header %}<h1 id="top">{{ name }}</h1>{% endblock %}
{% block main %}
{{ parts.tile(name, name) }}
{{ parts.table([name, "second"], [(name, 5), (path, 1.5)], numbers=(1,)) }}
{{ parts.line_chart(chart) }}
{% call parts.picture_pair(picture, name) %}{{ name }}{% endcall %}
<img src="{{ picture.original }}" alt="{{ name }}">
{% endblock %}
"""
NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; & co",
]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a template, as a job has it."""
    folder = tmp_path / "some_job" / "templates"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "page.html").write_text(TEMPLATE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_job"


def content(name: str) -> dict[str, object]:
    return {
        "name": name,
        "path": Path(f"folder of {name}"),
        "chart": line_chart(name, [1, 2], {name: [1.0, 2.0]}, x_label=name, marks=[(1.5, name)]),
        "picture": {"original": "data:image/png;base64,AA==", "overlay": "data:image/png;base64,AA==", "side": 3},
        "version": name,
        "written": name,
    }


@pytest.mark.parametrize("name", NASTY)
def test_names_stay_text(name: str, job: str, read_page: Callable) -> None:
    page = read_page(render_page("page.html", content(name), package=job))
    page.check_that_it_stands_alone()
    assert len(page.all("img")) == 3
    assert page.all("img")[2]["alt"] == name
    assert len(page.all("svg")) == 1
    # Title, heading, tile (2), column, cells (2), the chart's title, legend, axis and mark, caption, and the footer's.
    assert page.text.count(name) == 14


def test_what_cannot_be_printed_is_spelled_out(job: str, tmp_path: Path, read_page: Callable) -> None:
    name = b"caf\xe9 \n\x1b[31m".decode("utf-8", "surrogateescape") + "\u202eabc \u00e9\u65e5"
    write_page(tmp_path / "new" / "page.html", "page.html", content(name), package=job)
    page = read_page(tmp_path / "new" / "page.html")
    page.check_that_it_stands_alone()
    assert r"caf\udce9 \n\x1b[31m\u202eabc é日" in page.text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_missing_value_is_an_error_and_leaves_the_old_page(job: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("the one before")
    incomplete = content("x")
    del incomplete["name"]
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        write_page(path, "page.html", incomplete, package=job)
    assert path.read_text() == "the one before"
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == ["page.html"]


def test_both_colour_schemes_and_phones_are_thought_of(job: str, read_page: Callable) -> None:
    page = read_page(render_page("page.html", content("x"), package=job))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "prefers-color-scheme: dark" in page.source
    assert "@media print" in page.source
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.8444, 1, "84.4%"),
        (1, 1, "100.0%"),
        (0, 1, "0.0%"),
        (0.99999, 1, "99.9%"),
        (0.99999, 2, "99.99%"),
        (0.00001, 1, "<0.1%"),
        (0.00001, 2, "<0.01%"),
        (0.1290, 2, "12.90%"),
    ],
)
def test_percent(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text
