from __future__ import annotations

import pytest
import torch

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.features.layer_choice import feature_shapes, layer_names, map_shape


@pytest.mark.parametrize("given", ["pool5,relu4_3", " pool5 , relu4_3,", ["pool5", "relu4_3"], ("pool5", "relu4_3")])
def test_layers_as_text_or_as_names(given: str | list[str]) -> None:
    assert layer_names(given) == ("pool5", "relu4_3")


@pytest.mark.parametrize(
    ("given", "message"), [("", "names no layer"), ("pool5,pool5", "pool5 twice"), ([5], "give names such as")]
)
def test_what_cannot_be_meant(given: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        layer_names(given)


@pytest.mark.parametrize("side", [32, 45])
def test_shapes_are_those_that_the_encoder_gives(side: int) -> None:
    encoder = VGGEncoder("vgg16_bn_x0_25", weights=None).eval()
    layers = encoder.architecture.layer_names
    with torch.inference_mode():
        taps = encoder.features(torch.rand(1, 3, side, side), layers=layers)
    for layer, tap in taps.items():
        assert map_shape(encoder.architecture, layer, image_size=side) == tuple(tap.shape[1:])


def test_pictures_that_do_not_survive_the_poolings() -> None:
    assert feature_shapes("vgg11", ["relu5_1"], image_size=16, pool="none") == {"relu5_1": (512, 1, 1)}
    with pytest.raises(OptionError, match=r"image_size=16 .* pool5, which lies behind 5 poolings: use 32 to 4096"):
        feature_shapes("vgg11", ["pool5"], image_size=16, pool="gap")
