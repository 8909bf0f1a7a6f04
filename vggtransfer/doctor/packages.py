"""Installed distributions against what vggtransfer and its requirements ask for, read from their metadata alone."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vggtransfer.doctor.finding import Finding

_DISTRIBUTION = "vggtransfer"
_EXTRAS_FOR_DEVELOPERS = {"dev", "test"}
# Modules that several distributions bring: the one installed last overwrites files of the others.
_CONTESTED = ("cv2", "faiss", "PIL", "torch", "torchvision")


def package_findings() -> list[Finding]:
    """Looks at Python's version, the requirements and theirs, clashes, and the optional extras."""
    try:
        own = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        found = "its source is there, but it is not installed, so that its requirements are unknown"
        return [Finding(_DISTRIBUTION, "broken", found, "python -m pip install -e . (in the folder of the source)")]
    wanted = [Requirement(text) for text in own.requires or ()]
    direct = [requirement for requirement in wanted if _applies(requirement)]
    return [
        _python(",".join(own.metadata.get_all("Requires-Python") or [])),
        Finding(_DISTRIBUTION, "ok", own.version),
        *_requirements(direct),
        *_clashes(direct),
        *_extras(own.metadata.get_all("Provides-Extra") or [], wanted),
    ]


def _python(wanted: str) -> Finding:
    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("python", "ok", version)
    remedy = "make a new environment with such a Python and install vggtransfer there"
    return Finding("python", "broken", f"{version}, but {wanted} is needed", remedy)


def _requirements(direct: list[Requirement]) -> Iterator[Finding]:
    """Reports each unmet requirement, of vggtransfer or of what it requires, directly or not."""
    faults = []
    seen: set[str] = set()
    missing: set[str] = set()
    waiting = [(requirement, _DISTRIBUTION) for requirement in direct]
    while waiting:
        requirement, asker = waiting.pop(0)
        name, version = canonicalize_name(requirement.name), installed_version(requirement.name)
        if version is None and name in missing:
            continue
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            there = "not installed" if version is None else version
            wish = f"{requirement.name}{requirement.specifier}"
            remedy = f"python -m pip install {shlex.quote(wish)}"
            if asker != _DISTRIBUTION:
                # The newest release of the asker may want another version; the two have to be chosen together.
                remedy = f"python -m pip install --upgrade {shlex.quote(asker)} {shlex.quote(requirement.name)}"
            faults.append(Finding(requirement.name, "broken", f"{there}, but {asker} needs {wish}", remedy))
        if version is None:
            missing.add(name)
        elif name not in seen:
            seen.add(name)
            waiting += [(theirs, requirement.name) for theirs in _requirements_of(requirement)]
    if faults:
        return iter(faults)
    return iter([Finding("requirements", "ok", f"all {len(seen)} packages are there, in versions that fit together")])


def _requirements_of(requirement: Requirement) -> Iterator[Requirement]:
    for text in metadata.requires(requirement.name) or ():
        try:
            theirs = Requirement(text)
        except InvalidRequirement:  # old releases on the index are worse than the standard allows
            continue
        if _applies(theirs, requirement.extras):
            yield theirs


def _applies(requirement: Requirement, extras: set[str] | None = None) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *(extras or ())))


def installed_version(name: str) -> str | None:
    """Returns the installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _clashes(direct: list[Requirement]) -> Iterator[Finding]:
    owners = metadata.packages_distributions()
    wishes = {canonicalize_name(requirement.name): requirement for requirement in direct}
    for module in _CONTESTED:
        names = sorted({canonicalize_name(name) for name in owners.get(module, ())})
        if len(names) > 1:
            wish = next((wishes[name] for name in names if name in wishes), None)
            kept = f"{wish.name}{wish.specifier}" if wish else names[0]
            # All of them go: removing one alone takes files with it that the other one needs.
            remedy = f"python -m pip uninstall -y {' '.join(names)} && python -m pip install {shlex.quote(kept)}"
            found = f"{' and '.join(names)} overwrite each other's files"
            if module == "faiss" and installed_version("milvus-lite"):
                found += " (milvus-lite brings faiss-cpu; it needs an environment of its own)"
            yield Finding(module, "broken", found, remedy)


def _extras(names: list[str], wanted: list[Requirement]) -> Iterator[Finding]:
    for extra in sorted(set(names) - _EXTRAS_FOR_DEVELOPERS):
        own = [
            requirement
            for requirement in wanted
            if requirement.marker and not _applies(requirement) and _applies(requirement, {extra})
        ]
        unmet = [requirement for requirement in own if not _is_met(requirement)]
        if unmet:
            missing = ", ".join(f"{requirement.name}{requirement.specifier}" for requirement in unmet)
            remedy = f"python -m pip install {shlex.quote(f'{_DISTRIBUTION}[{extra}]')}"
            yield Finding(f"extra {extra}", "hint", f"not installed: {missing}", remedy)
        else:
            there = ", ".join(f"{requirement.name} {installed_version(requirement.name)}" for requirement in own)
            yield Finding(f"extra {extra}", "ok", there)


def _is_met(requirement: Requirement) -> bool:
    version = installed_version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)
