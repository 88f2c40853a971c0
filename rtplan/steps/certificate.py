"""What could have been reached: a proven lower bound on an organ's mean, for this coverage and these beams.

The organ's dose is minimised alone, while every goal of a higher priority keeps what it has: points that keep their dose now
go on keeping it, means that are too high rise no further. That problem is convex, the plan's ideal fluence is feasible in
it, and any prices of its conditions give a bound by duality, however far the solver has come (`rtplan.steps.solver`). A
bound is therefore never above what the ideal fluence reached.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.goals import Certificate
from rtplan.domain.progress import Progress, silent
from rtplan.registry import shelf
from rtplan.steps.optimise import Problem, Term, inverse_curvature
from rtplan.steps.solver import BoxFunction, minimise
from rtplan.steps.wishes import Price, Wish

Floats = NDArray[np.float64]

ITERATIONS = 40
WORTH = 30.0  # Gy² of objective for a Gy less: about what plans pay, so that their prices fit
SLOW = 0.33  # rise of prices over that of the plan
PRICE_ROOM = 10.0  # cap of the conditions' prices over those of the plan: an elastic condition proves less than a firm one


def certified(
    problem: Problem, weights_mu: Floats, final_gy: Floats, progress: Progress = silent
) -> tuple[Certificate, ...]:
    """A certificate for every goal on an upper limit of a mean, or of a generalised mean, which is never below the mean.

    `problem` is the ideal fluence's, with its prices and residual; `weights_mu` (n_beamlets,) that fluence; `final_gy`
    (n_voxels,) the dose of the plan that came of it. What either does not keep is no condition.
    """
    ideal_gy = problem.dose_gy(problem.image(weights_mu))
    means = [wish for wish in problem.wishes if wish.kind != "tail" and wish.upper]
    found: list[Certificate] = []
    for wish in means:
        progress("certify", len(found) / len(means), wish.label)
        found.append(Certificate(wish.goal, _bound_gy(problem, weights_mu, wish, (ideal_gy, final_gy))))
    return tuple(found)


def _bound_gy(problem: Problem, weights_mu: Floats, wish: Wish, doses_gy: tuple[Floats, Floats]) -> float:
    kept = [
        _condition(other, price, doses_gy)
        for other, price in zip(problem.wishes, problem.prices, strict=True)
        if other.goal.priority < wish.goal.priority
    ]
    weight = WORTH / (2.0 * max(float(wish.share @ wish.at_points(doses_gy[0])), 1.0))
    alone = replace(
        problem,
        terms=(_squared_mean(wish, weight),),
        smoothness=None,
        wishes=tuple(w for w, _ in kept),
        prices=tuple(p for _, p in kept),
    )
    solution = minimise(
        alone,
        upper=alone.upper_mu,
        scale=inverse_curvature(alone),
        start=weights_mu,
        tolerance=0.01,
        max_iterations=ITERATIONS,
        negligible=1e-4,
        report=lambda iteration, value, gap: None,
        reprice=_repriced,
    )
    return float(np.sqrt(solution.lower_bound / weight))


def _repriced(function: BoxFunction, image: Floats, choosing: bool) -> tuple[BoxFunction, bool]:
    """New prices. Whoever is let off stays so, for conditions are what they are; and prices stay slow: a bound needs them
    near their best, not the conditions kept."""
    problem, changed = cast(Problem, function).repriced(image, False)
    slow = tuple(replace(p, stiffness=w.stiffness) for w, p in zip(problem.wishes, problem.prices, strict=True))
    return replace(problem, prices=slow), changed


def _condition(wish: Wish, price: Price, doses_gy: tuple[Floats, Floats]) -> tuple[Wish, Price]:
    """A wish as a condition: what keeps to its level in both doses is to keep to it, the rest is let off or stays."""
    firm = replace(wish, price_cap=PRICE_ROOM * wish.price_cap, stiffness=SLOW * wish.stiffness)
    if wish.kind == "tail":
        lost = np.any([wish.beyond_gy(dose) > 0.0 for dose in doses_gy], axis=0)
        return firm, Price(np.where(lost, 0.0, price.amount), lost, firm.stiffness)
    beyond = max(0.0, *(float(wish.beyond_gy(dose)[0]) for dose in doses_gy))
    relaxed = replace(firm, level_gy=wish.level_gy + (beyond if wish.upper else -beyond))
    return relaxed, replace(price, stiffness=firm.stiffness)


def _squared_mean(wish: Wish, weight: float) -> Term:
    """The square of the mean of the wish's points. A generalised mean with a >= 1 is never below the mean of the same
    points; that of the voxels around them would be no bound, for points between voxels are more even than those."""
    part = wish.share if wish.mixing is None else np.asarray(wish.share @ wish.mixing)
    inside = part > 0.0
    objective = shelf("rtplan.objectives")["mean_dose"].from_parameters({"dose_gy": 0.0})
    return Term(wish.goal.structure, objective, weight, wish.rows[inside], part[inside])
