"""Which kind of FAISS index suits a collection."""

from __future__ import annotations

from typing import Literal

KindName = Literal["auto", "flat", "hnsw", "ivf", "ivfpq"]
