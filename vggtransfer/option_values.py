"""Checks what Python callers and recipe files give against the signature of a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vggtransfer.errors import OptionError, did_you_mean


def checked_values(function: Callable[..., object], values: Mapping[str, object], *, place: str = "") -> dict[str, Any]:
    """Returns the values, with text where a path is wanted turned into one.

    Args:
        function: Its annotations are scalars, Literals, paths, None, and unions of these.
        values: Arguments of it by name.
        place: What errors start with, such as the name of the file that holds the values.

    Raises:
        OptionError: A name that is no parameter, or a value of the wrong type.
    """
    hints = get_type_hints(function)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints or name == "return":
            raise OptionError(f"{place}unknown option '{name}'{did_you_mean(name, hints)}")
        kinds = _alternatives(hints[name])
        if not any(_fits(value, kind) for kind in kinds):
            accepted = ", ".join(_shown(kind) for kind in kinds)
            raise OptionError(f"{place}{name}={value!r} is not possible; accepted: {accepted}")
        checked[name] = Path(value) if isinstance(value, str) and Path in kinds and str not in kinds else value
    return checked


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is Path:
        return isinstance(value, (str, Path))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _shown(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    return {NoneType: "None", Path: "a path", str: "text", int: "a whole number", float: "a number", bool: "a bool"}[
        kind
    ]
