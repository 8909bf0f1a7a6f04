"""Every picture here is written byte by byte, or losslessly, so that its pixels are known without any decoder."""

from __future__ import annotations

import concurrent.futures
import io
import itertools
import os
import pickle
import struct
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from vggtransfer.data.decode import PICTURE_SUFFIXES, decode_image
from vggtransfer.errors import BadImageError, DataError

Array = npt.NDArray[Any]


# Writers


def png(
    array: Array,
    bits: int = 8,
    *,
    palette: bytes = b"",
    transparent: bytes = b"",
    exif: bytes = b"",
    late_exif: bytes = b"",
) -> bytes:
    """Writes [H, W] or [H, W, C]; samples narrower than 8 bits are packed."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 1
    colour_type = 3 if palette else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b""
    for row in array.reshape(height, -1):
        if bits < 8:
            digits = "".join(format(value, f"0{bits}b") for value in row)
            digits += "0" * (-len(digits) % 8)
            rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
        else:
            rows += b"\0" + row.astype(f">u{bits // 8}").tobytes()
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", transparent)] if transparent else []
    parts += [chunk(b"eXIf", exif)] if exif else []
    parts += [chunk(b"IDAT", zlib.compress(rows))]
    parts += [chunk(b"eXIf", late_exif)] if late_exif else []
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(
    array: Array,
    photometric: int,
    *,
    bits: int | None = None,
    extra: int | None = None,
    orientation: int | None = None,
    planes: bool = False,
    palette: Sequence[int] = (),
) -> bytes:
    """Writes [H, W, C] uncompressed, in the byte order of its type, with the directory in front of the pixels."""
    height, width, channels = array.shape
    order = ">" if array.dtype.byteorder == ">" else "<"
    pixels = (np.moveaxis(array, 2, 0) if planes else array).tobytes()
    strips = channels if planes else 1
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits or array.dtype.itemsize * 8] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0] * strips),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(pixels) // strips] * strips),
        284: ("H", [2 if planes else 1]),
        339: ("H", [kind] * channels),
    }
    if extra is not None:
        tags[338] = ("H", [extra])
    if orientation is not None:
        tags[274] = ("H", [orientation])
    if palette:
        tags[320] = ("H", palette)
    start = 8 + 2 + 12 * len(tags) + 4
    start += sum(max(0, len(values) * struct.calcsize(code) - 4) + 4 for code, values in tags.values())
    tags[273] = ("I", [start + index * len(pixels) // strips for index in range(strips)])
    entries, overflow = b"", b""
    for tag, (code, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(data) > 4:
            overflow_at = 8 + 2 + 12 * len(tags) + 4 + len(overflow)
            overflow += data
            data = struct.pack(order + "I", overflow_at)
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[code], len(values)) + data.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return (head + entries + bytes(4) + overflow).ljust(start, b"\0") + pixels


def jpeg(blocks: Array, *, adobe: int | None = None, exif: bytes = b"") -> bytes:
    """Writes a baseline JPEG of 8 x 8 blocks, each of one colour: [rows, columns, components] of stored values.

    All quantisers are 1, so a block's only coefficient is 8 * (value - 128) and decoding gives `value` exactly.
    """

    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    rows, columns, components = blocks.shape
    numbers = range(1, components + 1)
    frame = struct.pack(">BHHB", 8, rows * 8, columns * 8, components) + b"".join(bytes([n, 0x11, 0]) for n in numbers)
    scan = bytes([components]) + b"".join(bytes([n, 0x00]) for n in numbers) + bytes([0, 63, 0])
    digits, last = "", [0] * components
    for block in blocks.reshape(-1, components):
        for component, value in enumerate(block):
            level = 8 * (int(value) - 128)
            difference, last[component] = level - last[component], level
            size = abs(difference).bit_length()
            digits += format(size, "04b")  # the code of each size is the size itself, in 4 bits
            if size:
                digits += format(difference if difference > 0 else difference + (1 << size) - 1, f"0{size}b")
            digits += "0"  # end of block
    digits += "1" * (-len(digits) % 8)
    data = int(digits, 2).to_bytes(len(digits) // 8, "big").replace(b"\xff", b"\xff\0")
    return (
        b"\xff\xd8"
        + (segment(0xE1, b"Exif\0\0" + exif) if exif else b"")
        + (segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, adobe)) if adobe is not None else b"")
        + segment(0xDB, b"\0" + bytes([1] * 64))
        + segment(0xC0, frame)
        + segment(0xC4, b"\x00" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12)))
        + segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
        + segment(0xDA, scan)
        + data
        + b"\xff\xd9"
    )


def gif(
    frame: Array, palette: bytes, *, canvas: tuple[int, int], left: int, top: int, transparent: int | None
) -> bytes:
    """Writes one frame [h, w] of colour numbers 0 to 3 somewhere on a canvas."""
    # Codes of 3 bits: with a clear code (4) before each pixel they never grow; 5 ends.
    digits = "".join(reversed([format(code, "03b") for value in frame.flat for code in (4, int(value))] + ["100"]))
    digits = "101" + digits
    data = int(digits, 2).to_bytes(-(-len(digits) // 8), "little")
    assert len(data) < 256
    control = b"" if transparent is None else b"!\xf9\x04" + bytes([1, 0, 0, transparent, 0])
    return (
        (b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x81, 0, 0) + palette + control)
        + (b"," + struct.pack("<HHHHB", left, top, frame.shape[1], frame.shape[0], 0))
        + (b"\x02" + bytes([len(data)]) + data + b"\0;")
    )


def exif_orientation(value: int, order: str = "<") -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, value, 0, 0)


def pillow_bytes(array: Array, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def grey(values: Any) -> Array:
    """Known grey values as the RGB picture they should become."""
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def random(shape: tuple[int, ...], dtype: str = "u1", low: int = 0, high: int | None = None) -> Array:
    high = high if high is not None else int(np.iinfo(dtype).max) + 1
    return np.random.default_rng(0).integers(low, high, shape).astype(dtype)


RGB = random((5, 7, 3))
RGBA = np.concatenate(
    [RGB, np.array([0, 1, 100, 127, 128, 254, 255], np.uint8)[None, :, None].repeat(5, axis=0)], axis=2
)


def on_white(rgba: Array, white: float = 255) -> Array:
    """The definition in exact fractions of the range, rounded once."""
    colour, opacity = rgba[..., :-1] / white, rgba[..., -1:] / white
    result = np.rint(255 * (colour * opacity + 1 - opacity)).astype(np.uint8)
    return result if result.shape[2] == 3 else grey(result[..., 0])


# Formats


def test_colours_and_greys_of_8_bits_or_fewer_are_exact() -> None:
    levels = np.arange(16, dtype=np.uint8).reshape(2, 8)
    palette = np.random.default_rng(1).integers(0, 256, (4, 3)).astype(np.uint8)
    indices = np.array([[0, 1, 2, 3, 3, 2, 1]])
    known: dict[str, tuple[bytes, Array]] = {
        "rgb png": (png(RGB), RGB),
        "grey png": (png(RGB[..., 0]), grey(RGB[..., 0])),
        "4-bit png": (png(levels, 4), grey(levels * 17)),
        "2-bit png": (png(levels % 4, 2), grey(levels % 4 * 85)),
        "1-bit png": (png(levels % 2, 1), grey(levels % 2 * 255)),
        "palette png": (png(indices, 2, palette=palette.tobytes()), palette[indices]),
        "rgb tiff": (tiff(RGB, 2), RGB),
        "rgb planes tiff": (tiff(RGB, 2, planes=True), RGB),
        "grey tiff": (tiff(RGB[..., :1], 1), grey(RGB[..., 0])),
        "white-is-zero tiff": (tiff(RGB[..., :1], 0), grey(255 - RGB[..., 0])),
        "p6": (b"P6 7 5 255\n" + RGB.tobytes(), RGB),
        "p5": (b"P5\n# made by hand\n7 5\n255\n" + RGB[..., 0].tobytes(), grey(RGB[..., 0])),
        "p5 of 4 bits": (b"P5 8 2 15\n" + levels.tobytes(), grey(levels * 17)),
        "p3": (b"P3 2 1 255\n0 1 2 253 254 255\n", np.array([[[0, 1, 2], [253, 254, 255]]])),
        "p4": (b"P4 3 1\n" + bytes([0b01000000]), grey([[255, 0, 255]])),
        "webp": (pillow_bytes(RGB, "WEBP", lossless=True), RGB),
        "bmp": (pillow_bytes(RGB, "BMP"), RGB),
        "lzw tiff": (pillow_bytes(RGB, "TIFF", compression="tiff_lzw"), RGB),
    }
    for name, (data, expected) in known.items():
        pixels = decode_image(data)
        assert pixels.dtype == np.uint8, name
        assert pixels.flags["C_CONTIGUOUS"], name
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


def test_avif_is_read_where_pillow_can() -> None:
    if ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow has no AVIF")
    blocks = np.kron(random((2, 3, 3)), np.ones((16, 16, 1), np.uint8))
    data = pillow_bytes(blocks, "AVIF", quality=100, subsampling="4:4:4")
    assert np.abs(decode_image(data).astype(int) - blocks).max() <= 2


def test_grey_and_colour_jpeg() -> None:
    values = random((2, 3, 1))
    np.testing.assert_array_equal(decode_image(jpeg(values)), grey(np.kron(values[..., 0], np.ones((8, 8)))))
    ycc = np.array([[[128, 128, 128], [255, 128, 128], [76, 85, 255], [29, 255, 107]]])  # grey, white, red, blue
    expected = np.array([[128, 128, 128], [255, 255, 255], [254, 0, 0], [0, 0, 254]])
    assert np.abs(decode_image(jpeg(ycc))[0, ::8].astype(int) - expected).max() <= 1
    rgb = random((2, 3, 3))
    np.testing.assert_array_equal(decode_image(jpeg(rgb, adobe=0)), np.kron(rgb, np.ones((8, 8, 1), np.uint8)))


def test_cmyk_jpeg_as_adobe_writes_it() -> None:
    # Adobe stores 255 - ink, so red light is what neither cyan nor black take away: stored C * stored K.
    stored = np.array(
        [[[255, 255, 255, 255], [0, 255, 255, 255], [255, 0, 0, 255], [255, 255, 255, 0], [200, 100, 50, 128]]]
    )
    expected = np.rint(stored[..., :3] * stored[..., 3:] / 255)
    assert np.abs(decode_image(jpeg(stored, adobe=0))[0, ::8] - expected[0]).max() <= 1
    # YCCK keeps the inks' luminance: with neutral chroma Y is the ink, the same for all three.
    ycck = np.array([[[0, 128, 128, 255], [255, 128, 128, 255], [55, 128, 128, 255], [55, 128, 128, 128]]])
    expected_grey = np.array([255, 0, 200, 200 * 128 / 255])[:, None]
    assert np.abs(decode_image(jpeg(ycck, adobe=2))[0, ::8] - expected_grey).max() <= 1


def test_cmyk_tiff() -> None:
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [55, 155, 205, 127]]])
    expected = np.rint((255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255)
    for data in (tiff(ink.astype("u1"), 5), tiff((ink * 257).astype("<u2"), 5)):
        assert np.abs(decode_image(data) - expected).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_more_than_8_bits_are_scaled_not_clipped(order: str) -> None:
    values = random((5, 7, 3), order + "u2")
    values[0, :, 0] = [0, 128, 129, 255, 257, 65279, 65535]
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(expected[0, :, 0], [0, 0, 1, 1, 1, 254, 255])
    known = {
        "rgb png": (png(values, 16), expected),
        "grey png": (png(values[..., 0], 16), grey(expected[..., 0])),
        "grey + alpha png": (png(values[..., :2], 16), on_white(values[..., :2], 65535)),
        "rgb tiff": (tiff(values, 2), expected),
        "grey tiff": (tiff(values[..., :1], 1), grey(expected[..., 0])),
        "white-is-zero tiff": (tiff(values[..., :1], 0), grey(255 - expected[..., 0])),
        "pgm": (b"P5 7 5 65535\n" + values[..., 0].astype(">u2").tobytes(), grey(expected[..., 0])),
    }
    for name, (data, answer) in known.items():
        np.testing.assert_array_equal(decode_image(data), answer, err_msg=name)


def test_a_dark_16_bit_picture_stays_dark() -> None:
    values = random((3, 3), "u2", high=256)
    for data in (png(values, 16), tiff(values[..., None], 1), b"P5 3 3 65535\n" + values.astype(">u2").tobytes()):
        assert decode_image(data).max() <= 1


def test_12_bit_tiff_and_10_bit_pgm() -> None:
    # Two 12-bit values in three bytes: 0xFFF, 0x800.
    data = tiff(np.array([[[0xFF], [0xF8], [0x00]]], np.uint8), 1, bits=12).replace(
        struct.pack("<HHII", 256, 4, 1, 3), struct.pack("<HHII", 256, 4, 1, 2)
    )
    np.testing.assert_array_equal(decode_image(data), grey([[255, 128]]))
    pgm = b"P5 3 1 1023\n" + np.array([0, 511, 1023], ">u2").tobytes()
    np.testing.assert_array_equal(decode_image(pgm), grey([[0, 127, 255]]))


def test_portable_float_map() -> None:
    # Rows run upwards; a negative scale means little-endian.
    data = b"Pf\n2 2\n-1.0\n" + np.array([[0, 0.2], [0.4, 1]], "<f4").tobytes()
    np.testing.assert_array_equal(decode_image(data), grey([[102, 255], [0, 51]]))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_wide_integers_and_floats(order: str, channels: int) -> None:
    levels = np.array([0, 1, 51, 128, 254, 255], np.int64)[None, :, None].repeat(channels, axis=2)
    expected = levels.astype(np.uint8).repeat(3 // channels, axis=2)
    photometric = 1 if channels == 1 else 2
    for dtype, whites in {
        "i2": (255, 32767),
        "u4": (255, 65535, 2**32 - 1),
        "i4": (255, 65535, 2**31 - 1),
        "f4": (1, 255, 65535),
        "f8": (1, 255, 65535),
    }.items():
        for white in whites:
            stored = levels * (white / 255)
            stored = stored if dtype[0] == "f" else np.rint(stored)
            data = tiff(stored.astype(order + dtype), photometric)
            np.testing.assert_array_equal(decode_image(data), expected, err_msg=f"{dtype} up to {white}")


def test_floats_may_overshoot_a_little() -> None:
    values = np.array([-0.03, 0, 0.5, 1, 1.04], "<f4")[None, :, None]
    np.testing.assert_array_equal(decode_image(tiff(values, 1)), grey([[0, 0, 128, 255, 255]]))


@pytest.mark.parametrize(
    ("values", "dtype", "reason"),
    [
        ([0, np.nan], "<f4", "NaN or infinite"),
        ([0, np.inf], "<f8", "NaN or infinite"),
        ([0, 3.5], "<f4", r"up to 3.5; expected floats in \[0, 1\]"),
        ([-1, 1], "<f4", "negative values"),
        ([-5, 200], "<i2", "negative values"),
        ([0, 1e9], "<f4", "at most 65535"),
        ([0, 1], "<f2", "16 bits is not supported"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_values_that_do_not_tell_which_is_white_are_refused(values: list[float], dtype: str, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_image(tiff(np.array(values)[None, :, None].astype(dtype), 1))


def test_channels_in_their_own_planes_are_refused_where_decoders_get_them_wrong() -> None:
    with pytest.raises(BadImageError, match="its own plane"):
        decode_image(tiff(random((4, 4, 3), "<u2"), 2, planes=True))
    with pytest.raises(BadImageError, match="5 channel"):
        decode_image(tiff(random((4, 4, 5)), 2))


# Transparency


def test_transparency_is_composited_on_white() -> None:
    deep = random((5, 7, 4), "<u2")
    deep[0, :, 3] = [0, 1, 257, 32767, 32768, 65534, 65535]
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    indices = np.array([[0, 1, 2, 3]])
    opacity = bytes([0, 128, 255])  # the fourth colour has none and is opaque
    known = {
        "rgba png": (png(RGBA), on_white(RGBA)),
        "grey + alpha png": (png(RGBA[..., 2:]), on_white(RGBA[..., 2:])),
        "rgba webp": (pillow_bytes(RGBA, "WEBP", lossless=True, exact=True), on_white(RGBA)),
        "rgba tiff": (tiff(RGBA, 2, extra=2), on_white(RGBA)),
        "rgbx tiff": (tiff(RGBA, 2, extra=0), RGBA[..., :3]),
        "deep rgba png": (png(deep, 16), on_white(deep, 65535)),
        "deep rgba tiff": (tiff(deep, 2, extra=2), on_white(deep, 65535)),
        "deep rgbx tiff": (tiff(deep, 2, extra=0), np.rint(deep[..., :3] / 257)),
        "float rgba tiff": (tiff((RGBA / 255).astype("<f4"), 2, extra=2), on_white(RGBA)),
        "palette png": (
            png(indices, 2, palette=palette.tobytes(), transparent=opacity),
            np.array([[[255, 255, 255], [127, 255, 127], [0, 0, 255], [9, 9, 9]]]),
        ),
    }
    for name, (data, expected) in known.items():
        np.testing.assert_array_equal(decode_image(data), expected, err_msg=name)


def test_premultiplied_tiff() -> None:
    opacity = RGBA[..., 3:]
    stored = np.concatenate([RGB.astype(int) * opacity // 255, opacity], axis=2)
    expected = stored[..., :3] + 255 - opacity
    assert np.abs(decode_image(tiff(stored.astype("u1"), 2, extra=1)) - expected).max() <= 1
    np.testing.assert_array_equal(decode_image(tiff((stored * 257).astype("<u2"), 2, extra=1)), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png(bits: int) -> None:
    top = 2**bits - 1
    levels = np.array([[0, 1, top]])
    data = png(levels, bits, transparent=struct.pack(">H", 1))
    white_for_one = 255 if bits == 1 else round(top / top * 255)
    np.testing.assert_array_equal(decode_image(data), grey([[0, white_for_one, 255]]))
    data = png(levels, bits, transparent=struct.pack(">H", 0))
    np.testing.assert_array_equal(decode_image(data), grey([[255, round(255 / top), 255]]))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png(bits: int) -> None:
    values = random((2, 3, 3), f"u{bits // 8}")
    values[0, 1] = values[0, 0] + np.array([0, 0, 1], values.dtype)
    expected = np.rint(values / (257 if bits == 16 else 1)).astype(np.uint8)
    expected[0, 0] = 255
    data = png(values, bits, transparent=struct.pack(">HHH", *values[0, 0]))
    np.testing.assert_array_equal(decode_image(data), expected)


# Animations


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_animations_give_their_first_frame(kind: str, options: dict[str, Any]) -> None:
    frames = [np.full((6, 6, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for index, frame in enumerate(frames):
        frame[index, index] = 255
    later = [Image.fromarray(frame) for frame in frames[1:]]
    data = pillow_bytes(frames[0], kind, save_all=True, append_images=later, duration=100, **options)
    np.testing.assert_array_equal(decode_image(data), frames[0])


def test_a_tiff_of_many_pages_gives_the_first() -> None:
    data = pillow_bytes(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    np.testing.assert_array_equal(decode_image(data), RGB)


@pytest.mark.parametrize("transparent", [None, 1])
def test_what_a_gif_frame_leaves_out_is_white(transparent: int | None) -> None:
    palette = bytes([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    data = gif(np.array([[0, 1], [2, 3]]), palette, canvas=(5, 4), left=2, top=1, transparent=transparent)
    expected = np.full((4, 5, 3), 255)
    expected[1:3, 2:4] = [[[200, 0, 0], [0, 200, 0]], [[0, 0, 200], [9, 9, 9]]]
    if transparent is not None:
        expected[1, 3] = 255
    np.testing.assert_array_equal(decode_image(data), expected)


# Orientation: how a stored [[1, 2, 3], [4, 5, 6]] is meant to be seen (Exif 2.32, tag 0x0112)

UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}
STORED = np.array(UPRIGHT[1], np.uint8)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_orientation_in_every_container(orientation: int) -> None:
    little, big = exif_orientation(orientation), exif_orientation(orientation, ">")
    known: dict[str, tuple[bytes, int]] = {
        "png": (png(STORED, exif=little), 1),
        "png, exif behind the pixels": (png(STORED, late_exif=big), 1),
        "deep png": (png(np.stack([STORED.astype(np.uint16) * 257] * 3, axis=2), 16, exif=big), 1),
        "webp": (pillow_bytes(grey(STORED), "WEBP", lossless=True, exif=b"Exif\0\0" + little), 1),
        "tiff": (tiff(STORED[..., None], 1, orientation=orientation), 1),
        "deep tiff": (tiff(STORED[..., None].astype("<u2") * 257, 1, orientation=orientation), 1),
        "deep rgb tiff": (tiff(np.stack([STORED / 255] * 3, axis=2).astype(">f4"), 2, orientation=orientation), 1),
        "lzw tiff": (pillow_bytes(STORED, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation}), 1),
        "jpeg": (jpeg(STORED[..., None], exif=big), 8),
    }
    for name, (data, step) in known.items():
        np.testing.assert_array_equal(decode_image(data)[::step, ::step], grey(UPRIGHT[orientation]), err_msg=name)


@pytest.mark.parametrize(
    "exif", [exif_orientation(0), exif_orientation(9), exif_orientation(6)[:15], b"II*\0rubbish", b"?"]
)
def test_a_senseless_orientation_is_ignored(exif: bytes) -> None:
    for data, step in ((png(STORED, exif=exif), 1), (jpeg(STORED[..., None], exif=exif), 8)):
        np.testing.assert_array_equal(decode_image(data)[::step, ::step], grey(STORED))


# Scaled decoding


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("min_side", "scale"), [(None, 1), (1, 8), (8, 8), (9, 4), (16, 4), (17, 2), (32, 2), (33, 1), (64, 1), (500, 1)]
)
def test_large_jpegs_may_come_smaller(min_side: int | None, scale: int, orientation: int) -> None:
    blocks = random((8, 16, 3))  # 64 x 128 pixels
    data = jpeg(blocks, adobe=0, exif=exif_orientation(orientation))
    expected = np.kron(blocks, np.ones((8 // scale, 8 // scale, 1), np.uint8))
    expected = expected if orientation == 1 else np.rot90(expected, -1)
    np.testing.assert_array_equal(decode_image(data, min_side=min_side), expected)


def test_min_side_means_nothing_to_other_formats() -> None:
    np.testing.assert_array_equal(decode_image(png(RGB), min_side=1), RGB)


# What cannot be decoded

BLOCKS = random((4, 4, 3))
FILES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: jpeg(BLOCKS, adobe=0),
    "progressive jpeg": lambda: pillow_bytes(random((32, 32, 3)), "JPEG", progressive=True),
    "png": lambda: png(RGB),
    "deep png": lambda: png(random((9, 9, 3), "u2"), 16),
    "palette png": lambda: png(np.array([[0, 1]]), 8, palette=bytes(6)),
    "webp": lambda: pillow_bytes(random((16, 16, 3)), "WEBP", lossless=True),
    "lossy webp": lambda: pillow_bytes(random((32, 32, 3)), "WEBP"),
    "gif": lambda: gif(random((6, 6), high=4), bytes(range(12)), canvas=(6, 6), left=0, top=0, transparent=None),
    "bmp": lambda: pillow_bytes(RGB, "BMP"),
    "tiff": lambda: tiff(RGB, 2),
    "lzw tiff": lambda: pillow_bytes(random((32, 32, 3)), "TIFF", compression="tiff_lzw"),
    "deep tiff": lambda: tiff(random((5, 7, 3), "<u2"), 2),
    "float tiff": lambda: tiff((RGB / 255).astype("<f4"), 2),
    "ppm": lambda: b"P6 7 5 255\n" + RGB.tobytes(),
    "pgm": lambda: b"P5 7 5 1023\n" + bytes(70),
}


@pytest.mark.parametrize("name", FILES)
def test_wherever_a_file_is_cut_off_it_is_refused_or_whole(name: str) -> None:
    data = FILES[name]()
    whole = decode_image(data)
    refused = 0
    for cut in {*range(40), *np.linspace(1, len(data) - 1, 60).astype(int), *range(len(data) - 12, len(data))}:
        try:
            pixels = decode_image(data[:cut])
        except BadImageError:
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, whole, err_msg=f"cut at {cut} of {len(data)}")
    assert refused > 60


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_raise_nothing_but_bad_image_error(name: str) -> None:
    data = FILES[name]()
    generator = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for position in generator.integers(0, len(data), generator.integers(1, 4)):
            damaged[position] = generator.integers(0, 256)
        try:
            pixels = decode_image(bytes(damaged), max_pixels=1_000_000)
        except BadImageError:
            continue
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("min_side", [None, 4])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_that_ends_early_with_a_proper_end_marker_is_refused(
    options: dict[str, Any], min_side: int | None
) -> None:
    data = pillow_bytes(random((64, 64, 3)), "JPEG", **options)
    start = data.index(b"\xff\xda") + 14
    # The scans of a progressive file but the first only add detail.
    stop = data.index(b"\xff\xc4", start) if "progressive" in options else len(data)
    for cut in np.linspace(start, stop, 12)[1:-5].astype(int):
        with pytest.raises(BadImageError, match=r"cannot be decoded as JPEG: .*(cut off|truncated)"):
            decode_image(data[:cut] + b"\xff\xd9", min_side=min_side)


def test_a_jpeg_with_a_mid_grey_corner_is_fine() -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        picture = np.full((64, 64, 3), 128, np.uint8)
        np.testing.assert_array_equal(decode_image(pillow_bytes(picture, "JPEG", **options)), picture)
    exif = exif_orientation(6) + b"\xff\xda \xff\xd9"  # as a thumbnail would put them there
    blocks = np.array([[[10], [128]]])
    np.testing.assert_array_equal(decode_image(jpeg(blocks, exif=exif))[::8, 0, 0], [10, 128])


def test_a_wrong_png_checksum_is_noticed() -> None:
    rows = b"\0" + bytes(30) + b"\0" + bytes(30)
    data = png(np.zeros((2, 10, 3), np.uint8)).replace(zlib.compress(rows), zlib.compress(rows, 0))
    at = data.index(b"IDAT")
    body = zlib.compress(rows, 0)
    good = data[: at - 4] + struct.pack(">I", len(body)) + b"IDAT" + body
    good += struct.pack(">I", zlib.crc32(b"IDAT" + body)) + data[-12:]
    assert decode_image(good).max() == 0
    with pytest.raises(BadImageError, match="cannot be decoded as PNG"):
        decode_image(good[: at + 20] + b"\xc8" + good[at + 21 :])


def test_no_pixels_are_decoded_above_the_limit(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(np.zeros((1, 1), np.uint8)))
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = bomb.read_bytes()
    bomb.write_bytes(data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:])
    tracemalloc.start()
    with pytest.raises(BadImageError) as caught:
        decode_image(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert str(caught.value) == (
        f"{bomb}: 50000 x 50000 = 2,500,000,000 pixels, above the limit of 178,956,970 (decompression bomb?)"
    )


@pytest.mark.parametrize("name", FILES)
def test_the_limit_holds_for_every_format(name: str) -> None:
    with pytest.raises(BadImageError, match=r"pixels, above the limit of 1 \("):
        decode_image(FILES[name](), max_pixels=1)


def test_the_limit_is_our_own_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # an error from 40 on, a warning below
    np.testing.assert_array_equal(decode_image(png(RGB), max_pixels=35), RGB)
    with pytest.raises(BadImageError, match="above the limit of 34"):
        decode_image(png(RGB), max_pixels=34)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404 not found</html>")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "drawing.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (tmp_path / "broken link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    reasons = {
        "folder.jpg": "it is a folder",
        "empty.jpg": "the file is empty",
        "text.jpg": "not a picture in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF)",
        "phone.heic": "HEIC pictures are not supported; convert it to JPEG or PNG",
        "drawing.png": "not a picture in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF)",
        "broken link.jpg": "No such file or directory",
        "missing.jpg": "No such file or directory",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        reasons["pipe.jpg"] = "it is not a regular file"
    if os.geteuid() != 0:
        (tmp_path / "secret.jpg").write_bytes(png(RGB))
        (tmp_path / "secret.jpg").chmod(0)
        reasons["secret.jpg"] = "Permission denied"
    for name, reason in reasons.items():
        with pytest.raises(BadImageError) as caught:
            decode_image(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {reason}"
    with pytest.raises(BadImageError, match="picture in memory: the file is empty"):
        decode_image(b"")


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(png(RGB))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may open everything
    with pytest.raises(BadImageError) as caught:
        decode_image(path)
    assert str(caught.value) == f"{path}: Permission denied"


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really a png.jpg"
    path.write_bytes(png(RGB))
    np.testing.assert_array_equal(decode_image(path), RGB)
    np.testing.assert_array_equal(decode_image(str(path)), RGB)


def test_bad_image_error_is_a_data_error_and_pickles() -> None:
    with pytest.raises(DataError) as caught:
        decode_image(b"nothing")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (BadImageError, str(caught.value))


def test_suffixes() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"} <= PICTURE_SUFFIXES


# The process around


@pytest.mark.filterwarnings("default")
def test_pillows_settings_and_the_warning_filters_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        with pytest.raises(BadImageError):
            decode_image(jpeg(BLOCKS)[:-30])
        decode_image(jpeg(BLOCKS, adobe=0, exif=exif_orientation(6)[:15]))  # Pillow warns: corrupt EXIF data
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True
        assert caught == []
    assert list(warnings.filters) == filters


def test_many_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    whole, broken = jpeg(BLOCKS, adobe=0), jpeg(BLOCKS, adobe=0)[:-30]
    start = threading.Barrier(8)

    def work(number: int) -> int:
        start.wait()
        refused = 0
        for turn in itertools.islice(itertools.count(number), 50):
            try:
                decode_image(broken if turn % 2 else whole)
            except BadImageError:
                refused += 1
        return refused

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [25] * 8
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert list(warnings.filters) == filters
