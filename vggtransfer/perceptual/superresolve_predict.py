"""`vggtransfer superresolve-predict`: pictures made larger by a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vggtransfer.errors import DataError, OptionError
from vggtransfer.option_values import checked_values


@dataclass(frozen=True)
class EnlargementResult:
    """What `superresolve-predict` wrote: the folder, and the pictures in the order of their sources."""

    out: Path
    pictures: tuple[Path, ...]


def superresolve_predict(
    paths: list[str],
    *,
    model: Path,
    tile: int = 256,
    on_bad_image: Literal["skip", "stop"] = "skip",
    device: str = "auto",
    out: Path | None = None,
) -> EnlargementResult:
    """Makes pictures larger with a network trained by `superresolve`.

    Args:
        paths: Pictures, folders (with everything below them), patterns such as `photos/**/*.jpg`, or `-` for a list
            of these on standard input, one a line.
        model: Run directory of `superresolve`, or its `model.safetensors`.
        tile: Side of the parts that large pictures are worked on in, in pixels of the small picture; the result does
            not depend on it.
        on_bad_image: `skip` leaves unreadable pictures out and names them; `stop` ends with the first one.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        out: Folder for the PNG files, named as their sources; default: `runs/superresolve-predict/N` with the next free
            N.

    Returns:
        The folder and the files.

    Raises:
        VGGTransferError: An option, the model or a path cannot be used.
    """
    given = checked_values(superresolve_predict, {name: value for name, value in locals().items() if name != "paths"})
    model, out = given["model"], given["out"]
    if not 16 <= tile <= 16384:
        raise OptionError(f"--tile {tile} is not possible: use 16 to 16,384")
    from vggtransfer.data.decode import decode_image
    from vggtransfer.data.picture_files import list_pictures
    from vggtransfer.encoder.precision import resolve_device
    from vggtransfer.errors import BadImageError
    from vggtransfer.perceptual.pictures import as_picture, as_tensor, write_picture
    from vggtransfer.perceptual.super_network import enlarge_in_tiles, load_super_network
    from vggtransfer.printable import printable
    from vggtransfer.progress_bar import ProgressBar
    from vggtransfer.report.result_folder import check_result_folder, writing_results
    from vggtransfer.training.run_directory import create_run_directory, write_environment

    chosen_device = resolve_device(device)
    network = load_super_network(model).to(chosen_device)
    files = list_pictures(paths)
    check_result_folder(out)
    names = _names(files)
    if out is not None:
        sources = {file.resolve() for file in files}
        for name in names:
            if (out / name).resolve() in sources:
                raise OptionError(f"--out {out}: {name} there is one of the pictures; name another folder")
    folder = create_run_directory("superresolve-predict", None) if out is None else out
    written: list[Path] = []
    with writing_results(folder, asked=True):
        write_environment(folder, device=chosen_device, processes=1)
        with ProgressBar("enlarging", steps=len(files), shown=True) as bar:
            for file, name in zip(files, names, strict=True):
                bar.advance()
                try:
                    picture = as_tensor(decode_image(file)).to(chosen_device)
                except BadImageError as error:
                    if on_bad_image == "stop":
                        raise
                    print(f"warning: {printable(error)}")
                    continue
                large = enlarge_in_tiles(network, picture, tile=tile)
                written.append(write_picture(folder / name, as_picture(large)))
    if not written:
        raise DataError(f"none of {len(files)} pictures could be read")
    print(f"wrote {len(written)} picture{'s' if len(written) > 1 else ''} to {printable(folder)}")
    return EnlargementResult(folder, tuple(written))


def _names(files: Sequence[Path]) -> list[str]:
    """What each file becomes; equal names, from several folders, are numbered."""
    names: dict[str, None] = {}
    for file in files:
        name, number = f"{file.stem}.png", 1
        while name in names:
            number += 1
            name = f"{file.stem}_{number}.png"
        names[name] = None
    return list(names)
