"""`vggtransfer weights list | fetch | convert | path`: what there is, get it, bring your own, find it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.cache import cache_folder
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, ArchitectureName
from vggtransfer.encoder.model_cards import read_card
from vggtransfer.encoder.weight_sources import SourceName, WeightSource, classifier_path, find_source, sources_of
from vggtransfer.errors import OptionError, WeightsError

if TYPE_CHECKING:
    from vggtransfer.encoder.weight_files import LoadedWeights


@dataclass(frozen=True)
class KnownWeights:
    """One named source of one architecture.

    `bytes` are those of the files that are there, 0 if there are none; `card` is the model card of embedded weights.
    """

    architecture: str
    source: str
    default: bool
    cached: bool
    classifier_cached: bool
    path: Path
    bytes: int
    sha256: str
    url: str
    card: Mapping[str, str]


@dataclass(frozen=True)
class WeightsList:
    """What `weights list` shows: all named sources, and the architectures that have none."""

    cache: Path
    weights: tuple[KnownWeights, ...]
    without_weights: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self), default=str))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class WeightsFile:
    """A trunk file of our own, and the file of its fully connected layers if there is one."""

    architecture: str
    path: Path
    classifier_path: Path | None
    bytes: int
    layout: str
    preprocessing: str
    origin: str
    digest: str


def list_weights(*, format: Literal["table", "json"] = "table") -> WeightsList:  # noqa: A002
    """Lists the known pretrained weights: what can be named in --weights, and what is in the cache already.

    Args:
        format: A table for people, or one JSON object.
    """
    if format not in ("table", "json"):
        raise OptionError(f"format={format} is not possible: use table or json")
    known = tuple(_known(source) for arch in ARCHITECTURE_NAMES for source in sources_of(arch))
    without = tuple(arch for arch in ARCHITECTURE_NAMES if not sources_of(arch))
    result = WeightsList(cache_folder() / "weights", known, without)
    if format == "json":
        print(json.dumps(result.as_dict(), indent=2))
    else:
        _print_table(result)
    return result


def fetch_weights(
    arch: ArchitectureName, *, source: Literal["default", SourceName] = "default", classifier: bool = False
) -> WeightsFile:
    """Downloads and verifies weights, so that everything afterwards works without network.

    Only the convolutional trunk is kept, unless the classifier is asked for as well.

    Args:
        arch: The architecture.
        source: Where from: torchvision, timm, embedded, or the architecture's default.
        classifier: Also keep the fully connected layers fc6 to fc8, in a second file (for vgg16 495 MB).
    """
    from vggtransfer.encoder.weights import fetch

    chosen = find_source(arch, source)
    loaded = fetch(chosen, classifier=classifier)
    result = _weights_file(chosen.path, loaded)
    _print_file(result)
    return result


def convert_weights(
    source: Path,
    *,
    out: Path,
    arch: ArchitectureName | None = None,
    layout: Literal["auto", "torchvision", "timm", "keras", "caffe"] = "auto",
    preprocessing: Literal["auto", "torchvision", "caffe", "none"] = "auto",
    classifier: bool = False,
    half: bool = False,
    origin: str | None = None,
) -> WeightsFile:
    """Converts a checkpoint of torchvision, timm, Keras, Caffe's ports or a run to one file for --weights.

    Args:
        source: The file (.safetensors, .pth, .h5, .weights.h5, .keras) or run directory.
        out: The .safetensors file to write; an existing one is replaced.
        arch: The architecture; told from the shapes if not given.
        layout: Whose key names the file has; found out by default. "caffe" also says that the network was trained on
            BGR pictures in 0-255.
        preprocessing: What the network was trained on. "torchvision": RGB with ImageNet's mean and standard deviation;
            "caffe": 0-255 minus the mean, BGR; "none": RGB in [0, 1]. By default found out from the file.
        classifier: Also convert the fully connected layers fc6 to fc8, into a second file beside the first.
        half: Keep the weights of the layers in float16, for half the size.
        origin: Where the weights come from, in one line that everything that uses them will show; by default the path
            of the file and what it says itself.
    """
    from vggtransfer.encoder.weight_files import find_file, in_half_precision, read_weights, save_weights

    path = find_file(source)
    if out.suffix != ".safetensors":
        raise OptionError(f"out={out} must end with .safetensors")
    if out.exists() and out.samefile(path):
        raise OptionError(f"out={out} is the file to convert; give another name")
    loaded = read_weights(path, arch, classifier=classifier, layout=layout, preprocessing=preprocessing)
    if half:
        loaded = in_half_precision(loaded)
    if origin is not None:
        loaded = replace(loaded, origin=origin)
    save_weights(out, loaded)
    if not classifier:
        # Left from an earlier conversion into the same file, it would belong to other weights.
        classifier_path(out).unlink(missing_ok=True)
    result = _weights_file(out, loaded)
    _print_file(result)
    return result


def weights_path(arch: ArchitectureName, *, source: Literal["default", SourceName] = "default") -> KnownWeights:
    """Prints where fetched weights are kept.

    Args:
        arch: The architecture.
        source: Which ones: torchvision, timm, embedded, or the architecture's default.
    """
    known = _known(find_source(arch, source))
    if not known.cached:
        raise WeightsError(
            f"{known.source} weights of {arch} are not there yet (looked for {known.path}); "
            f"get them with: vggtransfer weights fetch {arch} --source {known.source}"
        )
    print(known.path)
    return known


def _known(source: WeightSource) -> KnownWeights:
    both = (source.path, classifier_path(source.path))
    return KnownWeights(
        architecture=source.architecture,
        source=source.name,
        default=sources_of(source.architecture)[0] == source,
        cached=both[0].exists(),
        classifier_cached=both[1].exists(),
        path=source.path,
        bytes=sum(path.stat().st_size for path in both if path.exists()),
        sha256=source.sha256,
        url=source.url,
        card=read_card(source.path) if source.name == "embedded" else {},
    )


def _weights_file(path: Path, loaded: LoadedWeights) -> WeightsFile:
    both = [file for file in (path, classifier_path(path)) if file.exists()]
    return WeightsFile(
        architecture=loaded.architecture,
        path=path,
        classifier_path=classifier_path(path) if loaded.classifier else None,
        bytes=sum(file.stat().st_size for file in both),
        layout=loaded.layout,
        preprocessing=loaded.preprocessing,
        origin=loaded.origin,
        digest=loaded.digest,
    )


def _print_file(file: WeightsFile) -> None:
    print(f"{file.architecture} from {file.origin}")
    print(f"  pictures as    {file.preprocessing}")
    print(f"  digest         {file.digest}")
    print(f"  trunk          {file.path}")
    if file.classifier_path is not None:
        print(f"  classifier     {file.classifier_path}")
    print(f"  size           {file.bytes / 1e6:.1f} MB")


def _print_table(known: WeightsList) -> None:
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("architecture", "source", "on disk", "SHA-256", "path or address"):
        table.add_column(column, no_wrap=True)
    for row in known.weights:
        parts = "trunk + classifier" if row.classifier_cached else "trunk"
        table.add_row(
            row.architecture,
            f"{row.source}{' (default)' if row.default else ''}",
            f"{parts}, {row.bytes / 1e6:.3g} MB" if row.cached else "-",
            row.sha256[:16] or "-",
            str(row.path) if row.cached else row.url,
        )
    console = Console(file=sys.stdout, highlight=False, markup=False)
    # Neither a pipe nor a narrow terminal may cut addresses off.
    wide = console.options.update(max_width=1000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
    console.print(f"cache: {known.cache}", soft_wrap=True)
    for row in known.weights:
        if row.card:
            console.print(f"\nmodel card of {row.architecture}, {row.source}:")
            for heading, text in row.card.items():
                console.print(Padding(f"{heading}: {text}", (0, 0, 0, 2)))
    if known.without_weights:
        console.print(f"without published weights: {', '.join(known.without_weights)} (use --weights none or a file)")
