"""From a template and its content to one HTML file that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

from vggtransfer.cache import write_atomically
from vggtransfer.printable import printable


def write_page(path: Path, template: str, content: Mapping[str, object], *, package: str) -> None:
    """Renders a job's template and writes the page atomically.

    Args:
        path: HTML file to write.
        template: Name of a file in the `templates` folder of `package`, which extends `report/page.html`.
        content: What the template names. Texts may hold anything: each is escaped, and what cannot be printed (line
            breaks, control characters, bytes that are no UTF-8) is spelled out.
        package: The job's package, such as `vggtransfer.classification`.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    text = render_page(template, content, package=package)
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_page(template: str, content: Mapping[str, object], *, package: str) -> str:
    """Returns the page as text; see `write_page`."""
    return _environment(package).get_template(template).render(content)


@functools.cache
def _environment(package: str) -> Environment:
    """Kept with its compiled templates, for whoever renders many pages."""
    shared = PrefixLoader({"report": PackageLoader("vggtransfer.report")})
    environment = Environment(
        loader=ChoiceLoader([shared, PackageLoader(package)]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment


def percent(share: float, digits: int = 1) -> str:
    """Returns `84.4%`; what is not quite all or nothing is never rounded to it."""
    text = f"{share:.{digits}%}"
    nearly = 0.1**digits
    if share < 1 and float(text[:-1]) == 100:
        return f"{100 - nearly:.{digits}f}%"
    if share > 0 and float(text[:-1]) == 0:
        return f"<{nearly:.{digits}f}%"
    return text


def _shown(value: object) -> object:
    """What is put into the page for a value: finished markup as it is, everything else as printable text."""
    if isinstance(value, int | float) or hasattr(value, "__html__"):
        return value
    return printable(value)
