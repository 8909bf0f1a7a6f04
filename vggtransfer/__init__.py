"""Transfer learning and feature extraction with VGG networks.

Public names are imported on first use: `import vggtransfer` alone loads neither torch nor anything else heavy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggtransfer.classification.evaluation import EvaluationResult as EvaluationResult
    from vggtransfer.classification.evaluation import evaluate as evaluate
    from vggtransfer.classification.explanation import ExplanationResult as ExplanationResult
    from vggtransfer.classification.explanation import explain as explain
    from vggtransfer.classification.model import VGGClassifier as VGGClassifier
    from vggtransfer.classification.model import load_classifier as load_classifier
    from vggtransfer.classification.prediction import PredictionResult as PredictionResult
    from vggtransfer.classification.prediction import predict as predict
    from vggtransfer.classification.recipe import FinetuneResult as FinetuneResult
    from vggtransfer.classification.recipe import finetune as finetune
    from vggtransfer.comparison.command import ComparisonResult as ComparisonResult
    from vggtransfer.comparison.command import compare as compare
    from vggtransfer.encoder.inspection import inspect as inspect
    from vggtransfer.encoder.vgg import VGGEncoder as VGGEncoder
    from vggtransfer.errors import VGGTransferError as VGGTransferError
    from vggtransfer.features.extract import ExtractionResult as ExtractionResult
    from vggtransfer.features.extract import extract as extract
    from vggtransfer.features.feature_set import FeatureSet as FeatureSet
    from vggtransfer.features.feature_set import load_features as load_features
    from vggtransfer.features.transformer import VGGFeatures as VGGFeatures
    from vggtransfer.retrieval.image_index import ImageIndex as ImageIndex

__version__ = "0.1.0"

_HOME = {
    "ComparisonResult": "comparison.command",
    "EvaluationResult": "classification.evaluation",
    "ExplanationResult": "classification.explanation",
    "ExtractionResult": "features.extract",
    "FeatureSet": "features.feature_set",
    "FinetuneResult": "classification.recipe",
    "ImageIndex": "retrieval.image_index",
    "PredictionResult": "classification.prediction",
    "VGGClassifier": "classification.model",
    "VGGEncoder": "encoder.vgg",
    "VGGFeatures": "features.transformer",
    "VGGTransferError": "errors",
    "compare": "comparison.command",
    "evaluate": "classification.evaluation",
    "explain": "classification.explanation",
    "extract": "features.extract",
    "finetune": "classification.recipe",
    "inspect": "encoder.inspection",
    "load_classifier": "classification.model",
    "load_features": "features.feature_set",
    "predict": "classification.prediction",
}

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604  (the names are strings)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vggtransfer' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"vggtransfer.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
