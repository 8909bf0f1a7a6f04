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
    from vggtransfer.perceptual.content import PerceptualLoss as PerceptualLoss
    from vggtransfer.perceptual.contextual import ContextualLoss as ContextualLoss
    from vggtransfer.perceptual.distortion_ranking import DistortionRanking as DistortionRanking
    from vggtransfer.perceptual.distortion_ranking import rank_distortions as rank_distortions
    from vggtransfer.perceptual.dists import DISTS as DISTS
    from vggtransfer.perceptual.lpips import LPIPS as LPIPS
    from vggtransfer.perceptual.measure_evaluation import MeasureEvaluation as MeasureEvaluation
    from vggtransfer.perceptual.measure_evaluation import evaluate_measures as evaluate_measures
    from vggtransfer.perceptual.similarity import similarity as similarity
    from vggtransfer.perceptual.similarity_result import SimilarityResult as SimilarityResult
    from vggtransfer.perceptual.style import StyleLoss as StyleLoss
    from vggtransfer.perceptual.stylize import StylizeResult as StylizeResult
    from vggtransfer.perceptual.stylize import stylize as stylize
    from vggtransfer.perceptual.suite import PerceptualSuite as PerceptualSuite
    from vggtransfer.perceptual.superresolve import SuperresolveResult as SuperresolveResult
    from vggtransfer.perceptual.superresolve import superresolve as superresolve
    from vggtransfer.perceptual.superresolve_predict import EnlargementResult as EnlargementResult
    from vggtransfer.perceptual.superresolve_predict import superresolve_predict as superresolve_predict
    from vggtransfer.perceptual.total_variation import TotalVariation as TotalVariation
    from vggtransfer.retrieval.image_index import ImageIndex as ImageIndex
    from vggtransfer.segmentation.deeplab import VGGDeepLab as VGGDeepLab
    from vggtransfer.segmentation.evaluation import SegmentEvaluationResult as SegmentEvaluationResult
    from vggtransfer.segmentation.evaluation import segment_evaluate as segment_evaluate
    from vggtransfer.segmentation.fcn import VGGFCN as VGGFCN
    from vggtransfer.segmentation.model import load_segmenter as load_segmenter
    from vggtransfer.segmentation.prediction import SegmentPredictionResult as SegmentPredictionResult
    from vggtransfer.segmentation.prediction import segment_predict as segment_predict
    from vggtransfer.segmentation.recipe import segment as segment
    from vggtransfer.segmentation.run import SegmentResult as SegmentResult
    from vggtransfer.segmentation.unet import VGGUNet as VGGUNet

__version__ = "0.1.0"

_HOME = {
    "ComparisonResult": "comparison.command",
    "ContextualLoss": "perceptual.contextual",
    "DISTS": "perceptual.dists",
    "DistortionRanking": "perceptual.distortion_ranking",
    "EnlargementResult": "perceptual.superresolve_predict",
    "EvaluationResult": "classification.evaluation",
    "ExplanationResult": "classification.explanation",
    "ExtractionResult": "features.extract",
    "FeatureSet": "features.feature_set",
    "FinetuneResult": "classification.recipe",
    "LPIPS": "perceptual.lpips",
    "MeasureEvaluation": "perceptual.measure_evaluation",
    "PerceptualLoss": "perceptual.content",
    "PerceptualSuite": "perceptual.suite",
    "ImageIndex": "retrieval.image_index",
    "PredictionResult": "classification.prediction",
    "SegmentEvaluationResult": "segmentation.evaluation",
    "SegmentPredictionResult": "segmentation.prediction",
    "SegmentResult": "segmentation.run",
    "SimilarityResult": "perceptual.similarity_result",
    "StyleLoss": "perceptual.style",
    "StylizeResult": "perceptual.stylize",
    "SuperresolveResult": "perceptual.superresolve",
    "TotalVariation": "perceptual.total_variation",
    "VGGClassifier": "classification.model",
    "VGGDeepLab": "segmentation.deeplab",
    "VGGEncoder": "encoder.vgg",
    "VGGFCN": "segmentation.fcn",
    "VGGFeatures": "features.transformer",
    "VGGTransferError": "errors",
    "VGGUNet": "segmentation.unet",
    "compare": "comparison.command",
    "evaluate": "classification.evaluation",
    "evaluate_measures": "perceptual.measure_evaluation",
    "explain": "classification.explanation",
    "extract": "features.extract",
    "finetune": "classification.recipe",
    "inspect": "encoder.inspection",
    "load_classifier": "classification.model",
    "load_features": "features.feature_set",
    "load_segmenter": "segmentation.model",
    "predict": "classification.prediction",
    "segment": "segmentation.recipe",
    "segment_evaluate": "segmentation.evaluation",
    "segment_predict": "segmentation.prediction",
    "rank_distortions": "perceptual.distortion_ranking",
    "similarity": "perceptual.similarity",
    "stylize": "perceptual.stylize",
    "superresolve": "perceptual.superresolve",
    "superresolve_predict": "perceptual.superresolve_predict",
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
