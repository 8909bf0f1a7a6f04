"""From the parts of all processes to the final files, in constant memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vggtransfer.cache import write_atomically
from vggtransfer.data.folders import ClassFolders
from vggtransfer.data.scan import BadPicture, write_bad_pictures
from vggtransfer.errors import DataError
from vggtransfer.features.array_files import ArrayPieces, write_npy, write_npz, write_safetensors
from vggtransfer.features.extraction_folder import ExtractionFolder
from vggtransfer.features.extraction_plan import NUMPY_TYPES, ExtractionPlan
from vggtransfer.features.feature_parts import Part, part_path, read_part
from vggtransfer.features.manifest import (
    BAD_PICTURES_FILE,
    ITEMS_FILE,
    MANIFEST_FILE,
    describe_files,
    versions,
    write_json,
)
from vggtransfer.features.picture_list import PictureList


def assemble(folder: ExtractionFolder, *, pictures: PictureList, classes: ClassFolders) -> bool:
    """Writes the final files if all parts are there, the manifest last, and then removes the parts.

    Two processes that do it at the same time write the same bytes, and each file takes its place in one step.

    Args:
        folder: Where the parts are, and the files will be.
        pictures: The pictures of the plan.
        classes: Tells their labels.

    Returns:
        Whether the final files are there, whoever wrote them.

    Raises:
        DataError: A part is damaged or belongs to another extraction, or no picture could be read.
        OSError: The disk is full.
    """
    if folder.is_finished():
        return True
    if folder.parts_present() < folder.plan.parts:
        return folder.is_finished()  # parts also go when another process has finished
    try:
        _assemble(folder, pictures, classes)
    except (DataError, FileNotFoundError):
        # Another process has finished and removed what this one was reading or writing.
        if not folder.is_finished():
            raise
    return folder.is_finished()


def _assemble(folder: ExtractionFolder, pictures: PictureList, classes: ClassFolders) -> None:
    plan, out = folder.plan, folder.out
    parts = [_checked(read_part(part_path(folder.parts, number)), plan) for number in range(plan.parts)]
    rows = sum(part.rows for part in parts)
    if rows == 0:
        index, reason = parts[0].bad[0]
        raise DataError(f"none of {len(pictures)} pictures can be read, the first: {pictures.path(index)}: {reason}")
    features = feature_file_names(plan)
    with ExitStack() as files:
        # All are written before the first takes its place.
        temporary = [files.enter_context(write_atomically(out / name)) for name in features]
        _write_features(temporary, parts, plan=plan, rows=rows, pictures=pictures, classes=classes)
        items = files.enter_context(write_atomically(out / ITEMS_FILE))
        _write_items(items, parts, pictures, classes)
    bad = [BadPicture(Path(pictures.name(index)), reason) for part in parts for index, reason in part.bad]
    write_bad_pictures(out / BAD_PICTURES_FILE, bad)
    manifest = {
        **plan.description(),
        "data": str(pictures.root.resolve()),
        "pictures": rows,
        "bad_pictures": len(bad),
        "versions": versions(),
        "files": describe_files(out / name for name in (*features, ITEMS_FILE, BAD_PICTURES_FILE)),
    }
    write_json(out / MANIFEST_FILE, manifest)


def feature_file_names(plan: ExtractionPlan) -> tuple[str, ...]:
    """The files that hold the features themselves."""
    if plan.file_format == "memmap":
        return tuple(f"{layer}.npy" for layer in plan.shapes)
    return (f"features.{plan.file_format}",)


def _checked(part: Part, plan: ExtractionPlan) -> Part:
    if part.fingerprint != plan.fingerprint:
        raise DataError(f"{part.path} belongs to another extraction; delete it and repeat the command")
    return part


def _write_features(
    paths: Sequence[Path],
    parts: Sequence[Part],
    *,
    plan: ExtractionPlan,
    rows: int,
    pictures: PictureList,
    classes: ClassFolders,
) -> None:
    dtype = NUMPY_TYPES[plan.store]
    arrays = {layer: ArrayPieces((rows, *shape), dtype, _pieces(parts, layer)) for layer, shape in plan.shapes.items()}
    metadata = {"vggtransfer": json.dumps(plan.description())}
    match plan.file_format:
        case "safetensors":
            write_safetensors(paths[0], arrays, metadata=metadata)
        case "npz":
            write_npz(paths[0], arrays)
        case "memmap":
            for path, array in zip(paths, arrays.values(), strict=True):
                write_npy(path, array)
        case "parquet":
            # Takes a fifth of a second to import.
            from vggtransfer.features.parquet_files import TableRows, write_parquet

            groups = (
                TableRows(numbers, names, digests, labels, {layer: part.array(layer) for layer in plan.shapes})
                for part, numbers, names, digests, labels in _items(parts, pictures, classes)
            )
            write_parquet(paths[0], groups, shapes=plan.shapes, dtype=dtype, metadata=metadata)


def _pieces(parts: Iterable[Part], layer: str) -> Iterator[NDArray[Any]]:
    return (part.array(layer) for part in parts if part.rows)


def _write_items(path: Path, parts: Sequence[Part], pictures: PictureList, classes: ClassFolders) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "path", "sha256", "label"])
        for _, *columns in _items(parts, pictures, classes):
            writer.writerows(zip(*columns, strict=True))


def _items(
    parts: Sequence[Part], pictures: PictureList, classes: ClassFolders
) -> Iterator[tuple[Part, list[int], list[str], list[str], list[str]]]:
    """Yields numbers of rows, paths, digests and labels of the pictures in each part."""
    first = 0
    for part in parts:
        if part.rows == 0:
            continue
        names = [pictures.name(index) for index in part.array("index").tolist()]
        digests = [bytes(row).hex() for row in part.array("sha256")]
        rows = list(range(first, first + part.rows))
        yield part, rows, names, digests, [classes.label(name) for name in names]
        first += part.rows
