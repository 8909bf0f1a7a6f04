"""Picture files to RGB pixels, right for what is found in the wild, or a one-line reason why not.

Pixels are those a viewer without colour management shows: embedded ICC profiles and PNG gamma are left alone, as
torchvision and timm do and as the pictures were that the public checkpoints were trained on.
"""

from __future__ import annotations

import io
import stat
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from vggtransfer.data.deep_pictures import (
    read_deep_png,
    read_deep_tiff,
    read_tiff_tags,
    tiff_needs_opencv,
    tiff_size,
    to_bytes,
)
from vggtransfer.data.resampling import Picture
from vggtransfer.errors import BadImageError

# Only these of Pillow's many formats: each is tested here, and none starts another program, as EPS does.
_SUFFIXES_OF_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
PICTURE_SUFFIXES = frozenset({".heic", ".heif"}.union(*_SUFFIXES_OF_FORMATS.values()))
"""Files with these endings (in any case) are taken for pictures; what a file really is, its first bytes tell.

HEIC cannot be read, but a photograph that is left out should be named, not overlooked.
"""

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PNG_COLOUR_TYPES_WITHOUT_16_BIT_MODE = (2, 4, 6)


def decode_image(source: Path | str | bytes, *, min_side: int | None = None, max_pixels: int = 178_956_970) -> Picture:
    """Returns the first frame of a picture file as uint8 RGB [H, W, 3], upright, transparency on white.

    The format is told by the content, not by the name. More than 8 bits per channel are scaled to the full range (see
    `vggtransfer.data.deep_pictures` for what counts as white in wide integers and floats).

    Args:
        source: A file, or its content.
        min_side: JPEG pictures may come 2, 4 or 8 times smaller as long as the short side keeps so many pixels; that is
            much faster for large photographs. None: full size.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        BadImageError: `PATH: reason`: the file cannot be read, is damaged, cut off, too large or not a picture.
    """
    if isinstance(source, str):
        source = Path(source)
    name = "picture in memory" if isinstance(source, bytes) else str(source)
    kind = ""
    try:
        with _open_regular_file(source) as file, _STRICT_PILLOW:
            kind = _format_of(file.read(32))
            return _decode(file, kind, min_side, max_pixels)
    except BadImageError as error:
        reason, cause = str(error), error.__cause__
    except MemoryError as error:
        reason, cause = "not enough memory to decode it", error
    except Exception as error:  # Pillow's decoders raise whatever comes up: struct.error, SyntaxError, IndexError, ...
        reason, cause = f"cannot be decoded as {kind}: {error or type(error).__name__}", error
    raise BadImageError(f"{name}: {reason}".replace("\n", " ")) from cause


def _open_regular_file(source: Path | bytes) -> IO[bytes]:
    if isinstance(source, bytes):
        size, file = len(source), io.BytesIO(source)
    else:
        try:
            status = source.stat()
            if stat.S_ISDIR(status.st_mode):
                raise BadImageError("it is a folder")
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("it is not a regular file")  # opening a pipe would wait for a writer
            size, file = status.st_size, source.open("rb")  # type: ignore[assignment]
        except OSError as error:
            raise BadImageError(error.strerror or str(error)) from error
        except ValueError as error:  # a null byte in the name
            raise BadImageError(str(error)) from error
    if size == 0:
        file.close()
        raise BadImageError("the file is empty")
    return file


def _format_of(head: bytes) -> str:
    Image.init()
    for kind in _SUFFIXES_OF_FORMATS:
        if kind in Image.OPEN:
            accepts = Image.OPEN[kind][1]
            if accepts is not None and accepts(head) is True:
                return kind
    if head[4:8] == b"ftyp":
        if head[8:12] in _HEIC_BRANDS:
            raise BadImageError("HEIC pictures are not supported; convert it to JPEG or PNG")
        if head[8:12] in (b"avif", b"avis"):
            raise BadImageError("this Pillow cannot read AVIF; install Pillow 11.3 or newer, or convert it to JPEG")
    raise BadImageError("not a picture in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF)")


def _decode(file: IO[bytes], kind: str, min_side: int | None, max_pixels: int) -> Picture:
    if kind == "TIFF":
        file.seek(0)
        tags = read_tiff_tags(file)
        _check_size(*tiff_size(tags), max_pixels)
        if tiff_needs_opencv(tags):
            file.seek(0)
            return read_deep_tiff(file.read(), tags)
    image = _open(file, kind)
    _check_size(*image.size, max_pixels)
    if kind == "PNG":
        # While decoding, Pillow leaves out the checksums of the pixel data.
        _open(file, kind).verify()
        image = _open(file, kind)
    extents = image.tile[0][1] if kind == "GIF" and image.tile else None
    if min_side is not None:
        image.draft(None, (min_side, min_side))
    image.load()
    pixels = _to_rgb(image, file, kind)
    if extents is not None:
        # What the first frame of an animation leaves out has no colour yet.
        left, top, right, bottom = extents
        pixels[:top], pixels[bottom:], pixels[:, :left], pixels[:, right:] = 255, 255, 255, 255
    if kind == "JPEG" and (pixels[-1, -1] == 128).all() and _ends_early(file, pixels, min_side):
        raise ValueError("the data is cut off")
    return np.ascontiguousarray(_upright(pixels, image))


def _open(file: IO[bytes], kind: str) -> ImageFile.ImageFile:
    # Not Image.open: its pixel limit is one for the whole process, and a warning below twice that limit.
    file.seek(0)
    return Image.OPEN[kind][0](file, "")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImageError(
            f"{width} x {height} = {width * height:,} pixels, above the limit of {max_pixels:,} (decompression bomb?)"
        )
    if width <= 0 or height <= 0:
        raise BadImageError("it has no pixels")


def _to_rgb(image: ImageFile.ImageFile, file: IO[bytes], kind: str) -> Picture:
    transparent = image.info.get("transparency")
    if kind == "PNG":
        file.seek(24)
        bits, colour_type = file.read(2)
        if bits == 16 and colour_type in _PNG_COLOUR_TYPES_WITHOUT_16_BIT_MODE:
            file.seek(0)
            return to_bytes(read_deep_png(file.read()))
        if bits < 8 and image.mode == "L" and transparent is not None:
            # Pillow has spread the greys over 0 to 255, but not the one that is transparent.
            image.info["transparency"] = transparent * 255 // (2**bits - 1)
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        if transparent is not None:
            grey = np.stack([grey, np.where(grey == transparent, 0, 65535).astype(np.uint16)], axis=2)
        return to_bytes(grey, white=4095 if kind == "TIFF" else 65535)  # 16-bit TIFFs do not come here
    if image.mode == "I":
        return to_bytes(np.asarray(image), white=65535)  # PGM: Pillow has scaled the file's own maximum to this
    if image.mode == "F":
        return to_bytes(np.asarray(image))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
        opacity = rgba[..., 3:]
        return ((rgba[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _ends_early(file: IO[bytes], pixels: Picture, min_side: int | None) -> bool:
    """Tells whether a JPEG has an end marker, but not the data of all its blocks.

    libjpeg fills the rest with mid-grey and tells nobody. But then bytes put before the end marker become part of the
    picture, while behind complete data they are skipped. (A file cut inside its very last block passes.)
    """
    file.seek(0)
    data = file.read()
    position = 2
    while data[position + 1 : position + 2] not in (b"\xda", b""):  # the header's segments up to the start of scan
        is_padding = data[position + 1] == 0xFF
        position += 1 if is_padding else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    end = data.find(b"\xff\xd9", position)
    if end < 0:
        return False
    longer = _open(io.BytesIO(data[:end] + bytes(range(255)) * 2 + data[end:]), "JPEG")
    if min_side is not None:
        longer.draft(None, (min_side, min_side))
    return not np.array_equal(np.asarray(longer.convert("RGB")), pixels)


def _upright(pixels: Picture, image: ImageFile.ImageFile) -> Picture:
    try:
        # After loading: only then has Pillow seen an eXIf chunk behind the pixels, and it has turned TIFFs itself.
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data says nothing about the pixels
        orientation = 1
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return pixels.swapaxes(0, 1)
        case 6:
            return np.rot90(pixels, -1)
        case 7:
            return pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return np.rot90(pixels)
    return pixels


class _StrictPillow:
    """While any thread is inside: no warnings from Pillow's modules, and damaged files are errors.

    Pillow warns about damaged metadata of good pictures; and a program may have set `LOAD_TRUNCATED_IMAGES`, with which
    the missing part of a picture comes out grey. Both are state of the whole process, so the first thread to enter
    changes it and the last one to leave restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._restore.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
                if ImageFile.LOAD_TRUNCATED_IMAGES:
                    ImageFile.LOAD_TRUNCATED_IMAGES = False
                    self._restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", True)
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._restore.close()


_STRICT_PILLOW = _StrictPillow()
