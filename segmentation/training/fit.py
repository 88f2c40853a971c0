"""The arithmetic of the calibration: Dice to expect, and where doubts begin. NumPy only, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from segmentation.doubt.calibration import INPUTS, Calibration, Limits

BAD_DICE, GOOD_DICE = 0.6, 0.8
# Asked of the calibration patients: more than of the validation (0.8), because limits chosen on few patients flatter.
DETECTED_SHARE = 0.88
RIDGE, STRUCTURE_RIDGE = 0.3, 2.0
# More agreement is never a reason to be less sure, nor more doubt or oddity one to be surer; of `cut` nothing is presumed.
SIGNS = {
    **dict.fromkeys(("expected_dice", "members_dice", "levels_dice", "p_inside"), 1),
    **dict.fromkeys(("shell", "removed_share", "oddity"), -1),
    "cut": 0,
}
FLAG_CONFIDENCES = tuple(float(c) for c in np.round(np.arange(0.40, 0.83, 0.01), 2))
FLAG_EXCESSES = (0.5, 0.75, 1.0, 1.5, 2.0)
HOLD_BELOW_FLAG, HOLD_OVER_FLAG, SCAN_EXCESS = 0.2, 2.5, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A structure that has a reference, as drawn for one patient under one condition.

    `inputs` of the confidence, None when nothing was drawn; `excess`, its oddest measure; `codes` of flags and holds
    that no limit moves.
    """

    case_id: str
    condition: str
    name: str
    dice: float
    inputs: NDArray[np.float64] | None
    excess: float
    codes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many bad structures carry a flag or a hold, and how many good ones."""

    bad: int
    bad_flagged: int
    good: int
    good_flagged: int

    @property
    def detected_share(self) -> float:
        """Of structures with Dice below 0.6."""
        return self.bad_flagged / self.bad if self.bad else 1.0

    @property
    def alarm_share(self) -> float:
        """Of structures with Dice above 0.8."""
        return self.good_flagged / self.good if self.good else 0.0

    def told(self) -> str:
        """Both figures with their counts."""
        return (
            f"Dice < {BAD_DICE}: {self.bad_flagged}/{self.bad} flagged ({100 * self.detected_share:.0f} %)   "
            f"Dice > {GOOD_DICE}: {self.good_flagged}/{self.good} flagged ({100 * self.alarm_share:.1f} %)"
        )


def fitted(samples: Sequence[Sample]) -> Calibration:
    """Confidence and limits over samples."""
    drawn = [s for s in samples if s.inputs is not None]
    weights, intercept, intercepts = _logistic(drawn)
    start = Limits(1.0, 0.0, 1.0, 1.0, SCAN_EXCESS)
    return with_limits(Calibration(weights, intercept, intercepts, start), samples)


def with_limits(calibration: Calibration, samples: Sequence[Sample]) -> Calibration:
    """The limits with the fewest false alarms among those that find enough bad structures, else those that find most."""
    confidence = [_confidence(calibration, s) for s in samples]
    best: tuple[tuple[bool, float, float], float, float] | None = None
    for flag_confidence, flag_excess in product(FLAG_CONFIDENCES, FLAG_EXCESSES):
        found = tally(samples, confidence, flag_confidence, flag_excess)
        enough = found.detected_share >= DETECTED_SHARE
        merit = (enough, -found.alarm_share if enough else found.detected_share, found.detected_share)
        if best is None or merit > best[0]:
            best = merit, flag_confidence, flag_excess
    if best is None:
        raise ValueError("no limits to choose from")
    _, flag, excess = best
    limits = Limits(flag, max(0.0, flag - HOLD_BELOW_FLAG), excess, excess + HOLD_OVER_FLAG, SCAN_EXCESS)
    return Calibration(calibration.weights, calibration.intercept, calibration.intercepts, limits)


def tally(
    samples: Sequence[Sample], confidence: Sequence[float | None], flag_confidence: float, flag_excess: float
) -> Tally:
    """Count flags among bad and good structures. One that was not drawn at all is told as not found, so it is flagged."""
    dice = np.array([s.dice for s in samples])
    low = np.array([c is None or c < flag_confidence for c in confidence])
    flagged = low | np.array([s.excess > flag_excess or bool(s.codes) for s in samples])
    bad, good = dice < BAD_DICE, dice > GOOD_DICE
    return Tally(int(bad.sum()), int((bad & flagged).sum()), int(good.sum()), int((good & flagged).sum()))


def tally_of(calibration: Calibration, samples: Sequence[Sample]) -> Tally:
    """The count under a calibration's own limits."""
    confidence = [_confidence(calibration, s) for s in samples]
    return tally(samples, confidence, calibration.limits.flag_confidence, calibration.limits.flag_excess)


def left_out(samples: Sequence[Sample]) -> tuple[Tally, float]:
    """Each patient judged by a calibration that never saw it: the count, and the mean error of the confidence."""
    total, errors = Tally(0, 0, 0, 0), []
    for case_id in sorted({s.case_id for s in samples}):
        calibration = fitted([s for s in samples if s.case_id != case_id])
        own = [s for s in samples if s.case_id == case_id]
        total = added(total, tally_of(calibration, own))
        errors += [abs(c - s.dice) for s in own if (c := _confidence(calibration, s)) is not None]
    return total, float(np.mean(errors))


def added(one: Tally, other: Tally) -> Tally:
    """Counts of both."""
    return Tally(
        one.bad + other.bad,
        one.bad_flagged + other.bad_flagged,
        one.good + other.good,
        one.good_flagged + other.good_flagged,
    )


def _confidence(calibration: Calibration, sample: Sample) -> float | None:
    return None if sample.inputs is None else calibration.expected_dice(sample.name, sample.inputs)


def _logistic(samples: Sequence[Sample]) -> tuple[tuple[float, ...], float, dict[str, float]]:
    """Logistic regression of the Dice as a share. An input whose weight would have the wrong sign is left out (weight 0)."""
    names = sorted({s.name for s in samples})
    inputs = np.array([s.inputs for s in samples], np.float64)
    dice = np.array([s.dice for s in samples])
    of_name = np.array([[float(s.name == name) for name in names] for s in samples])
    n, signs = len(INPUTS), np.array([SIGNS[key] for key in INPUTS])
    used = np.ones(n, bool)
    while True:
        design = np.hstack([inputs * used, of_name, np.ones((len(samples), 1))])
        ridge = np.array([RIDGE] * n + [STRUCTURE_RIDGE] * len(names) + [0.0])
        solution = _newton(design, dice, ridge)
        wrong = used & (solution[:n] * signs < 0)
        if not wrong.any():
            break
        used[int(np.argmax(np.where(wrong, np.abs(solution[:n]), 0.0)))] = False
    intercepts = {name: float(value) for name, value in zip(names, solution[n:-1], strict=True)}
    return tuple(float(w) for w in solution[:n]), float(solution[-1]), intercepts


def _newton(design: NDArray[np.float64], dice: NDArray[np.float64], ridge: NDArray[np.float64]) -> NDArray[np.float64]:
    solution = np.zeros(design.shape[1])
    weight = _balance(dice)
    for _ in range(50):
        expected = 1.0 / (1.0 + np.exp(-design @ solution))
        gradient = design.T @ (weight * (dice - expected)) - ridge * solution
        curvature = (design * (weight * np.maximum(expected * (1 - expected), 1e-3))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(curvature)), gradient)
        solution = solution + np.clip(step, -1.0, 1.0)
        if np.max(np.abs(step)) < 1e-8:
            break
    return solution


def _balance(dice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that make bad and other structures count alike, within reason."""
    bad = dice < BAD_DICE
    share = min(max(float(bad.mean()), 0.1), 0.9)
    return np.where(bad, 0.5 / share, 0.5 / (1.0 - share))


def conditions_of(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Conditions in the order they appear."""
    return tuple(dict.fromkeys(s.condition for s in samples))
