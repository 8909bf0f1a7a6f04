"""Kills changes of an index at random moments: python tests/benchmarks/retrieval_crashes.py [KILLS]

Before each, a folder is changed at random; a forked process then adds, removes or syncs, and gets SIGKILL after a
random part of the time that changes take. The index must then open, be exactly what it was or what it was to become,
and have for each picture the vector of its file.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vggtransfer.retrieval.image_index import ImageIndex

Contents = dict[str, str]  # SHA-256 by path


class MeanColours:
    """Mean colours of 8 x 8 places: an embedder that costs nothing."""

    image_size, crop_fraction, dimension, whitening = 32, 1.0, 192, None
    weights, of_model, origin, precision, device = "colours", False, "this script", "fp32", torch.device("cpu")
    description: dict[str, object] = {"architecture": "colours", "dimension": 192}  # noqa: RUF012
    digest = "0" * 64

    def with_whitening(self, whitening: None) -> MeanColours:
        return self

    def embed(self, pictures: torch.Tensor) -> np.ndarray:
        rows = torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255 - 0.5, 8).flatten(1)
        return torch.nn.functional.normalize(rows, dim=1).numpy()


class Trial:
    """A folder of pictures and its index.

    Args:
        scratch: Where both go.
        seed: Of all that is random.
    """

    def __init__(self, scratch: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.photos, self.path, self.elsewhere = scratch / "photos", scratch / "index", scratch / "elsewhere"
        self.drawn = 0
        for number in range(40):
            self.draw(self.photos / "ab"[number % 2] / f"{number:03d}.png")
        ImageIndex.build(self.photos, out=self.path, embedder=MeanColours(), workers=0)

    def draw(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.drawn += 1
        pixels = np.random.default_rng(self.drawn).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    def opened(self) -> ImageIndex:
        return ImageIndex.open(self.path, embedder=MeanColours())

    def contents(self) -> Contents:
        return {str(item.path): item.sha256 for item in self.opened().items}

    def next_change(self) -> tuple[Callable[[ImageIndex], object], Contents]:
        """A change to make, and what the index is to contain after it."""
        before = self.contents()
        there = sorted(path for path in before if Path(path).exists())
        match self.random.choice(["add", "remove", "sync", "sync"]):
            case "add":
                new = [self.draw(self.elsewhere / f"{self.drawn:04d}.png") for _ in range(self.random.randint(1, 20))]
                return lambda index: index.add(new, workers=0), before | {str(path): digest(path) for path in new}
            case "remove":
                gone = self.random.sample(sorted(before), self.random.randint(1, max(1, len(before) // 3)))
                return lambda index: index.remove(gone), {p: d for p, d in before.items() if p not in set(gone)}
            case _:
                for path in map(Path, self.random.sample(there, min(6, len(there)))):
                    if path.is_relative_to(self.photos):
                        self.random.choice(
                            [
                                path.unlink,
                                lambda path=path: path.rename(path.with_name(f"moved-{path.name}")),
                                lambda path=path: self.draw(path),
                            ]
                        )()
                for _ in range(self.random.randint(2, 20)):
                    self.draw(self.photos / self.random.choice("ab") / f"new-{self.drawn:04d}.png")
                elsewhere = {path: digest for path, digest in before.items() if str(self.elsewhere) in path}
                found = {str(path): digest(path) for path in self.photos.rglob("*.png")}
                return lambda index: index.sync(workers=0), elsewhere | found

    def check(self, before: Contents, after: Contents) -> str:
        """Whether it is the old or the new index."""
        index = self.opened()
        index.verify()
        now = {str(item.path): item.sha256 for item in index.items}
        assert now in (before, after), sorted(set(now.items()) ^ set(after.items()))
        stored = index.vectors()
        for row, (path, content) in zip(stored, now.items(), strict=True):
            if Path(path).exists() and digest(Path(path)) == content:
                with Image.open(path) as image:
                    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
                assert np.allclose(MeanColours().embed(pixels[None])[0], row, atol=1e-6), path
        return "new" if now == after else "old"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def in_killed_child(change: Callable[[ImageIndex], object], index: ImageIndex, *, seconds: float) -> bool:
    """Makes a change in another process and kills that after some seconds; returns whether it was still at it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            change(index)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("the change failed")
    return os.WIFSIGNALED(status)


def main(kills: int) -> None:
    scratch = Path(tempfile.mkdtemp())
    counts = {"old": 0, "new": 0}
    in_time = 0
    seconds = 0.1
    try:
        trial = Trial(scratch, seed=kills)
        for _ in range(kills):
            before = trial.contents()
            change, after = trial.next_change()
            killed = in_killed_child(change, trial.opened(), seconds=trial.random.uniform(0, 2 * seconds))
            counts[trial.check(before, after)] += 1
            # Half of the kills shall come too early or late to matter, so that all moments in between have their turn.
            seconds *= 1.1 if killed else 0.9
            in_time += killed
    finally:
        shutil.rmtree(scratch)
    print(
        f"{kills} kills, {in_time} of them before the process had ended: "
        f"the index was as before {counts['old']} times, as it was to become {counts['new']} times"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
