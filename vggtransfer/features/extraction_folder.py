"""The state of an extraction on disk, shared by all processes that ever work on it."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

from vggtransfer.cache import remove_leftovers
from vggtransfer.data.scan import BadPicture, OnBadImage
from vggtransfer.errors import DataError, OptionError
from vggtransfer.features.extraction_plan import ExtractionPlan, differences
from vggtransfer.features.feature_parts import part_path, present_parts, read_part, remove_parts
from vggtransfer.features.manifest import ITEMS_FILE, MANIFEST_FILE, PLAN_FILE, file_digest, read_json, write_json
from vggtransfer.features.picture_list import PictureList
from vggtransfer.features.processes import Share

PARTS_FOLDER = "parts"

_CHECKED_PICTURES = 16


def check_out(out: Path) -> None:
    """Refuses a folder that holds anything but an extraction, finished or not.

    Raises:
        OptionError: It does.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OptionError(f"--out {out}: is a file; name a folder")
    # In this order: at the end of an extraction the manifest appears before the plan goes.
    if (out / PARTS_FOLDER / PLAN_FILE).exists() or (out / MANIFEST_FILE).exists():
        return
    if any(path.name != PARTS_FOLDER for path in out.iterdir()):
        raise OptionError(f"--out {out}: exists and holds something else than features; name another folder")


class ExtractionFolder:
    """`OUT`, and in it `parts/` with the plan until all is finished.

    Args:
        out: The folder.
        plan: What is to be in it.
    """

    def __init__(self, out: Path, plan: ExtractionPlan) -> None:
        self.out = out
        self.plan = plan
        self.parts = out / PARTS_FOLDER

    def begin(self, share: Share, pictures: PictureList, *, on_bad_image: OnBadImage) -> list[int]:
        """Lists the parts that this process has to compute, and on the first start writes down the plan.

        Args:
            share: Which parts are its own.
            pictures: The pictures of the plan.
            on_bad_image: With `stop`, a bad picture in a part that is there is an error as well.

        Raises:
            OptionError: Another extraction is in the folder, or it cannot be written.
            DataError: A picture has changed since its part was computed, or is bad where those shall stop.
        """
        if self.is_finished():
            self._check_items(pictures)
            return []
        there = read_json(self.parts / PLAN_FILE)
        if there is not None:
            self._compare(there)
        else:
            try:
                write_json(self.parts / PLAN_FILE, self.plan.description())
            except OSError as error:
                raise OptionError(f"--out {self.out}: cannot write there: {error.strerror or error}") from error
        present = present_parts(self.parts)
        if self.is_finished():  # by another process, since the first look; it may have removed parts before the second
            return []
        mine = range(share.rank, self.plan.parts, share.processes)
        return [number for number in mine if number not in present or not self._usable(number, pictures, on_bad_image)]

    def is_finished(self) -> bool:
        """Whether the final files are there; then what is left of the work is removed.

        Raises:
            OptionError: They are there, but of another extraction.
        """
        manifest = read_json(self.out / MANIFEST_FILE)
        if manifest is None:
            return False
        self._compare(manifest)
        remove_parts(self.parts)
        remove_leftovers(self.out)
        return True

    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` holds when all is finished."""
        return read_json(self.out / MANIFEST_FILE) or {}

    def parts_present(self) -> int:
        """How many parts are there, of all processes together."""
        return len(present_parts(self.parts))

    def _compare(self, there: dict[str, Any]) -> None:
        if different := differences(there, self.plan.description()):
            raise OptionError(
                f"--out {self.out} holds another extraction ({different}); name another folder or use the same options"
            )

    def _usable(self, number: int, pictures: PictureList, on_bad_image: OnBadImage) -> bool:
        path = part_path(self.parts, number)
        try:
            part = read_part(path)
        except DataError:
            return False  # it is written anew
        if part.fingerprint != self.plan.fingerprint:
            raise DataError(f"{path} belongs to another extraction; delete it and repeat the command")
        if part.bad and on_bad_image == "stop":
            index, reason = part.bad[0]
            raise BadPicture(pictures.path(index), reason).stop()
        if part.rows:
            # The list has names only. One file per part tells whether they still mean the same pictures.
            self._check_picture(pictures.path(int(part.array("index")[0])), bytes(part.array("sha256")[0]).hex())
        return True

    def _check_items(self, pictures: PictureList) -> None:
        step = max(1, self.plan.pictures // _CHECKED_PICTURES)
        with (self.out / ITEMS_FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for item in itertools.islice(csv.DictReader(file), 0, None, step):
                self._check_picture(pictures.root / item["path"], item["sha256"])

    def _check_picture(self, picture: Path, sha256: str) -> None:
        if not picture.is_file() or file_digest(picture) != sha256:
            raise DataError(
                f"{picture} has changed since its features were computed; extract into another folder than {self.out}"
            )
