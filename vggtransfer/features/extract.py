"""`vggtransfer extract`: the features of all pictures below a folder, as files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.features.encoder_choice import FeaturePrecision
from vggtransfer.features.extraction_options import check_options
from vggtransfer.features.layer_choice import feature_shapes, layer_names
from vggtransfer.features.pooling import PoolName
from vggtransfer.option_values import checked_values

if TYPE_CHECKING:
    import torch

    from vggtransfer.encoder.vgg import VGGEncoder
    from vggtransfer.features.encoder_choice import EncoderChoice, Trunk
    from vggtransfer.features.extraction_folder import ExtractionFolder
    from vggtransfer.features.extraction_plan import ExtractionPlan
    from vggtransfer.features.picture_list import PictureList


@dataclass(frozen=True)
class ExtractionResult:
    """What `extract` did.

    Attributes:
        out: The folder of the features.
        finished: Whether the final files are there; not so while other processes have parts left to do.
        shapes: Shape of the features of one picture, by layer.
        pictures: Pictures with features, over all processes; None until it is finished.
        bad_pictures: Pictures that cannot be read, listed in `bad_pictures.csv`; None until it is finished.
        parts_computed: Parts that this process computed now; those that were there before are not among them.
    """

    out: Path
    finished: bool
    shapes: Mapping[str, tuple[int, ...]]
    pictures: int | None
    bad_pictures: int | None
    parts_computed: int


def extract(
    data: Path,
    *,
    out: Path,
    layers: list[str] | str = "pool5",
    pool: PoolName = "gap",
    arch: ArchitectureName | None = None,
    weights: str = "default",
    model: Path | None = None,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    precision: FeaturePrecision = "auto",
    format: Literal["safetensors", "npz", "parquet", "memmap"] = "safetensors",  # noqa: A002
    store: Literal["fp32", "fp16"] = "fp32",
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    on_bad_image: Literal["skip", "stop"] = "skip",
) -> ExtractionResult:
    """Computes features of all pictures below a folder: any layers of any VGG, pooled or not.

    The pictures are worked off in parts of up to 512, each a file in `OUT/parts` until all are there. The same command
    goes on where it was stopped. Several GPUs or machines: `torchrun --nproc-per-node N -m vggtransfer extract ...`, or
    any other way to start it with RANK and WORLD_SIZE in the environment and `OUT` on a shared disk; the processes
    need not run at the same time. Whichever finds all parts there writes the final files.

    `OUT` then has the features, `items.csv` (row, path, SHA-256 and class folder of each picture), `bad_pictures.csv`,
    and `manifest.json` with all that is needed to do it again. `vggtransfer.load_features(OUT)` opens it.

    Args:
        data: Folder of pictures. Of `train|val|test/CLASS/*` and of `CLASS/*` the classes are the labels.
        out: Folder for the features; a new one, or one to go on with.
        layers: Names from the papers, such as `pool5,relu4_3`; nothing past the deepest of them is computed.
        pool: `gap` averages a map over all places, `max` takes the largest value, `gem` (p = 3) is between the two,
            `rmac` sums up maxima of regions, `crow` weighs places and channels; `none` keeps the map.
        arch: Architecture; default: vgg16.
        weights: `default`, `torchvision`, `timm`, `embedded`, a checkpoint file, a run directory, or `none` for
            random ones.
        model: Run directory of `finetune`, instead of arch and weights: its encoder, and pictures of its size.
        image_size: Side of the square pictures the network sees, in pixels; default: 224, or that of the model.
        crop_fraction: Part of the short side that is kept; default: 0.875, for pictures below 96 pixels 1, or that of
            the model.
        precision: Of the computation: `auto` uses bfloat16 where the hardware is good at it, else float32. `int8` is
            for CPUs; it is calibrated on 64 of the pictures, and what it costs is printed.
        format: One file: `safetensors`, `npz`, or `parquet` with a column per layer; or `memmap`: a `LAYER.npy` each.
        store: Type of the numbers in the files.
        batch_size: Pictures per pass through the network.
        workers: Processes that load pictures; default: chosen for the machine.
        device: `auto` takes a GPU if there is one, of several that of this process; or `cpu`, `cuda`, `cuda:1`, `mps`.
        on_bad_image: `skip` leaves unreadable pictures out and lists them; `stop` ends with the first one.

    Returns:
        What was done, and where.

    Raises:
        VGGTransferError: An option, the encoder or the pictures cannot be used; says which and what to do.
        KeyboardInterrupt: Ctrl-C; what is finished is kept.
    """
    given = checked_values(extract, {name: value for name, value in locals().items() if name != "layers"})
    given["layers"] = layer_names(layers)
    check_options(given)
    data, out = given["data"].expanduser(), given["out"].expanduser()
    from vggtransfer.data.folders import find_class_folders
    from vggtransfer.features.assembly import assemble
    from vggtransfer.features.encoder_choice import choose_device, choose_encoder, load_encoder, resolved_precision
    from vggtransfer.features.extraction_folder import ExtractionFolder, check_out
    from vggtransfer.features.extraction_run import compute_parts
    from vggtransfer.features.picture_list import list_folder
    from vggtransfer.features.processes import share_of_work
    from vggtransfer.progress_bar import ProgressBar

    check_out(out)
    share = share_of_work()
    chosen_device = choose_device(device, precision, local_rank=share.local_rank)
    given["precision"] = resolved_precision(precision, chosen_device)
    choice = choose_encoder(
        arch=arch, weights=weights, model=given["model"], image_size=image_size, crop_fraction=crop_fraction
    )
    shapes = feature_shapes(choice.arch, given["layers"], image_size=choice.image_size, pool=pool)
    classes = find_class_folders(data)
    encoder = load_encoder(choice.arch, choice.weights)
    pictures = list_folder(data)
    plan = _plan(given, encoder, choice, shapes, pictures)
    folder = ExtractionFolder(out, plan)

    missing = folder.begin(share, pictures, on_bad_image=on_bad_image)
    if missing:
        count = sum(len(plan.part_range(number)) for number in missing)
        title = f"extracting {', '.join(shapes)} in {plan.precision} on {chosen_device}"
        if not sys.stderr.isatty():
            print(f"{title}: {count:,} of {len(pictures):,} pictures", file=sys.stderr)
        trunk = _trunk(encoder, plan, pictures, batch_size=batch_size, device=chosen_device)
        with ProgressBar(title, steps=count, shown=share.local_rank == 0) as bar:
            compute_parts(
                missing,
                folder=folder,
                pictures=pictures,
                trunk=trunk,
                device=chosen_device,
                share=share,
                batch_size=batch_size,
                workers=workers,
                on_bad_image=on_bad_image,
                bar=bar,
            )
    finished = assemble(folder, pictures=pictures, classes=classes)
    result = _result(folder, finished=finished, parts_computed=len(missing))
    _report(result, folder)
    return result


def _plan(
    given: Mapping[str, Any],
    encoder: VGGEncoder,
    choice: EncoderChoice,
    shapes: Mapping[str, tuple[int, ...]],
    pictures: PictureList,
) -> ExtractionPlan:
    from vggtransfer.features.extraction_plan import ExtractionPlan

    assert encoder.digest is not None
    return ExtractionPlan(
        architecture=choice.arch,
        origin=encoder.origin,
        digest=encoder.digest,
        shapes=shapes,
        pool=given["pool"],
        image_size=choice.image_size,
        crop_fraction=choice.crop_fraction,
        mean=tuple(encoder.mean.flatten().tolist()),
        std=tuple(encoder.std.flatten().tolist()),
        precision=given["precision"],
        store=given["store"],
        file_format=given["format"],
        pictures=len(pictures),
        list_digest=pictures.digest,
    )


def _trunk(
    encoder: VGGEncoder, plan: ExtractionPlan, pictures: PictureList, *, batch_size: int, device: torch.device
) -> Trunk:
    if plan.precision == "int8":
        from vggtransfer.features.calibration import calibrated_trunk

        return calibrated_trunk(encoder, plan=plan, pictures=pictures, batch_size=batch_size)
    from vggtransfer.features.encoder_choice import compute_type
    from vggtransfer.features.frozen_trunk import FrozenTrunk

    return FrozenTrunk(encoder, tuple(plan.shapes), device=device, compute_type=compute_type(plan.precision))


def _result(folder: ExtractionFolder, *, finished: bool, parts_computed: int) -> ExtractionResult:
    manifest = folder.manifest() if finished else {}
    return ExtractionResult(
        out=folder.out,
        finished=finished,
        shapes=folder.plan.shapes,
        pictures=manifest.get("pictures"),
        bad_pictures=manifest.get("bad_pictures"),
        parts_computed=parts_computed,
    )


def _report(result: ExtractionResult, folder: ExtractionFolder) -> None:
    if not result.finished:
        there, all_parts = folder.parts_present(), folder.plan.parts
        print(f"this process is done; {there} of {all_parts} parts are there, and the last process writes the files")
        return
    if result.bad_pictures:
        print(
            f"warning: {result.bad_pictures} unreadable pictures left out, see {result.out / 'bad_pictures.csv'}",
            file=sys.stderr,
        )
    shown = ", ".join(f"{layer} {list(shape)}" for layer, shape in result.shapes.items())
    verb = "wrote" if result.parts_computed else "complete:"
    print(f"{verb} {result.out}: {result.pictures:,} pictures, {shown} in {folder.plan.store}")
