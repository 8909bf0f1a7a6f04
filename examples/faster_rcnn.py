"""VGGEncoder as the backbone of torchvision's detectors: python examples/faster_rcnn.py

A feature pyramid over blocks 3 to 5, and Faster R-CNN on it, one training step on random boxes and one prediction.
RetinaNet, FCOS and Mask R-CNN take the same backbone.
"""

import argparse
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from vggtransfer import VGGEncoder


class Backbone(nn.Module):
    def __init__(self, encoder: VGGEncoder, *, out_channels: int = 256) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels = out_channels  # what torchvision's detectors ask a backbone for
        self.pyramid = FeaturePyramidNetwork(list(encoder.out_channels), out_channels, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        # Under the names that torchvision's detectors look for: "0", "1", ...
        return self.pyramid(OrderedDict((str(level), tap) for level, tap in enumerate(self.encoder(images))))


def build_detector(arch: str, *, classes: int, unfreeze: str, side: int) -> FasterRCNN:
    """A detector for `classes` kinds of things and the background; pictures are resized to `side` pixels."""
    encoder = VGGEncoder(arch, layers=["relu3_3", "relu4_3", "relu5_3"], unfreeze=unfreeze)
    backbone = Backbone(encoder)
    levels = len(encoder.layers) + 1
    return FasterRCNN(
        backbone,
        num_classes=classes + 1,
        rpn_anchor_generator=AnchorGenerator(
            sizes=tuple((32 * 2**level,) for level in range(levels)), aspect_ratios=((0.5, 1.0, 2.0),) * levels
        ),
        # The encoder normalises by itself: hand it the pictures as they are, and pad with black.
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
        min_size=side,
        max_size=2 * side,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vgg16_bn_x0_25")
    parser.add_argument("--unfreeze", default="block4-block5")
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()

    torch.manual_seed(0)
    detector = build_detector(options.arch, classes=3, unfreeze=options.unfreeze, side=options.side)
    pictures = [torch.rand(3, 100, 140), torch.rand(3, 120, 90)]
    targets = []
    for picture in pictures:
        corners = torch.rand(4, 2, 2).sort(dim=1).values * torch.tensor(picture.shape[:0:-1])
        boxes = corners.flatten(1) + torch.tensor([0.0, 0.0, 1.0, 1.0])  # left, top, right, bottom
        targets.append({"boxes": boxes, "labels": torch.randint(1, 4, (4,))})

    losses = detector(pictures, targets)
    sum(losses.values()).backward()
    print(", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))
    trunk = detector.backbone.encoder.trunk
    trained = [name for name, layer in trunk.items() if any(p.grad is not None for p in layer.parameters())]
    print(f"gradients from {trained[0]} to {trained[-1]}")
    with torch.inference_mode():
        found = detector.eval()(pictures)
    print(f"boxes found: {[len(picture['boxes']) for picture in found]}")


if __name__ == "__main__":
    main()
