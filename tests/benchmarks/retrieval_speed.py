"""How fast exact search is: python tests/benchmarks/retrieval_speed.py

Batches of queries among 50,000 unit vectors of 512 numbers, drawn at random, against FAISS's `IndexFlatIP` on the same
threads. Random directions are the hardest case for a first pass in bfloat16: the best scores lie close together.
"""

from __future__ import annotations

import argparse

import faiss
import numpy as np
import torch
from interleaved import ROUNDS, Measurement, interleave, matrix_rate, show
from numpy.typing import NDArray

from vggtransfer.encoder.precision import resolve_precision
from vggtransfer.retrieval.evaluation import recall_of_neighbours
from vggtransfer.retrieval.exact_search import ExactSearch
from vggtransfer.retrieval.whitening import unit_rows

VECTORS, FEATURES = 50_000, 512


def drawn(count: int, seed: int) -> NDArray[np.float32]:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, FEATURES), dtype=np.float32))


def measure(ours: ExactSearch, theirs: faiss.Index, *, queries: int, k: int, rounds: int, rate: float) -> Measurement:
    given = drawn(queries, seed=1)
    _, found = ours.search(given, k=k)
    _, expected = theirs.search(given, k)
    recall = recall_of_neighbours(found, expected, k=k)
    seconds = interleave(lambda: ours.search(given, k=k), lambda: theirs.search(given, k), rounds=rounds)
    return Measurement(
        f"{queries:,} queries, k = {k}",
        "IndexFlatIP",
        2.5 if queries >= 1000 and k == 10 else None,
        *seconds,
        operations=2.0 * queries * VECTORS * FEATURES,
        rate=rate,
        note=f"recall {recall:.5f}; {min(seconds[0]) * 1000:.1f} ms, IndexFlatIP {min(seconds[1]) * 1000:.1f} ms",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    faiss.omp_set_num_threads(torch.get_num_threads())
    vectors = drawn(VECTORS, seed=0)
    index = faiss.IndexFlatIP(FEATURES)
    index.add(vectors)
    search = ExactSearch(vectors, device="cpu")
    rate = matrix_rate(resolve_precision("auto", torch.device("cpu")))
    cases = ((1, 10), (32, 10), (1000, 1), (1000, 10), (1000, 100), (4000, 10))
    show([measure(search, index, queries=queries, k=k, rounds=options.rounds, rate=rate) for queries, k in cases])


if __name__ == "__main__":
    main()
