"""Results as JSON that both programs and people can read: one line per key, and per item of a list of records."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping


def json_text(content: Mapping[str, object], *, encoding: str = "utf-8") -> str:
    """Returns one JSON object, in plain characters where the encoding has them all, else in escapes.

    File names may hold bytes that are no UTF-8; only escapes can carry them.
    """
    text = _layout(content, escape=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return _layout(content, escape=True)
    return text


def print_json(content: Mapping[str, object]) -> None:
    """Prints one JSON object to standard output."""
    print(json_text(content, encoding=sys.stdout.encoding or "utf-8"))


def _layout(content: Mapping[str, object], *, escape: bool) -> str:
    def dump(value: object) -> str:
        # NaN is no JSON, and nothing here may be NaN.
        return json.dumps(value, ensure_ascii=escape, allow_nan=False)

    def lines(value: object) -> str:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping | list | tuple):
            return "[\n    " + ",\n    ".join(map(dump, value)) + "\n  ]"
        return dump(value)

    return "{\n" + ",\n".join(f"  {dump(key)}: {lines(value)}" for key, value in content.items()) + "\n}"
