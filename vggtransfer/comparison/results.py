"""What is known of each network once it has been trained, kept in its folder."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vggtransfer.cache import write_atomically
from vggtransfer.errors import TrainingError
from vggtransfer.training.contract import EpochRow

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class NetworkResult:
    """One network of a comparison.

    Attributes:
        arch: Its name.
        diverged: Where the loss or a gradient became infinite or NaN and training stopped; empty if it did not.
        origin: Where its starting weights came from.
        image_size: Side of its pictures, in pixels.
        train_sizes: Sides of its training pictures, each with the epoch (from 0) from which on it holds.
        parameters: With the head for these classes.
        macs: Multiply-accumulates for one such picture.
        batch_norm: Whether it has BatchNorm.
        learning_rate: Peak rate of the head, or of everything.
        warmup_epochs: Epochs of warm-up.
        gradient_clip: Largest norm of the gradient; None for no clipping.
        resumed: Whether its training was stopped on the way and taken up again.
        memory_mib: Peak memory while it was trained and tested, see `PeakMemory`; None where it is unknown, as after a
            stop on the way.
        memory_heading: What was measured.
        history: The rows of its metrics.csv; what is called `val` there is the test.
        identity: What a comparison must have in common with the one that trained it.
    """

    arch: str
    diverged: str
    origin: str
    image_size: int
    train_sizes: tuple[tuple[int, int], ...]
    parameters: int
    macs: int
    batch_norm: bool
    learning_rate: float
    warmup_epochs: float
    gradient_clip: float | None
    resumed: bool
    memory_mib: float | None
    memory_heading: str
    history: tuple[EpochRow, ...]
    identity: dict[str, str]

    @property
    def train_accuracy(self) -> float | None:
        """The running one over the last epoch's augmented pictures; None if the network diverged."""
        return self.last("train_accuracy")

    @property
    def test_accuracy(self) -> float | None:
        """After the last epoch; None if the network diverged."""
        return self.last("val_accuracy")

    @property
    def images_per_second(self) -> float | None:
        """Training pictures per second, loading included: the median over the epochs."""
        rates = [float(row["images_per_second"]) for row in self.history]
        return statistics.median(rates) if rates else None

    @property
    def minutes(self) -> float:
        """Spent on training steps, without the tests."""
        return sum(float(row["seconds"]) for row in self.history) / 60

    def last(self, column: str) -> float | None:
        """A value of the last epoch; None if the network diverged or the value is not finite."""
        if self.diverged or not self.history:
            return None
        value = float(self.history[-1][column])
        return value if math.isfinite(value) else None

    def learnt_nothing(self, classes: int) -> bool:
        """Whether loss and test accuracy after the last epoch are still those of equal scores for all classes."""
        loss, accuracy = self.last("train_loss"), self.test_accuracy
        if loss is None or accuracy is None:
            return False
        return abs(loss - math.log(classes)) < 0.003 * math.log(classes) and accuracy < 1.2 / classes


def write_result(result: NetworkResult, folder: Path) -> None:
    """Writes `FOLDER/result.json`."""
    with write_atomically(folder / RESULT_FILE) as temporary:
        temporary.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


def read_result(folder: Path) -> NetworkResult | None:
    """Reads what `write_result` wrote; None if the network has not been trained to its end.

    Raises:
        TrainingError: The file is damaged.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sizes = tuple((int(start), int(side)) for start, side in content["train_sizes"])
        return NetworkResult(**{**content, "train_sizes": sizes, "history": tuple(content["history"])})
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} is damaged ({error}); delete {folder} to have the network trained again"
        ) from error
