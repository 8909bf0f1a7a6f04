"""Trains a denoiser on squared errors, then on how pictures look: python examples/train_denoiser.py PHOTOGRAPHS

Writes a picture of both side by side. Without a folder it denoises drawn flowers. The loss looks through the small
network that comes with its weights; `--net vgg16` downloads those of the full one.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer import LPIPS, PerceptualLoss
from vggtransfer.data.decode import decode_image
from vggtransfer.data.picture_files import list_pictures
from vggtransfer.data.resampling import centre_square
from vggtransfer.data.synthetic import draw_flower

FLOWERS = ("daisy", "tulip", "sunflower")


class Denoiser(nn.Module):
    """DnCNN in small (Zhang et al. 2017): the network learns the noise."""

    def __init__(self, width: int = 32, depth: int = 6) -> None:
        super().__init__()
        inner = [layer for _ in range(depth - 2) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
        self.noise = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), *inner, nn.Conv2d(width, 3, 3, padding=1)
        )

    def forward(self, noisy: Tensor) -> Tensor:
        return noisy - self.noise(noisy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--noise", type=float, default=40, help="standard deviation, of 255")
    parser.add_argument("--weight", type=float, default=0.02, help="of the perceptual loss beside the squared error")
    parser.add_argument("--net", default="vgg16_bn_x0_25")
    parser.add_argument("--out", type=Path, default=Path("denoised.png"))
    options = parser.parse_args()

    pictures = load(options.photographs, count=options.pictures, size=options.size)
    if len(pictures) < 5:
        parser.error(f"{len(pictures)} pictures are too few: 4 of them are set aside to look at, the others train")
    train, test = pictures[:-4], pictures[-4:]
    noise = options.noise / 255
    noisy = test + noise * torch.randn(test.shape, generator=torch.Generator().manual_seed(1))

    perceptual = PerceptualLoss({"relu1_2": 0.5, "relu2_2": 0.5}, net=options.net)
    lpips = LPIPS(options.net, heads="lpips" if options.net == "vgg16" else None)
    shown = [noisy]
    for name, weight in (("squared error", 0.0), ("squared error and perceptual loss", options.weight)):
        torch.manual_seed(0)
        model = Denoiser()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(options.steps):
            clean = train[torch.randint(len(train), (8,))]
            made = model(clean + noise * torch.randn_like(clean))
            loss = F.mse_loss(made, clean)
            if weight:
                loss = loss + weight * perceptual(made.clamp(0, 1), clean)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            made = model(noisy).clamp(0, 1)
            decibels = -10 * torch.log10((made - test).square().mean(dim=(1, 2, 3))).mean()
            print(f"{name}: PSNR {decibels:.2f} dB, LPIPS ({lpips.stamp.metric}) {lpips(made, test).mean():.4f}")
        shown.append(made)
    rows = torch.cat([*shown, test], dim=3).clamp(0, 1).mul(255).round().byte()
    Image.fromarray(np.concatenate([row.permute(1, 2, 0).numpy() for row in rows])).save(options.out)
    print(f"wrote {options.out}: noisy, squared error, with perceptual loss, clean")


def load(folder: Path | None, *, count: int, size: int) -> Tensor:
    """Returns pictures [count, 3, size, size] in [0, 1]."""
    if folder is None:
        squares = [draw_flower(FLOWERS[number % 3], size=size, seed=number)[0] for number in range(count)]
    else:
        squares = [centre_square(decode_image(path), size) for path in list_pictures([folder])[:count]]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous().float() / 255


if __name__ == "__main__":
    main()
