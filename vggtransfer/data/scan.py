"""Every picture decoded once before anything depends on it."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from vggtransfer.cache import write_atomically
from vggtransfer.data.cores import usable_cores
from vggtransfer.data.decode import decode_image
from vggtransfer.data.duplicates import find_duplicates
from vggtransfer.data.folders import PictureFolders, Sample
from vggtransfer.data.scan_results import FileState, Result, ScanResults, file_state
from vggtransfer.errors import BadImageError, DataError

OnBadImage: TypeAlias = Literal["skip", "stop"]

_BATCH = 500
_SECONDS_BEFORE_PROGRESS = 1.0


@dataclass(frozen=True)
class BadPicture:
    """A picture file that cannot be decoded, and why."""

    path: Path
    reason: str

    @classmethod
    def of(cls, path: Path, error: BadImageError) -> BadPicture:
        """Takes the reason from the error that a path met with."""
        return cls(path, str(error).removeprefix(f"{path}: ".replace("\n", " ")))

    def stop(self) -> DataError:
        """The error where such pictures are not to be skipped."""
        return DataError(
            f"{self.path}: {self.reason}; replace or remove it, or leave such out with --on-bad-image skip"
        )


@dataclass(frozen=True)
class PictureCheck:
    """What `check_pictures` found.

    Attributes:
        good: The samples that can be decoded, in the order they were given.
        bad: The files that cannot, in that order too.
        hashes: SHA-256 of the content of each good file.
    """

    good: tuple[Sample, ...]
    bad: tuple[BadPicture, ...]
    hashes: Mapping[Path, str]


def check_pictures(
    samples: Iterable[Sample], *, on_bad_image: OnBadImage = "skip", progress: bool = False
) -> PictureCheck:
    """Decodes every picture and hashes its file, in threads; files unchanged since an earlier check are not read again.

    Args:
        samples: The pictures; a path that occurs twice is read once.
        on_bad_image: `skip` leaves bad pictures out and lists them, `stop` makes the first one an error.
        progress: Show on standard error how far it is, once it takes longer than a second.

    Raises:
        DataError: `on_bad_image` is `stop` and a picture is bad; it names the first in the order of the samples.
    """
    samples = tuple(samples)
    paths = list(dict.fromkeys(sample.path for sample in samples))
    hashes: dict[Path, str] = {}
    bad: list[BadPicture] = []
    with ScanResults() as known, ThreadPoolExecutor(_threads()) as pool, _progress(len(paths), progress) as advance:
        for start in range(0, len(paths), _BATCH):
            with closing(_check_batch(paths[start : start + _BATCH], known, pool)) as results:
                for path, result in results:
                    advance()
                    if result.sha256 is not None:
                        hashes[path] = result.sha256
                    else:
                        bad.append(BadPicture(path, result.reason))
                        if on_bad_image == "stop":
                            raise bad[-1].stop()
    return PictureCheck(tuple(sample for sample in samples if sample.path in hashes), tuple(bad), hashes)


def check_folders(
    folders: PictureFolders, *, on_bad_image: OnBadImage = "skip", progress: bool = False
) -> tuple[PictureFolders, PictureCheck]:
    """Checks all splits; returns the folders without their bad pictures, and with all that is odd in `warnings`.

    Raises:
        DataError: A bad picture where those shall stop, or a class or the validation set has no good picture left.
    """
    check = check_pictures((*folders.train, *folders.val, *folders.test), on_bad_image=on_bad_image, progress=progress)
    train, val, test = (
        tuple(sample for sample in samples if sample.path in check.hashes)
        for samples in (folders.train, folders.val, folders.test)
    )
    reasons = {picture.path: picture.reason for picture in check.bad}
    left = {sample.label for sample in train}
    if lost := next((sample for sample in folders.train if sample.label not in left), None):
        raise DataError(
            f"no training picture of class {folders.classes[lost.label]} can be decoded, "
            f"such as {lost.path}: {reasons[lost.path]}; replace them or remove the class"
        )
    if folders.val and not val:
        path = folders.val[0].path
        raise DataError(f"no validation picture can be decoded, such as {path}: {reasons[path]}")
    warnings = list(folders.warnings)
    if check.bad:
        pictures = "picture" if len(check.bad) == 1 else "pictures"
        first = check.bad[0]
        warnings.append(f"{len(check.bad)} bad {pictures} left out, such as {first.path} ({first.reason}).")
    warnings += find_duplicates({"train": train, "val": val, "test": test}, check.hashes, folders.classes)
    return replace(folders, train=train, val=val, test=test, warnings=tuple(warnings)), check


def write_bad_pictures(path: Path, bad: Iterable[BadPicture]) -> None:
    """Writes a CSV file with the columns path and reason; without bad pictures, the header only."""
    with (
        write_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["path", "reason"])
        writer.writerows([picture.path, picture.reason] for picture in bad)


def _check_batch(paths: Sequence[Path], known: ScanResults, pool: ThreadPoolExecutor) -> Generator[tuple[Path, Result]]:
    states = [file_state(path) for path in paths]
    earlier = known.look_up([state for state in states if state is not None])
    work = [None if state in earlier else pool.submit(_check, path) for path, state in zip(paths, states, strict=True)]
    fresh: list[tuple[FileState, Result]] = []
    try:
        for path, state, future in zip(paths, states, work, strict=True):
            if future is None:
                assert state is not None
                yield path, earlier[state]
                continue
            result, lasting = future.result()
            if lasting and state is not None:
                fresh.append((state, result))
            yield path, result
    finally:  # also when interrupted, or stopped at a bad picture
        for future in work:
            if future is not None:
                future.cancel()
        known.add(fresh)


def _check(path: Path) -> tuple[Result, bool]:
    """Returns the result, and whether it holds as long as the file stays as it is."""
    try:
        decode_image(path, min_side=1)  # the smallest scale still needs all of a JPEG's data
        with path.open("rb") as file:
            return Result(hashlib.file_digest(file, "sha256").hexdigest()), True
    except BadImageError as error:
        reason, cause = BadPicture.of(path, error).reason, error.__cause__
        # Permissions, disks and memory get better without the file changing; Pillow's own OSErrors have no number.
        passing = isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None)
        return Result(None, reason), not passing
    except OSError as error:
        return Result(None, error.strerror or str(error)), False


def _threads() -> int:
    return min(usable_cores(), 16)


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Yields what is to be called after each picture; shows a bar on a terminal, one line elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    started = time.monotonic()
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True)
    task = bar.add_task("checking pictures", total=total)
    visible = not shown

    def advance() -> None:
        nonlocal visible
        bar.advance(task)
        if not visible and time.monotonic() - started > _SECONDS_BEFORE_PROGRESS:
            visible = True
            if console.is_terminal:
                bar.start()
            else:
                console.print(f"checking {total:,} pictures ...")

    try:
        yield advance
    finally:
        if shown and visible and console.is_terminal:
            bar.stop()
