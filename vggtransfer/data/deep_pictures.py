"""PNG and TIFF pictures with more than 8 bits per channel, which Pillow would clip, cut off or refuse.

What counts as white: 16-bit unsigned values always run to 65535. Signed and 32-bit integers and floating point numbers
have no such convention, and taking a 32-bit type's full range would turn most real files black. For them white is the
lowest of the usual ones (1 for floats; 255; 65535, or 32767 for 16 bits; the integer type's largest) that the picture
does not exceed. Floats may overshoot by 5%, as resampled pictures do, and are clipped. Negative, infinite and NaN
values are errors, and so are floats with a maximum between 1.05 and 8, which fit neither [0, 1] nor [0, 255].
"""

from __future__ import annotations

from typing import IO, Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from vggtransfer.data.resampling import Picture

Alpha: TypeAlias = Literal["straight", "premultiplied", "ignored"]

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 284, 338, 339
_FLOAT_TOLERANCE = 0.05


def to_bytes(values: npt.NDArray[Any], white: float | None = None, alpha: Alpha = "straight") -> Picture:
    """Scales grey [H, W], grey + alpha, RGB or RGBA [H, W, C] of any number type to uint8 RGB [H, W, 3] on white.

    Args:
        values: The picture as stored in the file.
        white: The value that stands for white (and for opaque); found from type and values if None.
        alpha: How the last of two or four channels is meant.

    Raises:
        ValueError: The values do not say which of them is white; see the module's docstring.
    """
    if values.ndim == 2:
        values = values[..., None]
    # float32 holds every 16-bit value exactly; 32-bit integers become float64.
    unit: npt.NDArray[np.floating[Any]] = values.astype(np.result_type(values.dtype, np.float32))
    unit = np.clip(unit / (_white_of(values) if white is None else white), 0, 1)
    if values.shape[2] in (2, 4):
        colour, opacity = unit[..., :-1], unit[..., -1:]
        match alpha:
            case "straight":
                colour = colour * opacity + (1 - opacity)
            case "premultiplied":
                colour = np.minimum(colour + (1 - opacity), 1)
        unit = colour
    rgb = np.rint(unit * 255).astype(np.uint8)
    return np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb


def _white_of(values: npt.NDArray[Any]) -> float:
    low, high = float(values.min()), float(values.max())
    whites: tuple[int, ...]
    tolerance = 0.0
    match values.dtype.kind, values.dtype.itemsize:
        case "f", _:
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError("it holds NaN or infinite values")
            if 1 + _FLOAT_TOLERANCE < high < 8:
                raise ValueError(f"its values run up to {high:g}; expected floats in [0, 1], [0, 255] or [0, 65535]")
            whites, tolerance = (1, 255, 65535), _FLOAT_TOLERANCE
        case "u", 2:
            return 65535
        case "i", 2:
            whites = (255, 32767)
        case _:
            whites = (255, 65535, int(np.iinfo(values.dtype).max))
    for white in whites:
        if high <= white * (1 + tolerance):
            if low < -white * tolerance:
                raise ValueError(f"it holds negative values (down to {low:g})")
            return white
    raise ValueError(f"its values run up to {high:g}; expected at most {whites[-1]}")


def read_deep_png(data: bytes) -> npt.NDArray[np.uint16]:
    """Returns a 16-bit colour or grey + alpha PNG as RGB [H, W, 3] or RGBA [H, W, 4], transparent colour included."""
    pixels = _read_with_opencv(data)
    if pixels.dtype != np.uint16:
        raise ValueError(f"expected 16 bits per channel, got {pixels.dtype}")
    return pixels


def read_tiff_tags(file: IO[bytes]) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Returns the tags of the first page of a TIFF or BigTIFF file."""
    header = file.read(8)
    if len(header) == 8 and header[2 if header[:2] == b"II" else 3] == 43:
        header += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    return tags


def tiff_size(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, int]:
    """Returns width and height as stored, before any rotation."""
    return int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0))


def tiff_needs_opencv(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Tells whether a TIFF is better read by `read_deep_tiff` than by Pillow.

    Raises:
        ValueError: Neither can read it: Pillow turns some of these into wrong pixels without a word.
    """
    bits, samples, planar = tags.get(_BITS, (1,)), int(tags.get(_SAMPLES, 1)), int(tags.get(_PLANAR, 1))
    photometric, kind = tags.get(_PHOTOMETRIC, 1), tags.get(_FORMAT, (1,))
    separate_planes = samples > 1 and planar != 1
    if max(bits) <= 8 and samples <= 4:
        return False
    if (bits == (12,) and samples == 1 and photometric == 1) or (photometric == 5 and samples == 4):
        if not separate_planes and max(bits) <= 16 and set(kind) == {1}:
            return False
    elif samples in {0: (1,), 1: (1,), 2: (3, 4)}.get(photometric, ()) and not separate_planes:
        wanted = {1: (16, 32), 2: (16, 32), 3: (32, 64)}
        if len({*bits}) == 1 and len({*kind}) == 1 and bits[0] in wanted.get(kind[0], ()):
            return True
    layout = ", each channel in its own plane," if separate_planes else ""
    raise ValueError(
        f"TIFF with {samples} channel(s) of {max(bits)} bits{layout} is not supported; "
        "save it with 1, 3 or 4 interleaved channels of 8 or 16 bits"
    )


def read_deep_tiff(data: bytes, tags: TiffImagePlugin.ImageFileDirectory_v2) -> Picture:
    """Returns the first page of a TIFF for which `tiff_needs_opencv` as uint8 RGB [H, W, 3], orientation applied."""
    pixels = _read_with_opencv(data)
    # OpenCV turns TIFF files by their orientation tag itself, whatever the flags say.
    if pixels.shape[:2] not in (tiff_size(tags), tiff_size(tags)[::-1]):
        raise ValueError(f"expected {tiff_size(tags)} pixels, got {pixels.shape[1::-1]}")
    if pixels.dtype == np.int32 and tags.get(_FORMAT, (1,))[0] == 1:
        pixels = pixels.view(np.uint32)  # OpenCV 4 has no unsigned 32-bit type
    extra = tags.get(_EXTRA, (2,))
    alpha: Alpha = {0: "ignored", 1: "premultiplied"}.get(extra[0], "straight")  # type: ignore[assignment]
    rgb = to_bytes(pixels, alpha=alpha)
    return 255 - rgb if tags.get(_PHOTOMETRIC) == 0 else rgb


def _read_with_opencv(data: bytes) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("the data is damaged, cut off, or compressed in a way OpenCV does not know")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels
