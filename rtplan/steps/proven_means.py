"""A proven bound on a weighted mean of one structure's dose, while other things keep what they have.

The mean is driven down (for an upper limit; up for a lower one) alone, under conditions. That problem is convex, the plan's
ideal fluence is feasible in it, and any prices of its conditions give a bound by duality, however far the solver has come
(`rtplan.steps.solver`). A bound is therefore never better than what the ideal fluence reached.

Where the weights are not given (dose-volume goals) they are those of a generalised mean that was driven down before: they
lie where the dose cannot be avoided. Any weights prove something; these prove much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.registry import shelf
from rtplan.steps.optimise import Problem, Term, inverse_curvature
from rtplan.steps.solver import BoxFunction, LowerModel, Solution, minimise
from rtplan.steps.wishes import PRICE_CAPS, SMALLEST_TAIL, TAIL_STIFFNESS, Price, Wish

Floats = NDArray[np.float64]
Condition = tuple[Wish, Price]

ITERATIONS = 40
SPREAD_ITERATIONS = 30  # of the generalised mean that gives the weights
EXPONENT = 12.0  # of that mean
WORTH = 30.0  # Gy² of objective for a Gy less, or what the plan's wish pays where that is more: so that its prices fit
SLOW = 0.33  # rise of prices over that of the plan
# Prices that the plan paid in a fight over another goal are too high here: the share of them that proves most is taken.
PRICE_SCALES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.0)
PRICE_ROOM = 10.0  # cap of the conditions' prices over those of the plan: an elastic condition proves less than a firm one


@dataclass(frozen=True, slots=True, eq=False)
class ProvenMean:
    """The dose at a structure's points, weighed by `weight` (n,) of sum 1, is at least `mean_gy` (`upper`: of a limit from
    above) or at most, as long as no point is hotter than `hottest_gy`."""

    weight: Floats
    mean_gy: float
    hottest_gy: float
    upper: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A squared distance of a weighted mean from 0 Gy (`upper`), or from `hottest_gy`, that `plane` proves: its bound is on
    `per_gy2` times the square."""

    weight: Floats
    hottest_gy: float
    upper: bool
    per_gy2: float
    plane: LowerModel

    def proven(self, value: float) -> ProvenMean:
        """The mean, where the plane nowhere lies below `value`."""
        away = float(np.sqrt(max(value, 0.0) / self.per_gy2))
        return ProvenMean(self.weight, away if self.upper else self.hottest_gy - away, self.hottest_gy, self.upper)


def driven_mean(
    problem: Problem,
    weights_mu: Floats,
    bargain: tuple[Wish, Price],
    conditions: tuple[Condition, ...],
    hottest_gy: float,
    weight: Floats | None = None,
) -> Claim:
    """What the mean at a wish's points, weighed by `weight` (n,), can be driven to under `conditions`.

    Without `weight` a goal on a mean takes its own, a dose-volume goal those where the dose cannot be avoided. `problem`
    gives operator, bounds and offset; `weights_mu` (n_beamlets,), where the solver begins, should keep the conditions.
    """
    (wish, price), start = bargain, weights_mu
    worth = max(WORTH, float(wish.weight() @ price.amount))
    if weight is None:
        weight = wish.share
        if wish.kind == "tail":
            driven = _driven(
                problem, _spread_term(problem, wish, start, hottest_gy, worth), conditions, start, SPREAD_ITERATIONS
            )
            function, start = cast(Problem, driven.function), driven.weights
            conditions = tuple(zip(function.wishes, function.prices, strict=True))
            weight = _unavoidable(wish, function.dose_gy(function.image(start)))
    part = weight if wish.mixing is None else np.asarray(weight @ wish.mixing)
    now = float(part @ _dose_gy(problem, weights_mu)[wish.rows])
    kind, level_gy = ("mean_dose", 0.0) if wish.upper else ("mean_underdose", hottest_gy)
    term = _term(wish, part, kind, worth / max(abs(now - level_gy), 1.0), {"dose_gy": level_gy})
    plane = _driven(problem, term, conditions, start, ITERATIONS).plane
    return Claim(weight, hottest_gy, wish.upper, term.weight, plane)


def _spread_term(problem: Problem, wish: Wish, weights_mu: Floats, hottest_gy: float, worth: float) -> Term:
    """A generalised mean that hot points (cold ones, for a lower limit) dominate."""
    part = wish.share if wish.mixing is None else np.asarray(wish.share @ wish.mixing)
    exponent, level_gy = (EXPONENT, 0.0) if wish.upper else (-EXPONENT, hottest_gy)
    dose = np.maximum(_dose_gy(problem, weights_mu)[wish.rows], 1e-3 * hottest_gy)
    now = float(part @ (dose / hottest_gy) ** exponent / part.sum()) ** (1.0 / exponent) * hottest_gy
    return _term(wish, part, "eud", worth / max(abs(now - level_gy), 1.0), {"dose_gy": level_gy, "a": exponent})


def _term(wish: Wish, part: Floats, kind: str, worth_per_gy: float, parameters: dict[str, float]) -> Term:
    """A squared distance, half of `worth_per_gy` a Gy²."""
    inside = part > 0.0
    objective = shelf("rtplan.objectives")[kind].from_parameters(parameters)
    return Term(wish.goal.structure, objective, worth_per_gy / 2.0, wish.rows[inside], part[inside])


def _unavoidable(wish: Wish, dose_gy: Floats) -> Floats:
    """How much each point counts in a generalised mean of the dose that is left, (n,) of sum 1."""
    dose = wish.at_points(dose_gy)
    ratio = np.maximum(dose, max(1e-3 * float(dose.max()), 1e-6))
    counted = wish.share * (ratio / (ratio.max() if wish.upper else ratio.min())) ** (
        (1.0 if wish.upper else -1.0) * EXPONENT - 1.0
    )
    return np.asarray(counted / counted.sum())


def _dose_gy(problem: Problem, weights_mu: Floats) -> Floats:
    return problem.dose_gy(problem.image(weights_mu))


def _driven(problem: Problem, term: Term, conditions: tuple[Condition, ...], start: Floats, iterations: int) -> Solution:
    bare = replace(problem, terms=(term,), smoothness=None, wishes=(), prices=())
    candidates = [_under_conditions(bare, conditions, scale) for scale in PRICE_SCALES] if conditions else [bare]
    alone = max(candidates, key=lambda candidate: _bound_at(candidate, start))
    return minimise(
        alone,
        upper=alone.upper_mu,
        scale=inverse_curvature(alone),
        start=start,
        tolerance=0.01,
        max_iterations=iterations,
        negligible=1e-4,
        report=lambda iteration, value, gap: None,
        reprice=_repriced,
    )


def _under_conditions(problem: Problem, conditions: tuple[Condition, ...], scale: float) -> Problem:
    """The problem under conditions, at `scale` times their prices."""
    prices = tuple(replace(p, amount=scale * p.amount) for _, p in conditions)
    return replace(problem, wishes=tuple(w for w, _ in conditions), prices=prices)


def _bound_at(problem: Problem, weights_mu: Floats) -> float:
    """What the plane that touches the problem at some weights proves of its optimum."""
    at = problem.evaluate(weights_mu, problem.image(weights_mu))
    slope = problem.pull(at.image_gradient) + at.weight_gradient
    return at.convex_value - float(slope @ weights_mu) + float(problem.upper_mu @ np.minimum(slope, 0.0))


def _repriced(function: BoxFunction, image: Floats, choosing: bool) -> tuple[BoxFunction, bool]:
    """New prices. Whoever is let off stays so, for conditions are what they are; and prices stay slow: a bound needs them
    near their best, not the conditions kept."""
    problem, changed = cast(Problem, function).repriced(image, False)
    slow = tuple(replace(p, stiffness=w.stiffness) for w, p in zip(problem.wishes, problem.prices, strict=True))
    return replace(problem, prices=slow), changed


def no_hotter(wish: Wish, hottest_gy: float) -> Condition:
    """No point of the wish's structure gets hotter than `hottest_gy`."""
    stiffness, n = SLOW * TAIL_STIFFNESS[0], len(wish.share)
    cap = replace(
        wish,
        kind="tail",
        upper=True,
        level_gy=hottest_gy,
        exempt=0.0,
        price_cap=PRICE_ROOM * PRICE_CAPS[1],
        stiffness=stiffness,
    )
    return cap, Price(np.zeros(n), np.zeros(n, dtype=bool), stiffness)


def limit_kept(wish: Wish, price: Price, level_gy: float, let_off: Floats) -> Condition:
    """A wish as a condition at `level_gy`; points that are `let_off` (n,) bool ask for nothing."""
    firm = replace(wish, level_gy=level_gy, price_cap=PRICE_ROOM * wish.price_cap, stiffness=SLOW * wish.stiffness)
    if wish.kind != "tail":
        return firm, replace(price, stiffness=firm.stiffness)
    off = np.asarray(let_off, dtype=bool)
    return firm, Price(np.where(off, 0.0, price.amount), off, firm.stiffness)


def kept(wanted: Iterable[tuple[Wish, Price]], doses_gy: tuple[Floats, ...]) -> tuple[Condition, ...]:
    """Conditions that keep what wishes have in all of `doses_gy`, each (n_voxels,): a mean beyond its level rises no
    further, and each point keeps the strictest level that it keeps now."""
    found, tails = [], dict[tuple[str, bool], list[tuple[Wish, Price]]]()
    for wish, price in wanted:
        if wish.kind == "tail":
            tails.setdefault((wish.goal.structure, wish.upper), []).append((wish, price))
            continue
        beyond = max(0.0, *(float(wish.beyond_gy(dose)[0]) for dose in doses_gy))
        level = wish.level_gy + (beyond if wish.upper else -beyond)
        found.append(limit_kept(wish, price, level, np.zeros(0)))
    for of_one_side in tails.values():
        found.extend(_strictest(of_one_side, doses_gy))
    return tuple(found)


def _strictest(wishes: list[tuple[Wish, Price]], doses_gy: tuple[Floats, ...]) -> list[Condition]:
    """Wishes about the same points: one condition for each level, on the points that keep this level and no stricter one.
    It begins with the prices of all."""
    found = []
    keeps = [np.all([wish.beyond_gy(dose) <= 0.0 for dose in doses_gy], axis=0) for wish, _ in wishes]
    amount = np.sum([np.where(k, price.amount, 0.0) for k, (_, price) in zip(keeps, wishes, strict=True)], axis=0)
    free = np.ones(len(amount), dtype=bool)
    strict_first = sorted(range(len(wishes)), key=lambda i: wishes[i][0].level_gy * (1.0 if wishes[i][0].upper else -1.0))
    for i in strict_first:
        own = free & keeps[i]
        free &= ~own
        if own.any():
            found.append(_on_points(wishes[i][0], amount, np.flatnonzero(own)))
    return found


def _on_points(wish: Wish, amount: Floats, points: NDArray[np.int64]) -> Condition:
    """A condition on some of a wish's points, of prices `amount` (n,): a point's Gy costs what it cost, though shares are
    now of fewer points."""
    part = float(wish.share[points].sum())
    if wish.mixing is None:
        rows, mixing = wish.rows[points], None
    else:
        mixing = wish.mixing[points]
        used = np.unique(mixing.indices)
        rows, mixing = wish.rows[used], mixing[:, used]
    stiffness = SLOW * wish.stiffness * part
    firm = replace(
        wish,
        rows=rows,
        mixing=mixing,
        share=wish.share[points] / part,
        exempt=0.0,
        price_cap=PRICE_ROOM * wish.top_price * SMALLEST_TAIL * part,
        stiffness=stiffness,
    )
    return firm, Price(part * amount[points], np.zeros(len(points), dtype=bool), stiffness)
