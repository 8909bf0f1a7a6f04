"""Clashes and gaps in made-up environments: folders with nothing but the metadata of distributions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vggtransfer.doctor.finding import Finding
from vggtransfer.doctor.packages import package_findings

OURS = """\
Requires-Python: >=3.11
Requires-Dist: faiss-gpu>=1.15
Requires-Dist: torch>=2.10
Requires-Dist: torchvision>=0.25
Requires-Dist: colorama; sys_platform == 'nowhere'
Requires-Dist: fastapi>=0.115; extra == 'web'
Requires-Dist: pytest; extra == 'test'
Provides-Extra: web
Provides-Extra: test
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs the metadata of one distribution into an otherwise empty environment that fits together."""

    def write(name: str, version: str, *, module: str = "", lines: str = "") -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}")
        (folder / "top_level.txt").write_text(module)

    write("vggtransfer", "0.1.0", module="vggtransfer", lines=OURS)
    write("faiss-gpu", "1.15.1", module="faiss")
    write("torchvision", "0.29.0", module="torchvision", lines="Requires-Dist: torch==2.14.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return write


def found(subject: str) -> list[Finding]:
    return [finding for finding in package_findings() if finding.subject == subject]


def test_an_environment_that_fits_together_is_well(install: Install) -> None:
    install("torch", "2.14.0", module="torch")
    findings = package_findings()
    assert {finding.state for finding in findings} == {"ok", "hint"}
    assert [finding.subject for finding in findings if finding.state == "hint"] == ["extra web"]
    assert found("extra web")[0].remedy == "python -m pip install 'vggtransfer[web]'"
    assert found("extra test") == []
    install("fastapi", "0.120.0")
    assert found("extra web")[0].found == "fastapi 0.120.0"


def test_two_faiss_overwrite_each_other(install: Install) -> None:
    install("torch", "2.14.0", module="torch")
    install("faiss-cpu", "1.13.0", module="faiss")
    install("milvus-lite", "2.5.0")
    (clash,) = found("faiss")
    assert clash.state == "broken"
    assert "faiss-cpu and faiss-gpu" in clash.found
    assert "milvus-lite" in clash.found
    assert clash.remedy == ("python -m pip uninstall -y faiss-cpu faiss-gpu && python -m pip install 'faiss-gpu>=1.15'")


def test_missing_old_and_mismatched_versions_are_told_with_what_to_type(install: Install) -> None:
    (missing,) = found("torch")
    assert (missing.state, missing.found) == ("broken", "not installed, but vggtransfer needs torch>=2.10")
    assert missing.remedy == "python -m pip install 'torch>=2.10'"
    install("torch", "2.9.0", module="torch")
    told = {finding.found: finding.remedy for finding in found("torch")}
    assert told["2.9.0, but vggtransfer needs torch>=2.10"] == "python -m pip install 'torch>=2.10'"
    assert told["2.9.0, but torchvision needs torch==2.14.0"] == "python -m pip install --upgrade torchvision torch"


def test_a_python_that_is_too_old_and_a_bare_source(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.10.2")
    assert found("python")[0].state == "broken"
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere")])
    (bare,) = package_findings()
    assert (bare.state, bare.remedy) == ("broken", "python -m pip install -e . (in the folder of the source)")
