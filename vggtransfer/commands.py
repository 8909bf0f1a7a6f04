"""The list of commands: each is one plain function, imported only when its command is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """One line of the list of commands.

    Args:
        name: As it is typed; may have two words.
        function: `module:function`; importing the module must stay quick, so it imports torch only inside functions.
        summary: One line for `vggtransfer --help`.
        positionals: Parameters given by position instead of `--name`; only the last one may be a list.
        sections: Titles of sections of the help by the first option in each.
        resume: `module:function` that takes the place of the command when `--resume RUN` is given; it gets RUN and only
            those options that were typed, for what was not typed comes from the run.
    """

    name: str
    function: str
    summary: str
    positionals: tuple[str, ...] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    resume: str | None = None

    def load(self) -> Callable[..., object]:
        """Imports the function."""
        return imported(self.function)


def imported(place: str) -> Callable[..., object]:
    """Imports what `module:name` names."""
    module, _, name = place.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    return function


_CLASSIFICATION = "vggtransfer.classification"
_SEGMENTATION = "vggtransfer.segmentation"
_PERCEPTUAL = "vggtransfer.perceptual"
_RETRIEVAL = "vggtransfer.retrieval"
_WEIGHTS = "vggtransfer.encoder.weights_commands"

COMMANDS = (
    Command("demo", f"{_CLASSIFICATION}.demo:demo", "Show the main job in minutes, without any download."),
    Command(
        "finetune",
        f"{_CLASSIFICATION}.recipe:finetune",
        "Train a classifier on a folder of pictures.",
        sections={
            "data": "Data",
            "arch": "Model",
            "image_size": "Pictures",
            "epochs": "Optimisation",
            "label_smoothing": "Regularisation and balance",
            "precision": "Machine",
            "seed": "Run",
        },
        resume=f"{_CLASSIFICATION}.resuming:resume_finetune",
    ),
    Command(
        "compare",
        "vggtransfer.comparison.command:compare",
        "Train several networks alike and set them side by side.",
        sections={
            "data": "Networks",
            "image_size": "Pictures",
            "epochs": "Optimisation",
            "precision": "Machine",
            "seed": "Run",
        },
        resume="vggtransfer.comparison.command:resume_compare",
    ),
    Command("evaluate", f"{_CLASSIFICATION}.evaluation:evaluate", "Measure a classifier on labelled pictures."),
    Command("predict", f"{_CLASSIFICATION}.prediction:predict", "Classify pictures.", positionals=("paths",)),
    Command(
        "explain",
        f"{_CLASSIFICATION}.explanation:explain",
        "Show where in pictures a classifier looks.",
        positionals=("paths",),
    ),
    Command(
        "segment",
        f"{_SEGMENTATION}.recipe:segment",
        "Train a network that paints masks.",
        sections={
            "data": "Data",
            "arch": "Model",
            "classes": "Masks",
            "image_size": "Pictures",
            "loss": "Loss",
            "epochs": "Optimisation",
            "precision": "Machine",
            "seed": "Run",
        },
        resume=f"{_SEGMENTATION}.run:resume_segment",
    ),
    Command(
        "segment-evaluate", f"{_SEGMENTATION}.evaluation:segment_evaluate", "Measure painted masks against true ones."
    ),
    Command(
        "segment-predict",
        f"{_SEGMENTATION}.prediction:segment_predict",
        "Paint masks for pictures.",
        positionals=("paths",),
    ),
    Command(
        "extract",
        "vggtransfer.features.extract:extract",
        "Write the features of a folder of pictures to files.",
        sections={
            "data": "Features",
            "arch": "Encoder and pictures",
            "format": "Files",
            "batch_size": "Machine",
        },
    ),
    Command(
        "similarity evaluate",
        f"{_PERCEPTUAL}.measure_evaluation:evaluate_measures",
        "Tell how well measures of similarity agree with people.",
        positionals=("data",),
    ),
    Command(
        "similarity distortions",
        f"{_PERCEPTUAL}.distortion_ranking:rank_distortions",
        "Tell how well measures of similarity rank known distortions.",
        positionals=("data",),
    ),
    Command("similarity", f"{_PERCEPTUAL}.similarity:similarity", "Tell how different pictures look.", ("a", "b")),
    Command(
        "stylize",
        f"{_PERCEPTUAL}.stylize:stylize",
        "Paint a picture in the style of another.",
        sections={
            "content": "Pictures",
            "size": "Result",
            "content_weight": "Content and style",
            "iterations": "Painting one picture",
            "epochs": "Training a network",
            "device": "Machine and run",
        },
        resume=f"{_PERCEPTUAL}.stylize:resume_stylize",
    ),
    Command(
        "superresolve",
        f"{_PERCEPTUAL}.superresolve:superresolve",
        "Train a network that makes pictures larger.",
        sections={
            "data": "Pictures and network",
            "perceptual_weight": "Loss",
            "epochs": "Optimisation",
            "precision": "Machine and run",
        },
        resume=f"{_PERCEPTUAL}.superresolve:resume_superresolve",
    ),
    Command(
        "superresolve-predict",
        f"{_PERCEPTUAL}.superresolve_predict:superresolve_predict",
        "Make pictures larger.",
        positionals=("paths",),
    ),
    Command(
        "inspect", "vggtransfer.encoder.inspection:inspect", "Show a network layer by layer.", positionals=("arch",)
    ),
    Command("weights list", f"{_WEIGHTS}:list_weights", "List the known pretrained weights."),
    Command("weights fetch", f"{_WEIGHTS}:fetch_weights", "Download and verify weights.", positionals=("arch",)),
    Command("weights convert", f"{_WEIGHTS}:convert_weights", "Convert a checkpoint.", positionals=("source",)),
    Command("weights path", f"{_WEIGHTS}:weights_path", "Print where weights are kept.", positionals=("arch",)),
    Command(
        "index build",
        f"{_RETRIEVAL}.recipe:index_build",
        "Make a folder of pictures searchable by picture.",
        sections={"data": "Collection", "arch": "Embedding", "kind": "Index", "precision": "Machine"},
    ),
    Command("index add", f"{_RETRIEVAL}.recipe:index_add", "Add pictures.", positionals=("index", "paths")),
    Command("index remove", f"{_RETRIEVAL}.recipe:index_remove", "Remove pictures.", positionals=("index", "paths")),
    Command(
        "index sync",
        f"{_RETRIEVAL}.recipe:index_sync",
        "Bring an index up to date with its folder.",
        positionals=("index",),
    ),
    Command(
        "index rebuild",
        f"{_RETRIEVAL}.recipe:index_rebuild",
        "Arrange an index anew, without embedding.",
        positionals=("index",),
    ),
    Command("index info", f"{_RETRIEVAL}.inspection:index_info", "Show what an index holds.", positionals=("index",)),
    Command("index verify", f"{_RETRIEVAL}.inspection:index_verify", "Check an index.", positionals=("index",)),
    Command(
        "index evaluate",
        f"{_RETRIEVAL}.measuring:index_evaluate",
        "Measure recall, and precision by label or ground truth.",
        positionals=("index",),
    ),
    Command(
        "index duplicates",
        f"{_RETRIEVAL}.inspection:index_duplicates",
        "Find pictures that are there twice.",
        positionals=("index",),
    ),
    Command(
        "search",
        f"{_RETRIEVAL}.search_command:search",
        "Find the nearest pictures of a collection.",
        positionals=("index", "queries"),
    ),
    Command(
        "browse",
        "vggtransfer.retrieval.browse.command:browse",
        "Look through a collection in the browser.",
        positionals=("index",),
    ),
    Command("doctor", "vggtransfer.doctor.command:doctor", "Say what is installed, and what to type to mend it."),
)
