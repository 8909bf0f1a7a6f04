from __future__ import annotations

import json

import pytest

from vggtransfer.cli import main
from vggtransfer.doctor.finding import Finding


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the doctor finds in the packages; libraries and machine have nothing to say."""
    findings = [Finding("torch", "ok", "2.14"), Finding("extra web", "hint", "not installed", "pip install it")]
    monkeypatch.setattr("vggtransfer.doctor.packages.package_findings", lambda: findings)
    monkeypatch.setattr("vggtransfer.doctor.libraries.findings_of_this_machine", list)
    monkeypatch.setattr("vggtransfer.doctor.machine.machine_findings", list)
    return findings


def test_a_healthy_machine_is_exit_code_0(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "torch", "2.14"]
    assert lines[2].split(maxsplit=1) == ["->", "pip install it"]
    assert lines[-1] == "Nothing is broken."


def test_something_broken_is_exit_code_1(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(Finding("faiss", "broken", "two of them\n", "uninstall one"))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "BROKEN  faiss      two of them\\n" in printed
    assert "1 broken" in printed
    assert main(["doctor", "--format", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["healthy"] is False
    assert answer["findings"][2]["remedy"] == "uninstall one"
