"""Which picture of one folder belongs to which of another: those of the same name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vggtransfer.data.picture_files import find_pictures, seen_instead
from vggtransfer.errors import DataError


@dataclass(frozen=True)
class PicturePair:
    """Two pictures to compare; `name` is the path of the first below its folder, or the file's name."""

    name: str
    a: Path
    b: Path


@dataclass(frozen=True)
class PicturePairs:
    """The pairs, and what has no partner.

    Attributes:
        pairs: Sorted by name.
        only_a: Pictures of the first folder without a partner.
        only_b: Pictures of the second folder without a partner.
    """

    pairs: tuple[PicturePair, ...]
    only_a: tuple[Path, ...] = ()
    only_b: tuple[Path, ...] = ()


def pair_pictures(a: Path, b: Path) -> PicturePairs:
    """Pairs two pictures, or the pictures of two folders by their paths below them.

    The ending counts only where it must: `a/cats/1.png` belongs to `b/cats/1.jpg`, unless there is a `b/cats/1.png`.

    Raises:
        DataError: Something does not exist, a picture is to be compared with a folder, no names agree, or a name has
            more than one possible partner.
    """
    for path in (a, b):
        if not path.exists():
            raise DataError(f"no such file or folder: {path}")
    if a.is_dir() != b.is_dir():
        folder, file = (a, b) if a.is_dir() else (b, a)
        raise DataError(f"{folder} is a folder and {file} is not; give two pictures, or two folders")
    if not a.is_dir():
        return PicturePairs((PicturePair(a.name, a, b),))
    left, right = _by_path(a), _by_path(b)
    same = left.keys() & right.keys()
    rest_a, rest_b = (_by_stem(path for path in found if path not in same) for found in (left, right))
    partners = {path: path for path in same}
    for stem in rest_a.keys() & rest_b.keys():
        for folder, paths in ((a, rest_a[stem]), (b, rest_b[stem])):
            if len(paths) > 1:
                raise DataError(
                    f"{folder} has {paths[0]} and {paths[1]}, which differ in their endings only; remove one"
                )
        partners[rest_a[stem][0]] = rest_b[stem][0]
    if not partners:
        raise DataError(
            f"no picture in {a} has the name of one in {b} ({len(left)} and {len(right)} pictures, such as "
            f"{min(left)} and {min(right)}); give the same name to those that belong together"
        )
    taken = set(partners.values())
    return PicturePairs(
        tuple(PicturePair(path, left[path], right[partners[path]]) for path in sorted(partners)),
        tuple(left[path] for path in sorted(left) if path not in partners),
        tuple(right[path] for path in sorted(right) if path not in taken),
    )


def _by_path(folder: Path) -> dict[str, Path]:
    pictures, others = find_pictures(folder)
    if not pictures:
        raise DataError(f"no pictures in {folder}{seen_instead(others)}")
    return {path.relative_to(folder).as_posix(): path for path in pictures}


def _by_stem(paths: Iterable[str]) -> dict[str, list[str]]:
    """Returns the paths by what is left of them without their endings."""
    found: dict[str, list[str]] = {}
    for path in sorted(paths):
        found.setdefault(str(PurePosixPath(path).with_suffix("")), []).append(path)
    return found
