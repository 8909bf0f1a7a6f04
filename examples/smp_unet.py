"""VGGEncoder in a decoder of segmentation_models_pytorch: python examples/smp_unet.py

Its taps are the ones that smp's own encoders return, and it adds what those lack: freezing block by block, weights of
any source, any number of blocks. Needs `pip install segmentation-models-pytorch`.
"""

import argparse

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from vggtransfer import VGGEncoder


class Unet(nn.Module):
    def __init__(self, arch: str, *, classes: int, unfreeze: str) -> None:
        super().__init__()
        self.encoder = VGGEncoder(arch, unfreeze=unfreeze)
        self.decoder = UnetDecoder(
            encoder_channels=self.encoder.out_channels,
            decoder_channels=(256, 128, 64, 32, 16),
            add_center_block=True,  # as smp does for VGG
        )
        self.head = SegmentationHead(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(images)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vgg16_bn_x0_25")
    parser.add_argument("--unfreeze", default="block5")
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()

    model = Unet(options.arch, classes=5, unfreeze=options.unfreeze)
    logits = model(torch.rand(2, 3, options.size, options.size))
    nn.functional.cross_entropy(logits, torch.randint(5, (2, options.size, options.size))).backward()
    trunk = model.encoder.trunk
    trained = [name for name, layer in trunk.items() if any(p.grad is not None for p in layer.parameters())]
    print(f"logits {list(logits.shape)}; gradients in {', '.join(trained)}")


if __name__ == "__main__":
    main()
