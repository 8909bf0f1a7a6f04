"""Cross-entropy with the usual refinements, as the training loop wants it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.classification.cosine import with_margin
from vggtransfer.training.contract import Measure


class ClassificationObjective:
    """Cross-entropy against labels [batch].

    Args:
        classes: Number of classes.
        label_smoothing: Probability shared out over all classes (Szegedy et al. 2016, section 7).
        mixup: Parameter alpha of Zhang et al. 2018; 0 for none.
        cutmix: Parameter alpha of Yun et al. 2019; 0 for none. With both, each batch gets one or the other.
        class_weights: Weight [classes] of each class in the training loss; None for equal ones.
        margin: Angle in radians by which the right class is made harder to reach in the training loss, for a model that
            scores by cosines (`CosineClassifier`); 0 for none. Not with mixing.
    """

    training_measure: Measure | None = Measure("accuracy")

    def __init__(
        self,
        classes: int,
        *,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_weights: Tensor | None = None,
        margin: float = 0.0,
    ) -> None:
        self.label_smoothing, self.class_weights, self.margin = label_smoothing, class_weights, margin
        self.mix = _mixer(classes, mixup, cutmix) if mixup or cutmix else None

    def training(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (mean loss, right answers); with mixing, an answer is right if it names the picture's own label."""
        aims = targets
        if self.mix is not None:
            images, aims = self.mix(images, targets)
        logits = model(images)
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        aimed = with_margin(logits, targets, self.margin) if self.margin else logits.float()
        losses = F.cross_entropy(aimed, aims, weight=weights, label_smoothing=self.label_smoothing, reduction="none")
        return losses.mean(), (logits.argmax(dim=1) == targets).sum()

    def validation(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (sum of plain cross-entropies, right answers)."""
        logits = model(images).float()
        return F.cross_entropy(logits, targets, reduction="sum"), (logits.argmax(dim=1) == targets).sum()

    def no_sums(self) -> Tensor:
        return torch.zeros((), dtype=torch.int64)

    def scores(self, sums: Tensor, pictures: int) -> dict[str, float]:
        return {"accuracy": sums.item() / pictures}


def _mixer(classes: int, mixup: float, cutmix: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from torchvision.transforms.v2 import CutMix, MixUp, RandomChoice  # a second to import; few runs need it

    mixers = ((MixUp, mixup), (CutMix, cutmix))
    chosen = [mixer(alpha=alpha, num_classes=classes) for mixer, alpha in mixers if alpha > 0]
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = RandomChoice(chosen)
    return mix


def balanced_class_weights(labels: Iterable[int], classes: int) -> Tensor:
    """Weights [classes] inverse to the classes' frequencies, with mean 1 over the samples (King & Zeng 2001)."""
    counts = Counter(labels)
    return torch.tensor([counts.total() / (len(counts) * counts[label]) for label in range(classes)])
