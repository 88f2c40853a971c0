"""What came of one case, as a plain value that crosses processes and files."""

from __future__ import annotations

from dataclasses import dataclass

from rtplan.domain.verdict import EXIT_CODES, Outcome


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """The end of one case: a plan with its goals counted, or the mistake that ended it.

    `code` is stable and meant for programs ("PLANNED", or the code of the error); `message` is one line for a person.
    `files` are names inside the output folder. `missed` are the goals that the final dose does not meet, one text each;
    `held` what a named person must answer before the plan may be used, one text each.
    `found`, `expected`, `remedy` repeat the error's parts and are empty for a plan. `error_exit_code` is the error's own
    exit code where it differs from the outcome's.
    """

    outcome: Outcome
    code: str
    message: str
    files: tuple[str, ...] = ()
    goals_met: int = 0
    goals_total: int = 0
    missed: tuple[str, ...] = ()
    seconds: float = 0.0
    found: str = ""
    expected: str = ""
    remedy: str = ""
    error_exit_code: int | None = None
    held: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """What a command that ran this one case exits with."""
        return EXIT_CODES[self.outcome] if self.error_exit_code is None else self.error_exit_code

    @property
    def planned(self) -> bool:
        """Whether a plan was written."""
        return self.outcome in ("goals_met", "goals_missed")


# Worst first: a failure hides that the engine itself may be at fault, a rejection is the sender's to mend.
_WORST_FIRST: tuple[Outcome, ...] = ("failed", "rejected", "goals_missed", "goals_met")


def worst_exit_code(outcomes: tuple[CaseOutcome, ...]) -> int:
    """Exit code of a run of many cases: 1 any failed, else 4 any rejected, else 3 any goal missed, else 0."""
    seen = {o.outcome for o in outcomes}
    return next((EXIT_CODES[o] for o in _WORST_FIRST if o in seen), 0)
