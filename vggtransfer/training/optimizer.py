"""Parameter groups: which learning rate and weight decay each trainable parameter gets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from vggtransfer.training.contract import Backbone
from vggtransfer.training.optimizer_names import OptimizerName


def parameter_groups(
    model: nn.Module,
    encoder: Backbone,
    *,
    learning_rate: float,
    backbone_learning_rate: float,
    layer_decay: float,
    weight_decay: float,
    pretrained_head: Iterable[nn.Parameter] = (),
) -> list[dict[str, Any]]:
    """Groups the trainable parameters of a model: its head, and each block of its backbone.

    Block b of n trains at `backbone_learning_rate * layer_decay ** (n - b)`: the earlier the block, the more general
    its features and the smaller its steps (discriminative fine-tuning, Howard & Ruder 2018, section 3.1). Biases and
    BatchNorm parameters get no weight decay (Goyal et al. 2017, section 5.3). Every group keeps its `base_lr`, from
    which schedules work.

    Args:
        model: The whole model; parameters outside `encoder` are the head.
        encoder: Its backbone.
        learning_rate: Rate of the head.
        backbone_learning_rate: Rate of the last block.
        layer_decay: Factor from each block to the one before it; 1 for none.
        weight_decay: Decay of weights of two and more dimensions.
        pretrained_head: Parameters of the head that come with pretrained values; they train at the backbone's rate.
    """
    blocks = encoder.blocks()
    pretrained = {id(parameter) for parameter in pretrained_head}
    place: dict[int, tuple[str, float]] = {}
    for number, parameters in enumerate(blocks, start=1):
        rate = backbone_learning_rate * layer_decay ** (len(blocks) - number)
        place.update({id(parameter): (f"block{number}", rate) for parameter in parameters})
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        head = ("head_pretrained", backbone_learning_rate) if id(parameter) in pretrained else ("head", learning_rate)
        name, rate = place.get(id(parameter), head)
        decayed = parameter.dim() > 1
        group = groups.setdefault(
            (name, decayed),
            {
                "name": name if decayed else f"{name}_no_decay",
                "params": [],
                "lr": rate,
                "base_lr": rate,
                "weight_decay": weight_decay if decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(name: OptimizerName, groups: list[dict[str, Any]], *, momentum: float) -> Optimizer:
    """AdamW with beta1 = `momentum` and beta2 = 0.999, SGD with Nesterov momentum, or Muon.

    Muon (Jordan et al. 2024) orthogonalises the momentum of each weight of the backbone, a convolution taken as a
    matrix [out, in * 9], and scales it so that rates and weight decays of AdamW serve (Liu et al. 2025, section 2.2).
    The head, biases and BatchNorm go to AdamW with Nesterov momentum, at their own rates.
    """
    match name:
        case "adamw":
            return torch.optim.AdamW(groups, betas=(momentum, 0.999), fused=_fused(groups))
        case "sgd":
            return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=_fused(groups))
        case "muon":
            from timm.optim.muon import Muon  # a second to import; few runs need it

            for group in groups:
                group["use_fallback"] = not group["name"].startswith("block") or group["name"].endswith("no_decay")
            return Muon(groups, momentum=momentum, nesterov=True, conv_mode="flatten")


def _fused(groups: list[dict[str, Any]]) -> bool | None:
    """On CPUs one pass over the weights in place of several; elsewhere torch's own choice, which heeds float16."""
    return True if all(one.device.type == "cpu" for group in groups for one in group["params"]) else None


def carry_state(source: Optimizer, target: Optimizer) -> None:
    """Hands over momenta of the parameters that both optimizers train, when the freezing policy changes."""
    for group in target.param_groups:
        for parameter in group["params"]:
            if parameter in source.state:
                target.state[parameter] = source.state[parameter]
