"""`vggtransfer doctor`: what is installed, whether it works, and what to type where it does not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.errors import OptionError
from vggtransfer.printable import printable

if TYPE_CHECKING:
    from vggtransfer.doctor.finding import Finding

_SIGNS = {"ok": "ok    ", "hint": "hint  ", "broken": "BROKEN"}


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, in the order it is shown.

    Attributes:
        findings: See `vggtransfer.doctor.finding.Finding`.
    """

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken; hints do not count."""
        return all(finding.state != "broken" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 if healthy, else 1: what the command line answers to scripts."""
        return 0 if self.healthy else 1

    def as_dict(self) -> dict[str, Any]:
        return {"healthy": self.healthy, "findings": [asdict(finding) for finding in self.findings]}


def doctor(*, format: Literal["table", "json"] = "table") -> Diagnosis:  # noqa: A002
    """Looks at the installation and this machine, and says what to type to mend what is wrong.

    Looks at Python, versions of all packages against what is required, packages that overwrite each other (faiss-cpu
    and faiss-gpu), optional extras, GPUs and drivers, the precision that is fast here, cache folder, memory and
    disks. Libraries are imported and tried in another process. Nothing is changed or sent anywhere. The exit code is 0
    if nothing is broken, else 1.

    Args:
        format: Lines for people, or one JSON object.
    """
    if format not in ("table", "json"):
        raise OptionError(f"format={format} is not possible: use table or json")
    from vggtransfer.doctor.libraries import findings_of_this_machine
    from vggtransfer.doctor.machine import machine_findings
    from vggtransfer.doctor.packages import package_findings

    diagnosis = Diagnosis((*package_findings(), *findings_of_this_machine(), *machine_findings()))
    if format == "json":
        print(json.dumps(diagnosis.as_dict(), indent=2))
    else:
        print("\n".join(_lines(diagnosis)))
    return diagnosis


def _lines(diagnosis: Diagnosis) -> list[str]:
    # Without rich, which may be what is missing.
    width = max(len(finding.subject) for finding in diagnosis.findings)
    lines = []
    for finding in diagnosis.findings:
        lines.append(f"{_SIGNS[finding.state]}  {finding.subject:<{width}}  {printable(finding.found)}")
        if finding.remedy:
            lines.append(f"{'':6}  {'':{width}}  -> {finding.remedy}")
    broken = sum(finding.state == "broken" for finding in diagnosis.findings)
    lines += ["", "Nothing is broken." if not broken else f"{broken} broken: do what the arrows say, top to bottom."]
    return lines
