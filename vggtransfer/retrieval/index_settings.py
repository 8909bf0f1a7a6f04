"""What a user asks of an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.index_kind import KindName

WhiteningName = Literal["pca", "learned"]


@dataclass(frozen=True)
class IndexSettings:
    """What was asked for when the index was built; holds for all changes after.

    Attributes:
        kind: Of the FAISS index; `auto` is settled anew as the collection grows.
        recall: Wanted share of the true 10 nearest neighbours among those found.
        max_memory: GiB that the FAISS index may take; None: half of what is free.
        whiten: Dimensions after whitening; None: it is not whitened.
        whitening: How that is learnt.

    Raises:
        OptionError: A value is out of range.
    """

    kind: KindName = "auto"
    recall: float = 0.95
    max_memory: float | None = None
    whiten: int | None = None
    whitening: WhiteningName = "pca"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, get_args(KindName)),
            ("whitening", self.whitening, get_args(WhiteningName)),
        ):
            if value not in known:
                raise OptionError(f"{name}={value} is not possible: use {', '.join(known)}")
        if not 0 < self.recall <= 1:
            raise OptionError(f"recall={self.recall:g} is not possible: it must be above 0 and at most 1")
        if self.max_memory is not None and self.max_memory <= 0:
            raise OptionError(f"max_memory={self.max_memory:g} is not possible: it must be above 0, in GiB")
        if self.whiten is not None and self.whiten < 1:
            raise OptionError(f"whiten={self.whiten} is not possible: it must be at least 1")


def check_loading(*, batch_size: int, workers: int | None) -> None:
    """Refuses numbers of pictures and processes that cannot be.

    Raises:
        OptionError: One is too small.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size={batch_size} is not possible: it must be at least 1")
    if workers is not None and workers < 0:
        raise OptionError(f"workers={workers} is not possible: it must be at least 0")
