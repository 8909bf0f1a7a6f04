"""Giving a picture the colours of another: Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer"."""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601, as in JPEG: the luma of RGB.
_LUMA = (0.299, 0.587, 0.114)
_SMALLEST_VARIANCE = 1e-5  # a hundredth of what rounding to 8 bits shows; keeps one-coloured pictures invertible


def match_colours(picture: Tensor, reference: Tensor) -> Tensor:
    """Gives a picture the mean and the covariance of another's colours, by one linear map for all pixels.

    The map is the symmetric one of section 4.1, "image analogies": C_reference^(1/2) C_picture^(-1/2), which changes
    colours no more than it must.

    Args:
        picture: float [1, 3, height, width] in [0, 1].
        reference: Likewise, of any size.

    Returns:
        The picture with other colours, clipped to [0, 1].
    """
    pixels, mean, covariance = _statistics(picture)
    _, wanted_mean, wanted_covariance = _statistics(reference)
    colour_map = _power(wanted_covariance, 0.5) @ _power(covariance, -0.5)
    return (colour_map @ (pixels - mean) + wanted_mean).reshape(picture.shape).clamp(0, 1).to(picture)


def luma(pictures: Tensor) -> Tensor:
    """Returns the luma Y of pictures [batch, 3, height, width] as [batch, 1, height, width]."""
    weights = torch.tensor(_LUMA, dtype=pictures.dtype, device=pictures.device).view(1, 3, 1, 1)
    return (pictures * weights).sum(dim=1, keepdim=True)


def match_luma(grey: Tensor, reference: Tensor) -> Tensor:
    """Gives a luma [1, 1, height, width] mean and standard deviation of another's (section 4.2), clipped to [0, 1]."""
    scale = reference.std() / grey.std().clamp_min(_SMALLEST_VARIANCE**0.5)
    return ((grey - grey.mean()) * scale + reference.mean()).clamp(0, 1)


def with_luma(picture: Tensor, grey: Tensor) -> Tensor:
    """Returns a picture [1, 3, height, width] with its own colours and another luma, clipped to [0, 1].

    The difference of R, G and B from the luma stays, which are the chroma channels of the section's YIQ.
    """
    return (picture - luma(picture) + grey).clamp(0, 1)


def _statistics(picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pixels = picture[0].flatten(1).cpu().double()  # Apple GPUs have no double precision
    mean = pixels.mean(dim=1, keepdim=True)
    centred = pixels - mean
    covariance = centred @ centred.T / pixels.shape[1]
    return pixels, mean, covariance + _SMALLEST_VARIANCE * torch.eye(3, dtype=pixels.dtype, device=pixels.device)


def _power(symmetric: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(symmetric)
    power: Tensor = vectors @ torch.diag(values**exponent) @ vectors.T
    return power
