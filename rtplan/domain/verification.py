"""What the final dose gives: goals judged, target figures, histograms, checks."""

from __future__ import annotations

from dataclasses import dataclass

from rtplan.domain.dose import Dvh
from rtplan.domain.goals import GoalResult
from rtplan.domain.grid import Float3
from rtplan.domain.verdict import CheckResult, Outcome


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """Figures of one target in the final dose. D_x in Gy is the dose that x percent of the target receives at least.

    `homogeneity_index` = (D2 - D98) / D50 (ICRU 83). `conformity_index` = TV95^2 / (TV * V95) (Paddick 2000), where V95 is
    the whole volume that receives 95 % of the prescribed dose and TV95 the part of the target inside it; None when V95 is 0.
    """

    name: str
    prescribed_gy: float
    volume_cc: float
    d99_gy: float
    d98_gy: float
    d95_gy: float
    d50_gy: float
    d2_gy: float
    d1_gy: float
    mean_gy: float
    max_gy: float
    v95_percent: float
    v107_percent: float
    homogeneity_index: float
    conformity_index: float | None


@dataclass(frozen=True, slots=True)
class HotPoint:
    """Where the dose is highest, and in which structures that lies."""

    dose_gy: float
    point_xyz_mm: Float3
    structures: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """A plan judged by its final dose. `outcome` is goals_met only when every goal that could be judged is met."""

    goals: tuple[GoalResult, ...]
    targets: tuple[TargetSummary, ...]
    dvhs: tuple[Dvh, ...]
    hottest: HotPoint
    checks: tuple[CheckResult, ...]
    outcome: Outcome
