"""The look of `vggtransfer COMMAND --help`."""

from __future__ import annotations

import argparse
import textwrap

from jsonargparse import DefaultHelpFormatter

from vggtransfer.command_line.parameters import Parameter


class HelpFormatter(DefaultHelpFormatter):
    """Shows every option in kebab-case with what it takes, and keeps the paragraphs of the docstring."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)  # type: ignore[no-untyped-call]

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return str(action.metavar)

    def _expand_help(self, action: argparse.Action) -> str:
        return action.help or ""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            textwrap.fill(" ".join(paragraph.split()), width, initial_indent=indent, subsequent_indent=indent)
            for paragraph in text.split("\n\n")
        )


def described(parameter: Parameter) -> tuple[str, str]:
    """Returns how a parameter is typed, and its help with choices and default."""
    invocation, text = parameter.spelling, parameter.help
    if not parameter.positional:
        invocation += f" {parameter.metavar}"
    if "NAME" in parameter.metavar.split("|"):
        text += f" One of {', '.join(map(str, parameter.choices))}."
    if parameter.required:
        text += " (required)"
    elif parameter.default not in (None, (), []):
        text += f" (default: {shown(parameter.default)})"
    return invocation, text.strip()


def shown(value: object) -> str:
    """Returns a value as it is typed on the command line."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(shown, value))
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
