"""Changes of an index that embed nothing: pictures taken out, vectors arranged anew."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.index_folder import IndexFolder
from vggtransfer.retrieval.index_settings import IndexSettings
from vggtransfer.retrieval.index_state import IndexState, read_state
from vggtransfer.retrieval.index_writing import NextGeneration, no_rows, write_generation


def remove_pictures(folder: IndexFolder, paths_or_ids: Sequence[str | os.PathLike[str] | int], *, gpu: bool) -> int:
    """Takes pictures out; returns how many. See `ImageIndex.remove`."""
    with folder.locked():
        state = read_state(folder)
        stay = np.ones(len(state.table), bool)
        by_name = {name: position for position, name in enumerate(state.table.names)}
        for one in paths_or_ids:
            stay[_positions(state, by_name, one)] = False
        if not stay.any():
            raise OptionError(f"no picture would be left; delete the folder {folder.path} instead")
        table = state.table.chosen(np.flatnonzero(stay))
        write_generation(folder, state, replace(_as_it_is(state), table=table), gpu=gpu)
    return int((~stay).sum())


def arrange_anew(folder: IndexFolder, settings: IndexSettings | None, *, relearn: bool, gpu: bool) -> None:
    """Arranges all vectors anew, with other settings unless they are None. See `ImageIndex.rebuild`."""
    with folder.locked():
        state = read_state(folder)
        new = replace(_as_it_is(state), settings=settings or state.settings, anew=True, relearn=relearn)
        write_generation(folder, state, new, gpu=gpu)


def _as_it_is(state: IndexState) -> NextGeneration:
    return NextGeneration(
        data=state.data,
        table=state.table,
        added=no_rows(),
        bad=state.bad,
        next_id=state.description["next_id"],
        embedding=state.description["embedding"],
        features=state.vectors.embeddings.shape[1],
        settings=state.settings,
    )


def _positions(state: IndexState, by_name: Mapping[str, int], one: str | os.PathLike[str] | int) -> list[int]:
    """Where the pictures stand that an id, a file or a folder means."""
    if isinstance(one, int | np.integer):
        position = state.table.position(int(one))
        found = [] if position is None else [position]
    else:
        path = Path(one).expanduser()
        absolute = path.parent.resolve() / path.name
        below = absolute.is_relative_to(state.data)
        name = absolute.relative_to(state.data).as_posix() if below else str(absolute)
        inside = "" if name == "." else f"{name}/"
        if name in by_name:
            found = [by_name[name]]
        else:
            found = [at for other, at in by_name.items() if other.startswith(inside)]
    if not found:
        raise OptionError(f"{state.folder.path} has no picture {one}")
    return found
