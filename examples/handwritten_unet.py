"""A U-Net of one's own on VGGEncoder, trained on drawn flowers: python examples/handwritten_unet.py

The encoder is frozen: it runs without autograd bookkeeping, and only the decoder trains. For real work there is
`vggtransfer.VGGUNet`, which does the same with less memory.
"""

import argparse

import torch
from torch import Tensor, nn

from vggtransfer import VGGEncoder
from vggtransfer.data.synthetic import SPECIES, draw_flower


class UNet(nn.Module):
    def __init__(self, arch: str, weights: str | None) -> None:
        super().__init__()
        self.encoder = VGGEncoder(arch, weights=None if weights == "none" else weights, unfreeze="none")
        *skips, channels = self.encoder.out_channels
        self.blocks = nn.ModuleList()
        for skip in reversed(skips):
            layers = nn.Conv2d(channels + skip, skip, 3, padding=1, bias=False), nn.BatchNorm2d(skip), nn.ReLU()
            self.blocks.append(nn.Sequential(*layers))
            channels = skip
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        *skips, x = self.encoder(images)
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2), skip], dim=1))
        return self.head(x)


def draw(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures [count, 3, 64, 64] in [0, 1], and where there is a flower [count, 1, 64, 64]."""
    drawn = [draw_flower(SPECIES[number % len(SPECIES)], size=64, seed=seed + number) for number in range(count)]
    pictures, masks = (
        torch.stack([torch.from_numpy(part.copy()) for part in parts]) for parts in zip(*drawn, strict=True)
    )
    return pictures.permute(0, 3, 1, 2) / 255, (masks[:, None] > 0).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vgg16_bn_x0_25")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = UNet(options.arch, options.weights)
    pictures, masks = draw(options.pictures, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(options.steps):
        chosen = torch.randint(len(pictures), (16,))
        loss = nn.functional.binary_cross_entropy_with_logits(model(pictures[chosen]), masks[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            print(f"step {step + 1}: loss {loss.item():.3f}")

    pictures, masks = draw(32, seed=10_000)
    with torch.inference_mode():
        found, truth = model.eval()(pictures) > 0, masks > 0
    print(f"IoU of flowers on 32 other pictures: {(found & truth).sum() / (found | truth).sum():.3f}")


if __name__ == "__main__":
    main()
