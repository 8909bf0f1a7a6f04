"""`vggtransfer index info|verify|duplicates`: what an index holds, whether it is right, and what it holds twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.option_values import checked_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggtransfer.retrieval.neighbours import DuplicateGroup

_LABELS_SHOWN = 20


@dataclass(frozen=True)
class DuplicatesResult:
    """What `index duplicates` found: groups of pictures, the largest first."""

    index: Path
    groups: tuple[DuplicateGroup, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        groups = [
            {
                "kind": group.kind,
                "score": group.score,
                "pictures": [{"id": item.id, "path": str(item.path), "label": item.label} for item in group.items],
            }
            for group in self.groups
        ]
        return {"index": str(self.index), "groups": groups}


def index_info(index: Path, *, format: Literal["table", "json"] = "table") -> dict[str, Any]:  # noqa: A002
    """Shows what an index holds and how it was made; checks every file's digest on the way.

    Args:
        index: Index directory.
        format: Lines for people, or one JSON object.

    Returns:
        What `index.yaml` says, with `labels` and `bad`.

    Raises:
        VGGTransferError: There is no index, or a file is not as it was written.
    """
    checked_values(index_info, dict(locals()))
    from vggtransfer.retrieval.image_index import ImageIndex

    opened = ImageIndex.open(index)
    content = {**opened.description, "labels": opened.labels, "bad": opened.bad_files}
    if format == "json":
        from vggtransfer.report.json_output import print_json

        print_json(content)
    else:
        _print_info(Path(index), content)
    return content


def _print_info(index: Path, content: dict[str, Any]) -> None:
    from vggtransfer.printable import printable
    from vggtransfer.retrieval.recipe import described

    made, files = content["embedding"], content["files"].values()
    scales = "" if made["scales"] == [1.0] else f", scales {', '.join(f'{scale:g}' for scale in made['scales'])}"
    print(
        f"{index}: {content['pictures']:,} pictures of {printable(content['data'])}, generation {content['generation']}"
    )
    print(f"encoder    {made['architecture']}, {made['origin']} ({made['weights'][:12]})")
    print(
        f"embedding  {made['layer']}, {made['pool']}, {made['image_size']} pixels{scales}, "
        f"{made['precision']}: {made['dimension']} numbers"
    )
    print(f"search     {described(content)}, wanted: {content['wanted']['kind']}")
    print(f"size       {sum(entry['bytes'] for entry in files) / 2**20:,.1f} MiB in {len(files)} files, all as written")
    labels = {label: count for label, count in content["labels"].items() if label}
    if labels:
        shown = [f"{printable(label)} {count:,}" for label, count in list(labels.items())[:_LABELS_SHOWN]]
        more = f" and {len(labels) - _LABELS_SHOWN:,} more" if len(labels) > _LABELS_SHOWN else ""
        print(f"labels     {', '.join(shown)}{more}")
    for name, reason in content["bad"].items():
        print(f"bad        {printable(name)}: {printable(reason)}")


def index_verify(index: Path) -> None:
    """Checks every file of an index, and that all parts of it agree.

    Args:
        index: Index directory.

    Raises:
        VGGTransferError: Something is wrong; says what.
    """
    checked_values(index_verify, dict(locals()))
    from vggtransfer.retrieval.image_index import ImageIndex

    opened = ImageIndex.open(index)
    opened.verify()
    print(f"{index}: {len(opened):,} pictures, all files as they were written, all parts agree")


def index_duplicates(
    index: Path,
    *,
    threshold: float | None = None,
    format: Literal["table", "json", "csv"] = "table",  # noqa: A002
) -> DuplicatesResult:
    """Finds pictures that are in a collection more than once, as groups, across all folders.

    Exact duplicates are files that are equal byte by byte; near ones were saved, scaled, cropped or brightened anew.

    Args:
        index: Index directory.
        threshold: The least cosine of two embeddings to count as near; 1 finds exact duplicates only; default: 0.98,
            or 0.8 in a whitened index.
        format: Lines for people, one JSON object, or CSV with one line per picture.

    Returns:
        The groups, the largest first.

    Raises:
        VGGTransferError: The index or the threshold cannot be used.
    """
    checked_values(index_duplicates, dict(locals()))
    from vggtransfer.retrieval.image_index import ImageIndex

    opened = ImageIndex.open(index)
    result = DuplicatesResult(Path(index), tuple(opened.duplicates(threshold=threshold)))
    match format:
        case "json":
            from vggtransfer.report.json_output import print_json

            print_json(result.as_dict())
        case "csv":
            _print_csv(result.groups)
        case "table":
            _print_groups(result.groups, opened.data)
    return result


def _print_csv(groups: Sequence[DuplicateGroup]) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["group", "kind", "score", "id", "path", "label"])
    for number, group in enumerate(groups, start=1):
        for item in group.items:
            writer.writerow([number, group.kind, f"{group.score:.6f}", item.id, item.path, item.label])


def _print_groups(groups: Sequence[DuplicateGroup], data: Path) -> None:
    from vggtransfer.printable import printable

    for group in groups:
        names = [item.path.relative_to(data) if item.path.is_relative_to(data) else item.path for item in group.items]
        places = sorted({name.parts[0] for name in names if len(name.parts) > 2})
        labels = sorted({item.label for item in group.items if item.label})
        splits = len(places) > 1 and places != labels
        notes = [f"in {' and '.join(map(printable, places))}"] if splits else []
        notes += [f"under the labels {', '.join(map(printable, labels))}"] if len(labels) > 1 else []
        print(f"{group.kind} ({group.score:.3f}){': ' if notes else ''}{'; '.join(notes)}")
        for name in names:
            print(f"  {printable(name)}")
    pictures = sum(len(group.items) for group in groups)
    print(f"{len(groups):,} groups, {pictures - len(groups):,} pictures more than needed")
