"""What became of every goal on the way from the ideal fluence to the final dose, and what a small shift makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rtplan.domain.goals import Goal

Stage = Literal["ideal_fluence", "sequenced", "final"]
STAGES: tuple[Stage, ...] = ("ideal_fluence", "sequenced", "final")  # in the order in which a plan is made
Towards = Literal["left", "right", "posterior", "anterior", "superior", "inferior"]


@dataclass(frozen=True, slots=True)
class StageValue:
    """A goal's value at one stage, in the metric's unit."""

    stage: Stage
    value: float


@dataclass(frozen=True, slots=True)
class WorstShift:
    """The worst value of a goal, in the metric's unit, over the shifts of the patient, and the shift that gives it."""

    towards: Towards
    value: float
    met: bool


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One goal: `stages` in the order in which the plan was made, the final dose last, and the worst shift.

    Both are empty when the goal's structure is absent.
    """

    goal: Goal
    stages: tuple[StageValue, ...]
    worst: WorstShift | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """A row for every goal, in the prescription's order; shifts are of `shift_mm`."""

    rows: tuple[LedgerRow, ...]
    shift_mm: float
