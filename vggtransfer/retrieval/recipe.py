"""`vggtransfer index build|add|remove|sync|rebuild`: a folder of pictures becomes a collection, and stays right."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.features.encoder_choice import FeaturePrecision
from vggtransfer.features.pooling import PoolName
from vggtransfer.option_values import checked_values
from vggtransfer.retrieval.index_kind import KindName
from vggtransfer.retrieval.index_settings import WhiteningName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vggtransfer.retrieval.image_index import ImageIndex
    from vggtransfer.retrieval.index_update import IndexChange

_BAD_SHOWN = 5


@dataclass(frozen=True)
class IndexResult:
    """What a command did to an index.

    Attributes:
        index: The directory.
        pictures: How many there are now.
        change: What was done to get there; None where nothing was embedded.
    """

    index: Path
    pictures: int
    change: IndexChange | None


def index_build(
    data: Path,
    *,
    out: Path,
    arch: ArchitectureName | None = None,
    weights: str = "default",
    model: Path | None = None,
    layer: str | None = None,
    pool: PoolName | None = None,
    scales: list[float] | float = 1.0,
    whiten: int | None = None,
    whitening: WhiteningName = "pca",
    image_size: int | None = None,
    crop_fraction: float | None = None,
    kind: KindName = "auto",
    recall: float = 0.95,
    max_memory: float | None = None,
    store: str | None = None,
    precision: FeaturePrecision = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
) -> IndexResult | None:
    """Makes an index of all pictures below a folder, to search it by picture.

    A build that was stopped goes on where it was when it is repeated. Several GPUs or machines:
    `torchrun --nproc-per-node N -m vggtransfer index build ...`, as for `vggtransfer extract`.

    Args:
        data: Folder of pictures. Of `train|val|test/CLASS/*` and of `CLASS/*` the classes are the labels.
        out: Directory for the index; a new one.
        arch: Architecture; default: vgg16.
        weights: `default`, `torchvision`, `timm`, `embedded`, a checkpoint file, or `none` for random ones.
        model: Run directory of `finetune`, instead of arch and weights.
        layer: Name from the papers, such as `pool5`, several separated by commas, or `fc6` or `fc7`.
        pool: How a map becomes a vector: `gap` (SPoC), `max` (MAC), `gem`, `rmac`, `crow`; default: gem.
        scales: Factors on the side of the pictures, whose vectors are averaged, such as 1,0.7071,1.4142.
        whiten: Learn a whitening from these pictures, and keep so many dimensions.
        whitening: How: `pca`, or `learned` from pairs of pictures with the same label.
        image_size: Side of the square pictures the network sees, in pixels; default: 224, or that of the model.
        crop_fraction: Part of the short side that is kept; default: 0.875, for pictures below 96 pixels 1, or that of
            the model.
        kind: Of the FAISS index. `flat` compares with every picture and misses nothing; `hnsw`, `ivf` and `ivfpq`
            look at few; `auto` chooses by size, memory and wanted recall.
        recall: Share of the true 10 nearest neighbours that a search is to find, above 0 to 1; measured.
        max_memory: GiB that the FAISS index may take; default: half of what is free.
        store: Publish the collection in a database as well, `milvus+http://HOST:19530`, under the name of OUT, for
            searches from other machines; add, remove and sync then keep it up to date. MILVUS_TOKEN in the environment
            holds the token or `user:password`, if one is asked for.
        precision: Of the computation: `auto` uses bfloat16 where the hardware is good at it, else float32.
        batch_size: Pictures per pass through the network.
        workers: Processes that load pictures; default: chosen for the machine.
        device: `auto` takes a GPU if there is one, of several that of this process; or `cpu`, `cuda`, `cuda:1`, `mps`.

    Returns:
        What was done; None where other processes have pictures left to embed.

    Raises:
        VGGTransferError: An option, the folder or the pictures cannot be used; says which and what to do.
    """
    given = checked_values(index_build, {name: value for name, value in locals().items() if name != "scales"})
    data, out = given["data"], given["out"]
    from vggtransfer.features.processes import share_of_work
    from vggtransfer.retrieval.embedder import Embedder
    from vggtransfer.retrieval.image_index import ImageIndex, UnfinishedError
    from vggtransfer.retrieval.index_folder import check_new
    from vggtransfer.retrieval.publishing import check_free

    if share_of_work().processes == 1:
        check_new(out)
        if store is not None:
            check_free(out, store)
    embedder = Embedder(
        arch,
        model=given["model"],
        weights=weights,
        layer=layer,
        pool=pool,
        scales=scales if isinstance(scales, list) else [scales],
        image_size=image_size,
        crop_fraction=crop_fraction,
        precision=precision,
        device=device,
    )
    try:
        index = ImageIndex.build(
            data,
            out=out,
            embedder=embedder,
            whiten=whiten,
            whitening=whitening,
            kind=kind,
            recall=recall,
            max_memory=max_memory,
            batch_size=batch_size,
            workers=workers,
        )
    except UnfinishedError as unfinished:
        print(unfinished)
        return None
    print(f"wrote {out}: {len(index):,} pictures, {described(index.description)}")
    _warn_of_bad(index.bad_files, out)
    _publish(index, store)
    return IndexResult(out, len(index), None)


def index_add(
    index: Path,
    paths: list[str],
    *,
    label: str | None = None,
    weights: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
) -> IndexResult:
    """Adds pictures to an index; those that are in it already are embedded again only if they have changed.

    Args:
        index: Index directory.
        paths: Pictures, folders (with everything below them), patterns such as `photos/**/*.jpg`, or `-` for a list
            of these on standard input, one a line.
        label: Of all of them; default: their class folder, if they lie below the folder of the collection.
        weights: The encoder's weights or model, if they are not where they were.
        batch_size: Pictures per pass through the network.
        workers: Processes that load pictures; default: chosen for the machine.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        VGGTransferError: The index, an option or a path cannot be used.
    """
    opened = _opened(index, weights, device)
    return _told(opened, opened.add(paths, label=label, batch_size=batch_size, workers=workers))


def index_remove(index: Path, paths: list[str]) -> IndexResult:
    """Removes pictures from an index; the files themselves are not touched.

    Args:
        index: Index directory.
        paths: Pictures, or folders for everything below them; they need not exist any more.

    Raises:
        VGGTransferError: The index cannot be used, or has no such picture.
    """
    opened = _opened(index)
    removed = opened.remove(paths)
    print(f"removed {removed:,} pictures; {len(opened):,} are left")
    _publish(opened)
    return IndexResult(Path(index), len(opened), None)


def index_sync(
    index: Path,
    *,
    data: Path | None = None,
    store: str | None = None,
    weights: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
) -> IndexResult:
    """Brings an index up to date with its folder: new, changed, renamed and removed pictures.

    All files are read and compared by content. What the index knows, under whatever name, is not embedded again.

    Args:
        index: Index directory.
        data: Where the folder is now, if it was moved.
        store: Publish it in a database from now on; see `index build`.
        weights: The encoder's weights or model, if they are not where they were.
        batch_size: Pictures per pass through the network.
        workers: Processes that load pictures; default: chosen for the machine.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        VGGTransferError: The index, the folder or an option cannot be used.
    """
    opened = _opened(index, weights, device)
    return _told(opened, opened.sync(data, batch_size=batch_size, workers=workers), store)


def index_rebuild(
    index: Path,
    *,
    kind: KindName | None = None,
    recall: float | None = None,
    max_memory: float | None = None,
    whiten: int | None = None,
    whitening: WhiteningName = "pca",
    device: str = "auto",
) -> IndexResult:
    """Arranges the vectors of an index anew; nothing is embedded.

    Args:
        index: Index directory.
        kind: Of the FAISS index, see `index build`; default: as before.
        recall: Share of the true neighbours to find, above 0 to 1; default: as before.
        max_memory: GiB that the FAISS index may take; default: as before.
        whiten: Dimensions of a whitening to learn from the pictures there are now, 0 for none; default: as before.
        whitening: How it is learnt: `pca`, or `learned` from labels.
        device: With `cuda`, lists are made on the first GPU.

    Raises:
        VGGTransferError: The index or an option cannot be used.
    """
    opened = _opened(index, None, device)
    opened.rebuild(kind=kind, recall=recall, max_memory=max_memory, whiten=whiten, whitening=whitening)
    print(f"wrote {index}: {len(opened):,} pictures, {described(opened.description)}")
    _publish(opened)
    return IndexResult(Path(index), len(opened), None)


def described(description: Mapping[str, object]) -> str:
    """One line about how the vectors are arranged."""
    built = description["index"]
    assert isinstance(built, dict)
    shape = f"{built['dimension']} dimensions" + ("" if built["whitening"] is None else f" ({built['whitening']})")
    return f"{shape}, {built['factory']}" + (f" with recall {built['recall']:.1%}" if built["effort"] else "")


def _opened(index: Path, weights: str | None = None, device: str = "auto") -> ImageIndex:
    from vggtransfer.retrieval.image_index import ImageIndex

    return ImageIndex.open(index, weights=weights, device=device)


def _publish(index: ImageIndex, store: str | None = None) -> None:
    from vggtransfer.retrieval.publishing import follow

    if told := follow(index, store):
        print(told)


def _told(index: ImageIndex, change: IndexChange, store: str | None = None) -> IndexResult:
    if not change.finished:
        print("this process is done; the last one writes the index")
        return IndexResult(index.path, len(index), change)
    counts = {name: getattr(change, name) for name in ("added", "changed", "renamed", "removed", "unchanged")}
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    print(f"{index.path}: {told or 'nothing'}; {change.embedded:,} embedded; {len(index):,} pictures")
    _warn_of_bad(index.bad_files, index.path)
    _publish(index, store)
    return IndexResult(index.path, len(index), change)


def _warn_of_bad(bad: Mapping[str, str], index: Path) -> None:
    from vggtransfer.printable import printable

    for name, reason in list(bad.items())[:_BAD_SHOWN]:
        print(f"warning: {printable(name)}: {printable(reason)}", file=sys.stderr)
    if len(bad) > _BAD_SHOWN:
        print(f"warning: and {len(bad) - _BAD_SHOWN:,} more, see `vggtransfer index info {index}`", file=sys.stderr)
