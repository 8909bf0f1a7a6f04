"""VGGUNet: a U-Net whose contracting path is a VGG trunk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vggtransfer.encoder.architectures import architecture
from vggtransfer.encoder.vgg import VGGEncoder, unet_layers
from vggtransfer.segmentation.segmenter import Segmenter, check_classes
from vggtransfer.segmentation.unet_decoder import Normalization, UNetDecoder

_STRIDE = 32


class VGGUNet(Segmenter):
    """U-Net (Ronneberger et al. 2015) over a VGG trunk, from pictures of any size to logits of the same size.

    Two convolutions on the last pooling; then, five times, upsampling by 2 (nearest), concatenation with the encoder's
    map of that size, and two convolutions; a last convolution scores the classes. That is `Unet("vgg16")` of
    segmentation_models_pytorch and, besides, the skip from `relu1_2` at full resolution, which that one leaves out.
    Neither an upsampled map nor a concatenation is ever made, see `UNetDecoder`.

    Args:
        arch: One of `vggtransfer.encoder.architectures.ARCHITECTURE_NAMES`.
        classes: Number of scores per pixel.
        weights: See `VGGEncoder`, as for `unfreeze`, `in_channels` and `normalize`.
        unfreeze: What of the encoder trains; the decoder always does.
        decoder_channels: Channels after each of the five upsamplings. None halves those of the last pooling with each,
            down to 16: (256, 128, 64, 32, 16) for vgg16, (64, 32, 16, 16, 16) for vgg16_bn_x0_25.
        full_resolution_skip: Whether the last two convolutions see `relu1_2`.
        normalization: `"batch"`: BatchNorm after each convolution of the decoder but the last. `"none"`: a bias.
        in_channels: Channels of the pictures.
        normalize: False if the pictures have already been normalised for these weights.

    Raises:
        OptionError: An argument that cannot be used; the message names it.
        WeightsError: Weights that cannot be found, verified or matched.
    """

    def __init__(
        self,
        arch: str = "vgg16",
        *,
        classes: int,
        weights: str | Path | None = "default",
        unfreeze: str = "block5",
        decoder_channels: Sequence[int] | None = None,
        full_resolution_skip: bool = True,
        normalization: Normalization = "batch",
        in_channels: int = 3,
        normalize: bool = True,
    ) -> None:
        check_classes(classes)
        layers = unet_layers(architecture(arch, in_channels=in_channels))
        encoder = VGGEncoder(
            arch,
            weights=weights,
            in_channels=in_channels,
            layers=layers if full_resolution_skip else layers[1:],
            unfreeze=unfreeze,
            normalize=normalize,
        )
        decoder = UNetDecoder(
            encoder.out_channels, classes=classes, decoder_channels=decoder_channels, normalization=normalization
        )
        super().__init__(encoder, decoder, classes=classes, multiple=_STRIDE)
