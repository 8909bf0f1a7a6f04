"""Draws what the blocks of a VGG network see in a picture: python examples/feature_maps.py PICTURE

Writes one row per layer, with the channels that respond most. Without a picture it draws a flower. The small network
comes with its weights; `--arch vgg16` downloads those of the full one, `--weights none` shows what random filters see.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from vggtransfer import VGGEncoder
from vggtransfer.data.decode import decode_image
from vggtransfer.data.synthetic import draw_flower


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, nargs="?")
    parser.add_argument("--arch", default="vgg16_bn_x0_25")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--layers", default="conv1_1,relu2_2,relu3_3,relu4_3,relu5_3")
    parser.add_argument("--out", type=Path, default=Path("feature_maps.png"))
    options = parser.parse_args()

    pixels = decode_image(options.picture) if options.picture else draw_flower("daisy", size=224, seed=4)[0]
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    encoder = VGGEncoder(options.arch, weights=options.weights, unfreeze="none").eval()
    taps = encoder.features(images, layers=options.layers.split(","))

    figure = Figure(figsize=(10, 2 * len(taps)), layout="constrained")
    for row, (axes, (name, maps)) in enumerate(
        zip(figure.subplots(len(taps), 6, squeeze=False), taps.items(), strict=True)
    ):
        axes[0].imshow(pixels)
        axes[0].set_title(
            f"{name}: {maps.shape[1]} maps of {maps.shape[2]}x{maps.shape[3]}" if row else "picture", size=8
        )
        strongest = maps[0].std(dim=(1, 2)).argsort(descending=True)[:5]
        for place, channel in zip(axes[1:], strongest.tolist(), strict=True):
            place.imshow(maps[0, channel], cmap="magma")
            place.set_title(f"{name} [{channel}]", size=8)
        for place in axes:
            place.axis("off")
    figure.savefig(options.out, dpi=110)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
