"""A classifier run over pictures: probabilities, in the order of the samples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.views import TTA, square_side, views
from vggtransfer.data.dataset import PictureDataset, PicturesOrFaults, divide_faults
from vggtransfer.data.folders import Sample
from vggtransfer.data.loader import Batches, network_input, ordered_batches, picture_loader, resolve_workers
from vggtransfer.data.picture_files import list_pictures
from vggtransfer.data.scan import BadPicture
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.encoder.precision import Precision, autocast, prefers_channels_last, resolve_precision
from vggtransfer.errors import BadImageError, DataError, OptionError, WeightsError
from vggtransfer.features.cached_stage import CachedStage
from vggtransfer.features.evaluation_mode import evaluation_mode
from vggtransfer.printable import printable


def check_scoring_options(*, batch_size: int, workers: int | None, tta: str) -> None:
    """Refuses values that `score_pictures` cannot use; for commands, before they read thousands of pictures.

    Raises:
        OptionError: A value out of range.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size={batch_size} is not possible: it must be at least 1")
    if workers is not None and workers < 0:
        raise OptionError(f"workers={workers} is not possible: it must be at least 0 (0 reads in this process)")
    if tta not in get_args(TTA):
        raise OptionError(f"tta={tta} is not possible: use {', '.join(get_args(TTA))}")


def score_pictures(
    model: VGGClassifier,
    samples: Sequence[Sample],
    *,
    batch_size: int = 64,
    precision: Precision = "auto",
    workers: int | None = None,
    tta: TTA = "none",
    progress: str | None = None,
    on_bad: Callable[[BadPicture], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes class probabilities, on the device that holds the model; leaves its mode as it was.

    Softmax is in float32 whatever the precision. With test-time augmentation the probabilities of the views are
    averaged, not their logits.

    Args:
        model: Fine-tuned classifier.
        samples: Pictures with the labels to return.
        batch_size: Pictures per batch; views are batches of their own, so memory does not grow with them.
        precision: See `vggtransfer.encoder.precision.resolve_precision`.
        workers: Processes that read pictures; None chooses.
        tta: See `vggtransfer.classification.views.TTA`.
        progress: Text beside a progress bar on a terminal's standard error; None shows no bar.
        on_bad: Called with each picture that cannot be read, in order; their rows are left out. None raises an error.

    Returns:
        Probabilities float32 [pictures, classes] and labels int64 [pictures], on the CPU, in the order of `samples`.

    Raises:
        BadImageError: A picture that cannot be read, without `on_bad`.
        OptionError: A precision that overflows in this model.
        WeightsError: A model that gives NaN in float32.
    """
    task = model.task
    device = next(model.parameters()).device
    compute_type = resolve_precision(precision, device)
    channels_last = prefers_channels_last(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    side = square_side(tta, image_size=task.image_size, crop_fraction=task.crop_fraction)
    crop_fraction = task.crop_fraction if side == task.image_size else 1.0
    batches = Batches(ordered_batches(len(samples), batch_size))
    if workers is None and len(batches) <= 1:
        workers = 0  # reading one batch overlaps with nothing
    pictures = PictureDataset(samples, evaluation_transform(side, crop_fraction=crop_fraction), seed=0)

    probabilities = [torch.empty(0, len(task.classes))]
    labels = [torch.empty(0, dtype=torch.int64)]
    with torch.inference_mode(), evaluation_mode(model), autocast(device, compute_type), _bar(progress) as bar:
        row = bar.add_task(progress or "", total=len(samples))
        # The loader has no name, because the traceback of an error would keep it, and with it the processes that read.
        for good, bad in picture_loader(
            PicturesOrFaults(pictures),
            batches,
            workers=resolve_workers(workers, device=device),
            pin_memory=device.type == "cuda",
            collate=divide_faults,
        ):
            for picture in bad:
                if on_bad is None:
                    raise BadImageError(f"{picture.path}: {picture.reason}")
                on_bad(picture)
            bar.advance(row, len(bad))
            if good is None:
                continue
            images = network_input(good[0], device, channels_last=channels_last)
            scored = [model(view).float().softmax(dim=1) for view in views(images, tta, image_size=task.image_size)]
            probabilities.append(torch.stack(scored).mean(dim=0).cpu())
            labels.append(good[1])
            bar.advance(row, len(images))
    scores = torch.cat(probabilities)
    _check_finite(scores, compute_type)
    return scores, torch.cat(labels)


def score_maps(model: VGGClassifier, stage: CachedStage, *, batch_size: int, precision: Precision) -> Tensor:
    """Computes what `score_pictures` does of the validation pictures of a stage, from their maps.

    Args:
        model: A classifier that the stage fits, on its device; left as it is.
        stage: Where the maps are.
        batch_size: Pictures per batch.
        precision: See `score_pictures`.

    Returns:
        Probabilities float32 [pictures, classes], on the CPU, in the order of the stage.

    Raises:
        OptionError: A precision that overflows in this model.
        WeightsError: A model that gives NaN in float32.
    """
    device = next(model.parameters()).device
    compute_type = resolve_precision(precision, device)
    batches = ordered_batches(len(stage.validation), batch_size)
    with torch.inference_mode(), evaluation_mode(model), autocast(device, compute_type):
        rest = stage.rest_of(model)
        scored = [
            rest(network_input(maps, device, channels_last=prefers_channels_last(device))).float().softmax(dim=1).cpu()
            for maps, _, _ in stage.validation_batches(batches)
        ]
    scores = torch.cat(scored)
    _check_finite(scores, compute_type)
    return scores


def score_files(
    model: VGGClassifier,
    paths: Sequence[str | Path] | str | Path,
    *,
    on_bad_image: Literal["skip", "stop"],
    batch_size: int,
    precision: Precision,
    workers: int | None,
    tta: TTA = "none",
    progress: str,
) -> tuple[list[Path], Tensor, tuple[BadPicture, ...]]:
    """Scores the pictures a user named: files, folders, patterns, or `-` for a list on standard input.

    Args:
        model: See `score_pictures`, as for the other options.
        paths: See `vggtransfer.data.picture_files.list_pictures`.
        on_bad_image: `skip` names unreadable pictures on standard error and leaves them out, `stop` ends with the
            first one.
        batch_size: Pictures per batch.
        precision: Of the computation.
        workers: Processes that read pictures; None chooses.
        tta: Test-time augmentation.
        progress: Text beside the progress bar.

    Returns:
        The files that can be read, their probabilities float32 [pictures, classes], and the other files.

    Raises:
        DataError: A path leads nowhere, no picture at all can be read, or one cannot where those shall stop.
    """
    # A single path given from Python would otherwise be read letter by letter.
    pictures = list_pictures([paths] if isinstance(paths, str | Path) else paths)
    bad: dict[Path, BadPicture] = {}

    def leave_out(picture: BadPicture) -> None:
        if on_bad_image == "stop":
            raise picture.stop()
        print(f"warning: left out {printable(picture.path)}: {printable(picture.reason)}", file=sys.stderr)
        bad[picture.path] = picture

    probabilities, _ = score_pictures(
        model,
        [Sample(path, label=0) for path in pictures],
        batch_size=batch_size,
        precision=precision,
        workers=workers,
        tta=tta,
        progress=progress,
        on_bad=leave_out,
    )
    read = [path for path in pictures if path not in bad]
    if not read:
        first = bad[pictures[0]]
        raise DataError(f"none of {len(pictures)} pictures can be read, the first: {first.path}: {first.reason}")
    return read, probabilities, tuple(bad.values())


def _bar(progress: str | None) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=progress is None or not sys.stderr.isatty(),
    )


def _check_finite(probabilities: Tensor, compute_type: torch.dtype) -> None:
    bad = int((~probabilities.isfinite()).any(dim=1).sum())
    if bad == 0:
        return
    found = f"{bad} of {len(probabilities)} pictures got NaN instead of probabilities"
    if compute_type == torch.float32:
        raise WeightsError(f"{found}: the model's weights are damaged; train it again")
    raise OptionError(f"{found} in {str(compute_type).removeprefix('torch.')}; use precision=fp32")
