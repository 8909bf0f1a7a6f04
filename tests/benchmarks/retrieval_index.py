"""Speed of the index against the ways people use today: python tests/benchmarks/retrieval_index.py [NAME ...]

NAME is any of 10k, 100k, 1m and folder; without one, all but 1m. Both arms of a line do the same work in this process,
in turn. `10k` and so on: build an index of that many vectors and look up 10,000 others, recall@10 at least 0.95; the
vectors are drawn (512 numbers, clusters of uneven size within 48 dimensions, noise in all). The peer is what autofaiss
documents for these sizes and its default memory: HNSW32 as FAISS builds it (`get_optimal_index_keys_v2`), here with the
least efSearch that reaches 0.95, found outside of the measured time. `folder`: from JPEG files to an index that can be
searched. Pictures come from $VGGTRANSFER_DATA, else ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import faiss
import numpy as np
import torch
import torchvision
from interleaved import ROUNDS, Measurement, interleave, show
from numpy.typing import NDArray
from peers import PREPROCESSING
from PIL import Image

from vggtransfer import ImageIndex
from vggtransfer.retrieval import index as faiss_index
from vggtransfer.retrieval.embedder import Embedder
from vggtransfer.retrieval.exact_neighbours import exact_neighbours
from vggtransfer.retrieval.index_kind import choose_kind
from vggtransfer.retrieval.index_tuning import tune
from vggtransfer.retrieval.vector_rows import VectorRows
from vggtransfer.retrieval.whitening import unit_rows

DIMENSION, QUERIES, NEIGHBOURS, RECALL = 512, 10_000, 10, 0.95
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
PICTURES = 192


def drawn(count: int, *, seed: int) -> NDArray[np.float32]:
    """Unit vectors [count, 512] of the same clusters whatever the seed."""
    shape = np.random.default_rng(0)
    subspace = shape.standard_normal((48, DIMENSION), np.float32)
    centres = shape.standard_normal((2000, 48), np.float32)
    weights = 1 / np.arange(1, 2001)
    chance = np.random.default_rng(seed)
    rows = np.empty((count, DIMENSION), np.float32)
    for start in range(0, count, 50_000):
        some = min(50_000, count - start)
        places = centres[chance.choice(2000, some, p=weights / weights.sum())]
        places = places + 0.7 * chance.standard_normal((some, 48), np.float32)
        rows[start : start + some] = places @ subspace + 1.5 * chance.standard_normal((some, DIMENSION), np.float32)
    return unit_rows(rows)


def of_size(name: str, rounds: int) -> Measurement:
    vectors, queries = VectorRows(drawn(SIZES[name], seed=1), None), drawn(QUERIES, seed=2)
    rows = np.arange(len(vectors))
    _, true = exact_neighbours(vectors, queries, k=NEIGHBOURS)
    found: dict[str, NDArray[np.int64]] = {}
    notes = {}

    def ours() -> None:
        kind = choose_kind("auto", count=len(vectors), dimension=DIMENSION, recall=RECALL, memory=2**34)
        index = faiss_index.build(vectors, rows, kind, gpu=False)
        index.effort = tune(index, vectors, rows, recall=RECALL).effort
        _, found["ours"] = index.search(queries, k=NEIGHBOURS, vectors=vectors)
        notes["ours"] = f"{kind.factory}, effort {index.effort}"

    peer_effort = 0

    def graph() -> faiss.Index:
        index = faiss.index_factory(DIMENSION, "HNSW32", faiss.METRIC_INNER_PRODUCT)
        index.add(vectors.embeddings)
        return index

    def theirs() -> None:
        index = graph()
        index.hnsw.efSearch = peer_effort
        _, found["theirs"] = index.search(queries, NEIGHBOURS)

    tuned = graph()
    for peer_effort in (16, 32, 48, 64, 96, 128, 256, 512, 1024):
        tuned.hnsw.efSearch = peer_effort
        if recall(tuned.search(queries[:1000], NEIGHBOURS)[1], true[:1000]) >= RECALL:
            break
    seconds = interleave(ours, theirs, rounds=rounds, warm_up=False)
    note = f"recall@10 {recall(found['ours'], true):.3f} ({notes['ours']}), peer {recall(found['theirs'], true):.3f}"
    note += f" (efSearch {peer_effort})"
    return Measurement(f"build of {name} and 10,000 queries", "HNSW32", 2, *seconds, note=note)


def recall(found: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    return float((found[:, :, None] == true[:, None, :]).any(axis=1).mean())


def from_folder(scratch: Path, rounds: int) -> Measurement:
    source = Path(os.environ.get("VGGTRANSFER_DATA", "../shared/data"))
    shutil.unpack_archive(source / "flowers12.zip", scratch / "flowers12")
    paths = sorted((scratch / "flowers12").rglob("*.jpg"))
    few = scratch / "few"
    few.mkdir()
    for number, path in enumerate(paths[:: len(paths) // PICTURES][:PICTURES]):
        shutil.copy(path, few / f"{number:04d}.jpg")
    torch.manual_seed(0)
    network = torchvision.models.vgg16(weights=None).features.eval()
    weights = scratch / "vgg16.pth"
    torch.save({f"features.{name}": tensor for name, tensor in network.state_dict().items()}, weights)

    def ours() -> None:
        shutil.rmtree(scratch / "index", ignore_errors=True)
        embedder = Embedder("vgg16", weights=str(weights), pool="gem")
        index = ImageIndex.build(few, out=scratch / "index", embedder=embedder, batch_size=32)
        assert len(index.search(few / "0007.jpg", k=10)) == 10

    def theirs() -> None:
        loaded = torchvision.models.vgg16(weights=None, init_weights=False).features.eval()
        state = torch.load(weights, weights_only=True)
        loaded.load_state_dict({name.removeprefix("features."): tensor for name, tensor in state.items()})
        rows = []
        names = sorted(few.iterdir())
        with torch.inference_mode():
            for start in range(0, len(names), 32):
                pictures = [PREPROCESSING(Image.open(path).convert("RGB")) for path in names[start : start + 32]]
                maps = loaded(torch.stack(pictures))
                rows.append(maps.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3))
        vectors = torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()
        index = faiss.IndexHNSWFlat(DIMENSION, 32, faiss.METRIC_INNER_PRODUCT)
        index.add(vectors)
        faiss.write_index(index, str(scratch / "peer.faiss"))
        index.search(vectors[7:8], 10)

    seconds = interleave(ours, theirs, rounds=rounds)
    return Measurement(f"{PICTURES} JPEG files to an index and one search", "PIL, torchvision fp32, HNSW", 3, *seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*SIZES, "folder"], default=["10k", "100k", "folder"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    measured = []
    for name in options.names:
        with tempfile.TemporaryDirectory() as scratch:
            measured.append(
                from_folder(Path(scratch), options.rounds) if name == "folder" else of_size(name, options.rounds)
            )
    show(measured)


if __name__ == "__main__":
    main()
