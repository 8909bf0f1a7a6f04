"""Tables for people's terminals that no pipe cuts short."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table


def plain_table(*headings: str, numbers: tuple[str, ...] = ()) -> Table:
    """Returns an empty table whose cells are text as it stands; `numbers` are the headings aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Prints a table to standard output: as wide as the terminal, or as wide as it needs to be into a pipe or file."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        wide = console.options.update(max_width=100_000)
        console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
