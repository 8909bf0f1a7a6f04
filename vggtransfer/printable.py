"""Names of files and classes for people's eyes: they may hold any character, and must not upset what shows them."""

from __future__ import annotations


def printable(text: object) -> str:
    """Escapes what breaks lines, controls a terminal, turns the direction of writing or is no character at all."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in str(text)
    )
