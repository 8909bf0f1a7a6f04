"""Neighbours as a table, CSV, JSON or a page."""

from __future__ import annotations

import csv
import io
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import vggtransfer
from vggtransfer.cache import write_atomically
from vggtransfer.data.decode import decode_image
from vggtransfer.data.resampling import centre_square
from vggtransfer.errors import BadImageError, OptionError
from vggtransfer.printable import printable
from vggtransfer.report.console import plain_table, print_table
from vggtransfer.report.json_output import json_text, print_json
from vggtransfer.report.page import write_page
from vggtransfer.report.pictures import photograph_url

if TYPE_CHECKING:
    from vggtransfer.retrieval.search_command import SearchResult

_SIDE = 144


def write_result(result: SearchResult, form: Literal["table", "json", "csv", "html"]) -> None:
    """Prints a result, or writes it to `result.out`.

    Raises:
        OptionError: The file cannot be written.
    """
    for picture in result.bad:
        print(f"warning: {printable(picture.path)}: {printable(picture.reason)}", file=sys.stderr)
    try:
        match form:
            case "html":
                assert result.out is not None
                write_page(result.out, "search.html", _page(result), package="vggtransfer.retrieval")
            case "csv":
                _put(_as_csv(result), result.out)
            case "json":
                _put_json(result.as_dict(), result.out)
            case "table":
                if result.out is not None:
                    raise OptionError(
                        f"--out {result.out}: a table is for the terminal; add --format csv, json or html"
                    )
                _print_table(result)
    except OSError as error:
        raise OptionError(f"--out {result.out}: cannot write there: {error.strerror or error}") from error
    if result.out is not None:
        print(f"wrote {result.out}")


def _put(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
        return
    with write_atomically(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def _put_json(content: dict[str, Any], out: Path | None) -> None:
    if out is None:
        print_json(content)
    else:
        _put(json_text(content) + "\n", out)


def _as_csv(result: SearchResult) -> str:
    """One line per neighbour: query, rank, id, path, label, score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "rank", "id", "path", "label", "score"])
    for row in result.rows:
        for rank, one in enumerate(row.neighbours, start=1):
            writer.writerow([row.query, rank, one.id, one.path, one.label, f"{one.score:.6f}"])
    return text.getvalue()


def _print_table(result: SearchResult) -> None:
    table = plain_table("query", "rank", "score", "label", "picture", numbers=("rank", "score"))
    for row in result.rows:
        for rank, one in enumerate(row.neighbours, start=1):
            query = printable(row.query) if rank == 1 else ""
            table.add_row(query, str(rank), f"{one.score:.3f}", printable(one.label), printable(one.path))
    print_table(table)


def _page(result: SearchResult) -> dict[str, object]:
    return {
        "index": result.index,
        "rows": [
            {
                "query": row.query,
                "thumbnail": _thumbnail(row.query),
                "neighbours": [
                    {"path": one.path, "label": one.label, "score": one.score, "thumbnail": _thumbnail(one.path)}
                    for one in row.neighbours
                ],
            }
            for row in result.rows
        ],
        "side": _SIDE,
        "version": vggtransfer.__version__,
        "written": datetime.now(UTC).astimezone().strftime("%d %B %Y, %H:%M"),
    }


def _thumbnail(path: Path) -> str:
    """A data URL; empty if the file cannot be read any more."""
    with suppress(BadImageError):
        return photograph_url(centre_square(decode_image(path, min_side=_SIDE), _SIDE))
    return ""
