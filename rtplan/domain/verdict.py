"""What is said about a case: findings for the reviewer, goal results, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "flag", "hold"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the reviewer must see. `hold` needs a named person before the plan may be used.

    `structure` names the structure it is about, where it is about one; `at_zyx` is the index of a voxel of the CT that
    shows it, for a picture.
    """

    code: str
    severity: Severity
    message: str
    structure: str = ""
    at_zyx: tuple[int, int, int] | None = None

    @property
    def line(self) -> str:
        """The finding on one line."""
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of one plan check. A plan that does not pass goes no further; `findings` go with one that does."""

    check_id: str
    passed: bool
    message: str
    findings: tuple[Finding, ...] = ()


Outcome = Literal["goals_met", "goals_missed", "rejected", "failed"]
EXIT_CODES: dict[Outcome, int] = {"goals_met": 0, "failed": 1, "goals_missed": 3, "rejected": 4}
