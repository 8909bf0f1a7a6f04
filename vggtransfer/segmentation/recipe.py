"""`vggtransfer segment`: pictures with masks become a network that paints masks."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.precision import Precision
from vggtransfer.option_values import checked_values
from vggtransfer.segmentation.decoder_names import DecoderName
from vggtransfer.segmentation.run import SegmentResult, resume_segment, run_recipe
from vggtransfer.segmentation.task_names import LossName
from vggtransfer.training.optimizer_names import OptimizerName


def segment(
    data: Path | None = None,
    *,
    arch: ArchitectureName = "vgg16",
    weights: str = "default",
    unfreeze: str = "block5",
    decoder: DecoderName = "unet",
    decoder_channels: str | None = None,
    full_resolution_skip: bool = True,
    normalization: Literal["batch", "none"] = "batch",
    hidden_channels: int | None = None,
    dropout: float | None = None,
    classes: str | int | None = None,
    ignore: str | int | None = None,
    task: Literal["auto", "multiclass", "binary", "multilabel"] = "auto",
    image_size: int | str | None = 256,
    crop_size: int | str | None = None,
    augmentation: str = "standard",
    val_fraction: float = 0.2,
    on_bad_image: Literal["skip", "stop"] = "skip",
    loss: LossName = "ce+dice",
    class_weights: Literal["none", "balanced"] = "none",
    label_smoothing: float = 0.0,
    epochs: int = 30,
    batch_size: int = 8,
    accumulate: int = 1,
    optimizer: OptimizerName = "adamw",
    lr: float = 1e-3,
    backbone_lr: float | None = None,
    layer_decay: float = 1.0,
    weight_decay: float = 0.01,
    momentum: float = 0.9,
    warmup_epochs: float = 1.0,
    gradient_clip: float | None = None,
    ema: float = 0.0,
    patience: int | None = None,
    precision: Precision = "auto",
    channels_last: bool = True,
    compile: bool = False,  # noqa: A002  (the name of the option)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    workers: int | None = None,
    seed: int = 0,
    checkpoint_minutes: float = 10.0,
    tensorboard: bool = False,
    out: Path | None = None,
    resume: Path | None = None,
) -> SegmentResult:
    """Trains a network to paint masks, starting from pretrained weights or from scratch.

    Several GPUs: `torchrun --nproc-per-node N -m vggtransfer segment ...` with the same options; each process takes the
    mean of the loss over its own pixels.

    Args:
        data: Folder with `train/images/*` and `train/masks/*` (and the same for val), or with `images/*` and `masks/*`;
            then a part is kept for validation. Pascal VOC, Cityscapes, ADE20K, Carvana and CamVid are read as they are.
        arch: Architecture of the encoder.
        weights: Its starting weights: `default`, `torchvision`, `timm`, `embedded`, a checkpoint file, a run directory,
            or `none` for random ones.
        unfreeze: What of the encoder trains: `none`, `all`, a block or layer, a range `block4-block5`, a comma list; or
            a schedule such as `"none block5@2"`. The decoder always trains.
        decoder: `unet`; `fcn32s`, `fcn16s`, `fcn8s` (Long et al. 2015); `deeplab-largefov`, `deeplab-aspp`.
        decoder_channels: Of a U-Net, from the coarsest level to the finest: `256,128,64,32,16`; default: by encoder.
        full_resolution_skip: Whether a U-Net's last level sees the encoder's maps in full resolution.
        normalization: Of a U-Net's decoder: `batch` or `none`.
        hidden_channels: Of fc6 and fc7 of the other networks; default: as published.
        dropout: Of the other networks; default: 0.5.
        classes: YAML file with names, and values or colours; a comma list of names in the order of their values; or
            their number. Default: what the masks show.
        ignore: Values or colours (`#000000`) of pixels that do not count, as a comma list, or `none`. Default: 255,
            unless masks are black and white.
        task: `multiclass`, `binary` (one class against the rest) or `multilabel` (each class has masks of its own);
            `auto` sees it from the masks.
        image_size: Size at which the network sees pictures: their short side in pixels, `WIDTHxHEIGHT`, or `none` to
            keep them as they are. Scores are those of masks in full size.
        crop_size: Size of the training crops, a side or `WIDTHxHEIGHT`; default: all of `WIDTHxHEIGHT`, else a square
            of the short side.
        augmentation: `none`, `flip`, `standard`, `strong`, or a YAML file with a list of albumentations.
        val_fraction: Part of the pictures kept for validation where the folder has no `val`.
        on_bad_image: `skip` lists pairs that cannot be read or do not fit in the run directory; `stop` ends with
            the first.
        loss: `ce` (cross-entropy), `dice`, `focal`, `lovasz`, or a sum of two.
        class_weights: `balanced` weighs cross-entropy and focal loss by median frequency (multiclass), or by what is
            not of a class against what is.
        label_smoothing: Of the cross-entropy: probability shared out over all classes.
        epochs: Passes over the training pictures.
        batch_size: Pictures per pass through the network, over all processes together.
        accumulate: Passes per optimizer step.
        optimizer: `adamw`, `sgd` (with Nesterov momentum), or `muon` for the encoder's convolutions with AdamW for the
            rest.
        lr: Peak learning rate of the decoder.
        backbone_lr: Peak learning rate of the last block; default: a tenth of `lr` for pretrained weights, `lr` for
            random ones.
        layer_decay: Factor on the learning rate from each block to the one before it.
        weight_decay: Weight decay of weights; biases and BatchNorm have none.
        momentum: Momentum of SGD and Muon, first beta of AdamW.
        warmup_epochs: Epochs of linear warm-up, before half a cosine down to 0.
        gradient_clip: Largest norm of the gradient; longer ones are shortened to it.
        ema: Decay of an exponential moving average of the weights, which is then what is validated and saved, for
            example 0.999; 0 turns it off.
        patience: Stop after so many epochs without a better mean IoU (or the same with a lower loss).
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        channels_last: Memory layout that is faster on CPUs and CUDA GPUs; Apple GPUs go without.
        compile: Compile the model with torch.compile.
        device: `auto` takes a GPU if there is one.
        workers: Processes that load pictures; default: chosen for the machine.
        seed: Seed of everything random: initial weights, split, order, augmentation, dropout.
        checkpoint_minutes: Minutes between checkpoints within an epoch; one more is written after each epoch.
        tensorboard: Also write TensorBoard events.
        out: Run directory; default: `runs/segment/N` with the next free N.
        resume: Run directory to continue, exactly where its checkpoint stands, with the recipe that is there. Only data
            (the same pictures, moved), epochs, lr, backbone_lr, gradient_clip, precision, patience, workers,
            checkpoint_minutes and tensorboard may be given anew; from Python, an argument that equals its default
            counts as not given.

    Returns:
        What was reached and where it was written.

    Raises:
        VGGTransferError: An option, a file or the data cannot be used; says which and what to do.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state has been saved.
    """
    given = {name: value for name, value in locals().items() if name != "resume"}
    given["weights"] = "none" if weights is None else str(weights)
    if resume is not None:
        defaults = {name: parameter.default for name, parameter in inspect.signature(segment).parameters.items()}
        return resume_segment(Path(resume), {name: value for name, value in given.items() if value != defaults[name]})
    return run_recipe(checked_values(segment, given), resume=None)
