"""`vggtransfer search`: the pictures of a collection that are nearest to others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values

if TYPE_CHECKING:
    from vggtransfer.data.scan import BadPicture
    from vggtransfer.retrieval.neighbours import Neighbour


@dataclass(frozen=True)
class QueryResult:
    """A query and its neighbours, the nearest first."""

    query: Path
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class SearchResult:
    """What `search` found.

    Attributes:
        index: The index, as given.
        rows: One per query that can be read, in the order they were given.
        bad: The other queries.
        out: The file written, if any.
    """

    index: Path
    rows: tuple[QueryResult, ...]
    bad: tuple[BadPicture, ...]
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        read = [
            {
                "path": str(row.query),
                "status": "ok",
                "neighbours": [{**one._asdict(), "path": str(one.path)} for one in row.neighbours],
            }
            for row in self.rows
        ]
        bad = [{"path": str(picture.path), "status": "bad", "reason": picture.reason} for picture in self.bad]
        return {"index": str(self.index), "queries": read + bad, "out": None if self.out is None else str(self.out)}


def search(
    index: Path,
    queries: list[str],
    *,
    k: int = 10,
    filter: str | None = None,  # noqa: A002
    expand: int = 0,
    augment: int = 0,
    rerank: int = 0,
    format: Literal["table", "json", "csv", "html"] = "table",  # noqa: A002
    out: Path | None = None,
    store: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    on_bad_image: Literal["skip", "stop"] = "skip",
) -> SearchResult:
    """Finds the pictures of a collection that are nearest to each of some pictures.

    Args:
        index: Index directory.
        queries: Pictures, folders (with everything below them), patterns such as `photos/**/*.jpg`, or `-` for a list
            of these on standard input, one a line.
        k: Neighbours of each.
        filter: `label=NAME`: only pictures with this label.
        expand: Search once more with the query and so many of its neighbours together (alpha query expansion).
        augment: Order the best 100 by their likeness to the query after each was joined with its own nearest pictures,
            so many in all, such as 10 (database-side augmentation).
        rerank: Order so many of the best, such as 100, by whether they and the query are among each other's nearest
            (k-reciprocal re-ranking). Scores are still the cosines, which need not fall then.
        format: A table for people; CSV with one line per neighbour; one JSON object; or a page with the pictures
            themselves, which needs no other file.
        out: File to write instead of standard output; needed for `html`.
        store: Search in this database, `milvus+http://HOST:19530`, instead of the index directory, which need not be
            here: INDEX is then the name that the collection has there.
        weights: The encoder's weights or model, if they are not where they were.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        on_bad_image: `skip` leaves unreadable queries out and names them; `stop` ends with the first one.

    Returns:
        The neighbours of each query.

    Raises:
        VGGTransferError: The index, an option or a path cannot be used, or no query can be read.
    """
    given = checked_values(search, {name: value for name, value in locals().items() if name != "queries"})
    index, out = given["index"], given["out"]
    label = _label(filter)
    if format == "html" and out is None:
        raise OptionError("--format html writes a file: name it with --out PAGE.html")
    from vggtransfer.data.picture_files import list_pictures
    from vggtransfer.retrieval.image_index import ImageIndex
    from vggtransfer.retrieval.published_index import PublishedIndex, open_published
    from vggtransfer.retrieval.search_output import write_result

    paths = list_pictures(queries)
    if store is None:
        opened: ImageIndex | PublishedIndex = ImageIndex.open(index, weights=weights, device=device)
    else:
        opened = open_published(index, store, weights=weights, device=device)
    rows, bad = _searched(
        opened, paths, k=k, label=label, sharpen=(expand, augment, rerank), stop=on_bad_image == "stop"
    )
    result = SearchResult(index, tuple(rows), tuple(bad), out)
    write_result(result, format)
    return result


def _label(written: str | None) -> str | None:
    if written is None:
        return None
    name, equals, label = written.partition("=")
    if name != "label" or not equals:
        raise OptionError(f"--filter {written}: write it as label=NAME")
    return label


def _searched(
    index: Any, paths: list[Path], *, k: int, label: str | None, sharpen: tuple[int, int, int], stop: bool
) -> tuple[list[QueryResult], list[BadPicture]]:
    import numpy as np

    from vggtransfer.data.scan import BadPicture
    from vggtransfer.errors import BadImageError, DataError
    from vggtransfer.progress_bar import ProgressBar

    read: list[Path] = []
    vectors = []
    bad: list[BadPicture] = []
    with ProgressBar("looking at the queries", steps=len(paths), shown=True) as bar:
        for path, vector in index.embedder.embed_files(paths):
            if isinstance(vector, BadImageError):
                bad.append(BadPicture.of(path, vector))
                if stop:
                    raise bad[0].stop()
            else:
                read.append(path)
                vectors.append(vector)
            bar.advance()
    if not read:
        raise DataError(f"none of the pictures can be read, the first: {bad[0].path}: {bad[0].reason}")
    expand, augment, rerank = sharpen
    found = index.search_many(np.stack(vectors), k=k, label=label, expand=expand, augment=augment, rerank=rerank)
    return [QueryResult(path, tuple(row)) for path, row in zip(read, found, strict=True)], bad
