"""Grad-CAM: where in a picture a layer found what speaks for a class.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.features.evaluation_mode import evaluation_mode


@dataclass(frozen=True)
class GradCam:
    """Maps of a batch of pictures, on the device of the model.

    Attributes:
        maps: float32 [batch, height, width], as large as the layer's own maps, at least 0, in units of the class score;
            0 everywhere if nothing in the layer speaks for the class.
        classes: int64 [batch]: the class each map is about.
        scores: float32 [batch, classes], the model's outputs, before any softmax.
        layer: The layer looked at.
    """

    maps: Tensor
    classes: Tensor
    scores: Tensor
    layer: str

    @property
    def relative_maps(self) -> Tensor:
        """The maps, each divided by its maximum: [0, 1], to be shown as colours."""
        return self.maps / self.maps.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def last_activation(encoder: VGGEncoder) -> str:
    """Names the last ReLU, such as `relu5_3`: the layer Grad-CAM is usually asked about."""
    return next(layer.name for layer in reversed(encoder.architecture.layers) if layer.kind == "relu")


def grad_cam(
    model: nn.Module,
    encoder: VGGEncoder,
    images: Tensor,
    *,
    layer: str | None = None,
    classes: Tensor | None = None,
) -> GradCam:
    """Computes equations 1 and 2 of the paper for a batch.

    With A the layer's maps and y the score of the class, map k is weighed by the mean of dy/dA_k over all places
    (equation 1), and the result is the positive part of the weighted sum of all maps (equation 2).

    It works whatever is frozen, with gradients turned off around it (`torch.no_grad`, `torch.inference_mode`) or on,
    and whether the model was training or not; the model runs in evaluation mode and is afterwards as it was before.

    Args:
        model: From pictures to scores [batch, classes]; no picture's score may depend on the others.
        encoder: The VGGEncoder inside the model.
        images: As the model wants them, on its device: [batch, 3, height, width], RGB, in [0, 1].
        layer: Any layer of the encoder that the model uses, by its name in the paper: `conv4_3` (before ReLU),
            `relu5_1`, `pool5`. None is the last ReLU.
        classes: int64 [batch], the classes to ask about; None asks about the predicted ones.

    Raises:
        OptionError: The encoder has no such layer, or the model does without it.
        InputError: Pictures that the encoder refuses.
    """
    name = last_activation(encoder) if layer is None else encoder.architecture.layer(layer).name
    taps: list[Tensor] = []

    def tap(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        # A new beginning of the graph: nothing before it needs gradients, even if nothing in the model is trainable.
        taps.append(output.detach().requires_grad_())
        return taps[-1]

    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(model):
        handle = encoder.trunk[name].register_forward_hook(tap)
        try:
            scores = torch.func.functional_call(model, _usable_state(model), (_usable(images),))
        finally:
            handle.remove()
        classes = scores.argmax(dim=1) if classes is None else classes.to(scores.device)
        chosen = scores.gather(1, classes[:, None]).sum()
        used = bool(taps) and chosen.requires_grad
        gradient = torch.autograd.grad(chosen, taps[0], allow_unused=True)[0] if used else None
    if gradient is None:
        raise OptionError(f"layer '{name}' has no part in the scores of this model; name an earlier one")
    weights = gradient.float().mean(dim=(2, 3), keepdim=True)
    maps = (weights * taps[0].detach().float()).sum(dim=1).clamp_min(0)
    return GradCam(maps, classes, scores.detach().float(), name)


def _usable_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of what was made under `torch.inference_mode`, which autograd refuses to save; normally nothing."""
    named = chain(model.named_parameters(), model.named_buffers())
    return {name: _usable(tensor) for name, tensor in named if tensor.is_inference()}


def _usable(tensor: Tensor) -> Tensor:
    return tensor.detach().clone() if tensor.is_inference() else tensor
