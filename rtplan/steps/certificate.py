"""What could have been reached: a proven bound on each goal's metric, and which pairs of goals exclude each other.

A bound holds for these beams while every target keeps its coverage, every goal of a higher priority keeps what it has, and
no point of the structure itself gets hotter than its hottest is: points that keep a dose now go on keeping it, means that
are too high rise no further. It rests on a weighted mean (`rtplan.steps.proven_means`). What a dose-volume metric can be
follows: where a mean is at least B, a share of the volume that weighs W carries at most W times the hottest H, and the rest
reaches (B - W H) / (1 - W) somewhere.

Of a goal that is missed it is asked in the same way what one other goal alone, at its limit, leaves possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.goals import Certificate, Conflict, Goal
from rtplan.domain.prescription import Prescription
from rtplan.domain.progress import Progress, silent
from rtplan.steps.optimise import Problem
from rtplan.steps.proven_means import Claim, Condition, ProvenMean, driven_mean, kept, limit_kept, no_hotter
from rtplan.steps.samples import Samples
from rtplan.steps.solver import LowerModel
from rtplan.steps.wishes import Price, Wish, dose_and_volume

Floats = NDArray[np.float64]
Bargain = tuple[Wish, Price]
LowestOf = Callable[[Sequence[LowerModel]], Sequence[float]]  # each plane's least over all that may be delivered
LEAST_GY = 0.1  # the hottest point of a structure counts as at least so hot: none may get no dose at all
PAIRS = 3  # opponents of a missed goal that are looked at, those of the highest price first


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What certificates are made from: the ideal fluence's problem with its prices and residual, that fluence (n_beamlets,),
    its dose and the final one (n_voxels,), and what volumes and prescriptions metrics refer to."""

    problem: Problem
    weights_mu: Floats
    doses_gy: tuple[Floats, Floats]
    prescription: Prescription
    samples: Mapping[str, Samples]

    def __post_init__(self) -> None:
        if any(w.beside_gy is not None for w in self.problem.wishes):
            raise ValueError("certificates are of the ideal fluence, whose points were not measured one by one")

    @property
    def bargains(self) -> list[Bargain]:
        """The wish of every goal with its price; ideals are no conditions."""
        bargains = zip(self.problem.wishes, self.problem.prices, strict=True)
        return [(wish, price) for wish, price in bargains if not wish.is_ideal]

    def metric_bound(self, wish: Wish, proven: ProvenMean) -> float:
        """What a proven mean says of the wish's metric, in the metric's unit."""
        if wish.kind != "tail":
            return proven.mean_gy
        goal, volume_cc = wish.goal, self.samples[wish.goal.structure].volume_cc
        dose_gy, volume = dose_and_volume(goal, volume_cc, self.prescription.prescribed_gy(goal.structure))
        if goal.metric.unit == "Gy":
            return dose_bound_gy(proven, wish.share, volume)
        return volume_bound(proven, wish.share, dose_gy) * (volume_cc if goal.metric.unit == "cc" else 100.0)


def over_the_box(planes: Sequence[LowerModel]) -> list[float]:
    """Each plane's least over all fluence of the problem's beams within its bounds."""
    return [plane.bound for plane in planes]


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """A goal's wish, what its mean can be driven to, and the same with one other goal alone at its limit, if that rules the
    goal out."""

    wish: Wish
    claim: Claim
    opponent: tuple[Goal, Claim] | None


def certified(
    question: Question, missed: frozenset[Goal], progress: Progress = silent, lowest_of: LowestOf = over_the_box
) -> tuple[Certificate, ...]:
    """A certificate for every goal; of a goal that is `missed` also what excludes it, where one other goal alone does.

    `lowest_of` is asked once, for the planes of all proofs: it may know of more beams than the problem has.
    """
    cases = _cases(question, missed, progress)
    claims = {id(claim): claim for c in cases for claim in (c.claim, *((c.opponent[1],) if c.opponent else ()))}
    lowest = lowest_of([claim.plane for claim in claims.values()])
    proven = {key: claim.proven(low) for (key, claim), low in zip(claims.items(), lowest, strict=True)}
    found = []
    for case in cases:
        bound, conflict = question.metric_bound(case.wish, proven[id(case.claim)]), None
        if case.opponent is not None:
            goal, claim = case.opponent
            alone = question.metric_bound(case.wish, proven[id(claim)])
            conflict = None if case.wish.goal.met_by(alone) else Conflict(goal, alone)
        found.append(Certificate(case.wish.goal, bound, conflict))
    return tuple(found)


def _cases(question: Question, missed: frozenset[Goal], progress: Progress) -> list[_Case]:
    """What is to be proven, judged for now by the fluence of the problem's own beams."""
    claims: dict[tuple[str, str, bool, int], Claim] = {}
    found: list[_Case] = []
    for bargain in question.bargains:
        wish = bargain[0]
        progress("certify", len(found) / len(question.bargains), wish.label)
        # Goals of one structure, side and priority share one proof.
        asked = (wish.goal.structure, wish.kind, wish.upper, wish.goal.priority)
        if asked not in claims:
            claims[asked] = _claim(question, bargain)
        claim, opponent = claims[asked], None
        if wish.goal in missed:
            # What is kept besides all else allows more alone; what the plan misses was no condition yet.
            within = wish.goal.met_by(question.metric_bound(wish, claim.proven(claim.plane.bound)))
            opponents = missed if within else frozenset(w.goal for w, _ in question.bargains)
            opponent = _opponent(question, bargain, claim, opponents)
        found.append(_Case(wish, claim, opponent))
    return found


def _claim(question: Question, bargain: Bargain) -> Claim:
    conditions = kept([b for b in question.bargains if _stands_above(b[0], bargain[0])], question.doses_gy)
    return _under(question, bargain, conditions, None)


def _stands_above(other: Wish, wish: Wish) -> bool:
    """Whether a goal keeps what it has while the wish's is driven: a higher priority, or the coverage of a target."""
    return other.goal.priority < wish.goal.priority or (wish.upper and not other.upper)


def _under(question: Question, bargain: Bargain, conditions: tuple[Condition, ...], weight: Floats | None) -> Claim:
    wish = bargain[0]
    hottest_gy = max(LEAST_GY, *(float(wish.at_points(dose).max()) for dose in question.doses_gy))
    if wish.kind == "tail" or not wish.upper:
        conditions = (*conditions, no_hotter(wish, hottest_gy))
    return driven_mean(question.problem, question.weights_mu, bargain, conditions, hottest_gy, weight)


def _opponent(question: Question, bargain: Bargain, claim: Claim, opponents: frozenset[Goal]) -> tuple[Goal, Claim] | None:
    """The first opponent on the other side, by what its wish has spent, that at its limit alone rules the goal out."""
    wish = bargain[0]
    asked = [(w, p) for w, p in question.bargains if w.upper != wish.upper and w.goal in opponents and p.amount.any()]
    asked.sort(key=lambda other: -float(other[0].weight() @ other[1].amount))
    for other, price in asked[:PAIRS]:
        alone = _under(question, bargain, (_at_limit(question, other, price),), claim.weight)
        if not wish.goal.met_by(question.metric_bound(wish, alone.proven(alone.plane.bound))):
            return other.goal, alone
    return None


def _at_limit(question: Question, wish: Wish, price: Price) -> Condition:
    """A goal at its limit, no more; the part that a dose-volume goal allows is let off where it lies in the ideal dose."""
    goal = wish.goal
    if wish.kind != "tail":
        return limit_kept(wish, price, goal.limit, np.zeros(0))
    volume_cc, prescribed_gy = (
        question.samples[goal.structure].volume_cc,
        question.prescription.prescribed_gy(goal.structure),
    )
    level_gy, volume = dose_and_volume(goal, volume_cc, prescribed_gy)
    worst_first = np.argsort(-wish.beyond_gy(question.doses_gy[0]), kind="stable")
    off = np.zeros(len(worst_first), dtype=bool)
    off[worst_first] = np.cumsum(wish.share[worst_first]) <= (volume if wish.upper else 1.0 - volume) + 1e-9
    return limit_kept(wish, price, level_gy, off)


def _heaviest(proven: ProvenMean, share: Floats) -> tuple[Floats, Floats]:
    """Shares of the volume, and the most that such a share can weigh: both from 0 to 1, ascending (n + 1,)."""
    order = np.argsort(-proven.weight / share, kind="stable")
    return np.append(0.0, np.cumsum(share[order])), np.append(0.0, np.cumsum(proven.weight[order]))


def dose_bound_gy(proven: ProvenMean, share: Floats, volume_share: float) -> float:
    """Of the dose that `volume_share` of the structure gets at least: it is not below (`upper`), or not above, Gy."""
    volumes, weights = _heaviest(proven, share)
    let_off = float(np.interp(volume_share if proven.upper else 1.0 - volume_share, volumes, weights))
    rest = max(1.0 - let_off, 1e-9)
    if proven.upper:
        return max((proven.mean_gy - let_off * proven.hottest_gy) / rest, 0.0)
    return min(proven.mean_gy / rest, proven.hottest_gy)


def volume_bound(proven: ProvenMean, share: Floats, dose_gy: float) -> float:
    """Of the share of the volume that gets `dose_gy`: it is not below (`upper`), or not above."""
    volumes, weights = _heaviest(proven, share)
    if not proven.upper:
        return 1.0 - float(np.interp(1.0 - proven.mean_gy / dose_gy, weights, volumes))
    if proven.mean_gy <= dose_gy:
        return 0.0
    return float(np.interp((proven.mean_gy - dose_gy) / (proven.hottest_gy - dose_gy), weights, volumes))
