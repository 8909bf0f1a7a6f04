"""The report of a run: one HTML page with everything one wants to know about a model, and to show to others."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import vggtransfer
from vggtransfer.classification.metrics import Scores
from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.classification.report_pictures import judged_pictures
from vggtransfer.classification.report_scores import scores_content
from vggtransfer.classification.report_training import (
    trained_content,
    training_commands,
    training_content,
)
from vggtransfer.data.folders import Sample
from vggtransfer.encoder.precision import Precision
from vggtransfer.features.cached_stage import CachedStage
from vggtransfer.recipe_files import read_recipe
from vggtransfer.report.page import write_page
from vggtransfer.report.run_facts import bad_pictures_content, environment_content, readable
from vggtransfer.training.contract import FitOptions, Progress
from vggtransfer.training.run_directory import environment, read_environment

if TYPE_CHECKING:
    from vggtransfer.classification.evaluation import EvaluationResult

REPORT_FILE = "report.html"
_PACKAGE = "vggtransfer.classification"


def write_training_report(
    run: Path,
    *,
    model: VGGClassifier,
    pictures: LabelledPictures,
    samples: Sequence[Sample],
    probabilities: Tensor,
    scores: Scores,
    progress: Progress,
    options: FitOptions,
    precision: Precision,
    stage: CachedStage | None = None,
) -> Path:
    """Writes `RUN/report.html` and returns its path.

    Args:
        run: Run directory with `recipe.yaml` and `environment.json`.
        model: The best model, on its device; left as it is.
        pictures: All pictures of the run.
        samples: The validation pictures scored.
        probabilities: float [len(samples), classes].
        scores: Of them.
        progress: How the training went.
        options: How it was asked to go.
        precision: Of the computation of heat maps.
        stage: Where the maps of the samples are, behind the frozen part of the model; None computes from pixels.

    Raises:
        OSError: The file cannot be written.
    """
    count = Counter(sample.label for sample in pictures.train)
    recipe = read_recipe(run / "recipe.yaml")
    starts = read_environment(run)
    content = {
        "kind": "training",
        "name": pictures.root.resolve().name,
        "place": run,
        "folder": pictures.root,
        "split": "validation",
        "classes": pictures.classes,
        "training": training_content(model, pictures, progress, options, recipe=recipe),
        "evaluation": None,
        "warnings": pictures.warnings,
        "commands": training_commands(run, pictures.root),
        "seed": recipe["seed"],
        **bad_pictures_content(pictures.bad, pictures.root),
        **environment_content(starts),
    }
    return _write(
        run / REPORT_FILE,
        content,
        model=model,
        samples=samples,
        probabilities=probabilities,
        scores=scores,
        root=pictures.root,
        precision=precision,
        stage=stage,
        training_counts=[count[label] for label in range(len(pictures.classes))],
    )


def write_evaluation_report(
    out: Path,
    *,
    result: EvaluationResult,
    model: VGGClassifier,
    samples: Sequence[Sample],
    probabilities: Tensor,
    precision: Precision,
    command: Sequence[str],
) -> Path:
    """Writes `OUT/report.html` and returns its path.

    Args:
        out: Folder.
        result: What `evaluate` measured.
        model: The model, on its device; left as it is.
        samples: The pictures scored.
        probabilities: float [len(samples), classes].
        precision: Of the computation of heat maps.
        command: Words of the command that measures the same.

    Raises:
        OSError: The file cannot be written.
    """
    warnings = []
    if result.trained_on:
        warnings.append(
            f"{result.trained_on:,} of {len(samples):,} pictures were in the training set of this model; its scores on "
            "them say nothing about new pictures."
        )
    content = {
        "kind": "evaluation",
        "name": result.data.resolve().name,
        "place": result.model,
        "folder": result.folder,
        "split": {"train": "training", "val": "validation", "test": "test"}.get(result.folder.name, ""),
        "classes": model.task.classes,
        "training": None,
        "evaluation": {
            "architecture": model.encoder.architecture.name,
            "origin": model.encoder.origin,
            "head": model.task.head,
            "image_size": model.task.image_size,
            "views": result.tta,
            "trained_on": result.trained_on,
            "trained": trained_content(result.model),
        },
        "warnings": warnings,
        "commands": [("The same measurement again:", shlex.join(command))],
        "seed": None,
        **bad_pictures_content(result.bad, result.data),
        **environment_content([environment(device=next(model.parameters()).device, processes=1)]),
    }
    return _write(
        out / REPORT_FILE,
        content,
        model=model,
        samples=samples,
        probabilities=probabilities,
        scores=result.scores,
        root=result.data,
        precision=precision,
    )


def _write(
    path: Path,
    content: Mapping[str, object],
    *,
    model: VGGClassifier,
    samples: Sequence[Sample],
    probabilities: Tensor,
    scores: Scores,
    root: Path,
    precision: Precision,
    stage: CachedStage | None = None,
    training_counts: Sequence[int] | None = None,
) -> Path:
    labels = torch.tensor([sample.label for sample in samples])
    pictures = judged_pictures(model, samples, probabilities, scores, root=root, precision=precision, stage=stage)
    page = {
        **content,
        **scores_content(scores, probabilities, labels, training_counts=training_counts),
        "judged": pictures,
        "version": vggtransfer.__version__,
        "written": readable(datetime.now(UTC).isoformat()),
    }
    write_page(path, "report.html", page, package=_PACKAGE)
    return path
