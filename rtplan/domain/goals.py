"""Clinical goals in the DVH grammar of TG-263, and how a dose is judged by them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Sense = Literal["<=", ">="]
Side = Literal["left", "right"]
Status = Literal["sourced", "unverified"]  # `unverified`: from memory of the named document, a physicist must confirm

_NUMBER = r"(\d+(?:\.\d+)?)"
_GRAMMAR = (
    ("mean_gy", re.compile(r"^Mean\[Gy\]$")),
    ("eud_gy", re.compile(r"^EUD(-?\d+(?:\.\d+)?)\[Gy\]$")),
    ("max_gy", re.compile(r"^Max\[Gy\]$")),
    ("min_gy", re.compile(r"^Min\[Gy\]$")),
    ("dose_at_percent", re.compile(rf"^D{_NUMBER}%?\[Gy\]$")),
    ("dose_at_cc", re.compile(rf"^D{_NUMBER}cc\[Gy\]$")),
    ("percent_at_gy", re.compile(rf"^V{_NUMBER}Gy\[%\]$")),
    ("cc_at_gy", re.compile(rf"^V{_NUMBER}Gy\[cc\]$")),
    ("percent_at_percent", re.compile(rf"^V{_NUMBER}%\[%\]$")),
    ("cc_at_percent", re.compile(rf"^V{_NUMBER}%\[cc\]$")),
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A parsed DVH metric, such as D99[Gy], D0.03cc[Gy], Mean[Gy], V20Gy[%], V105%[cc]."""

    text: str
    kind: str
    argument: float

    @property
    def unit(self) -> str:
        """Gy, % or cc."""
        return self.text[self.text.index("[") + 1 : -1]


def parse_metric(text: str) -> Metric:
    """Parse one metric. Raises ValueError when the text is not in the grammar."""
    for kind, pattern in _GRAMMAR:
        match = pattern.match(text)
        if match:
            argument = float(match.group(1)) if match.groups() else 0.0
            if kind == "eud_gy" and 0.0 <= argument < 1.0:
                break
            return Metric(text, kind, argument)
    raise ValueError(
        f"{text!r} is not a DVH metric; known: Mean[Gy] Max[Gy] Min[Gy] EUD8[Gy] EUD-10[Gy] D99[Gy] D0.03cc[Gy] V20Gy[%] "
        "V45Gy[cc] V95%[%] V105%[cc]"
    )


def evaluate_metric(metric: Metric, dose_gy: NDArray[np.floating], voxel_cc: float, prescribed_gy: float) -> float:
    """Value of a metric over the voxels of one structure, all of equal volume.

    D_x is the linearly interpolated percentile 100 - x; D_cc takes x = 100 cc / volume (at least one voxel), as the
    OpenKBP evaluation does. V_x counts voxels at or above the dose. `prescribed_gy` is what V_x% refers to.
    `dose_gy` is (n,) Gy, n >= 1.
    """
    dose = np.asarray(dose_gy, dtype=np.float64)
    if dose.size == 0:
        raise ValueError("a metric needs at least one voxel")
    match metric.kind:
        case "mean_gy":
            return float(dose.mean())
        case "eud_gy":
            return generalised_eud_gy(dose, metric.argument)
        case "max_gy":
            return float(dose.max())
        case "min_gy":
            return float(dose.min())
        case "dose_at_percent":
            return float(np.percentile(dose, 100.0 - metric.argument))
        case "dose_at_cc":
            voxels = max(1.0, round(metric.argument / voxel_cc))
            return float(np.percentile(dose, max(0.0, 100.0 - 100.0 * voxels / dose.size)))
        case "percent_at_gy":
            return float(np.mean(dose >= metric.argument) * 100.0)
        case "cc_at_gy":
            return float(np.sum(dose >= metric.argument) * voxel_cc)
        case "percent_at_percent":
            return float(np.mean(dose >= metric.argument / 100.0 * prescribed_gy) * 100.0)
        case "cc_at_percent":
            return float(np.sum(dose >= metric.argument / 100.0 * prescribed_gy) * voxel_cc)
    raise ValueError(f"unknown metric kind {metric.kind}")


def generalised_eud_gy(dose_gy: NDArray[np.float64], exponent: float) -> float:
    """Generalised equivalent uniform dose (mean of dᵃ)^(1/a), a >= 1 or a < 0 (Niemierko, Med Phys 26:1100, 1999)."""
    if exponent < 0.0 and dose_gy.min() <= 0.0:
        return 0.0
    scale = float(dose_gy.max() if exponent > 0.0 else dose_gy.min())
    return scale * float(np.mean((dose_gy / scale) ** exponent)) ** (1.0 / exponent) if scale > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What a structure's metric should be. Priority 0 is a hard limit; then targets (1), then organs in order."""

    structure: str
    metric: Metric
    sense: Sense
    limit: float
    priority: int
    source: str
    status: Status
    ideal: float | None = None
    side: Side | None = None  # of the target for which alone it holds

    def met_by(self, value: float) -> bool:
        """Whether a value satisfies the limit."""
        return value <= self.limit if self.sense == "<=" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Conflict:
    """A goal that excludes another one: with it alone at its limit, the other's metric provably stays beyond `bound`."""

    goal: Goal
    bound: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a goal's metric provably cannot be below (limits from above) or above, in its unit, whatever these beams'
    fluence, as long as targets keep their coverage, goals of a higher priority what they have, and no point of the structure
    gets hotter than its hottest is."""

    goal: Goal
    bound: float
    conflict: Conflict | None = None


@dataclass(frozen=True, slots=True)
class GoalResult:
    """A goal with the value that the final dose gives. `value` is None when the structure is absent."""

    goal: Goal
    value: float | None
    met: bool | None
