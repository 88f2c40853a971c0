"""Fluence optimisation: the weights of beamlets that serve objectives and wishes best.

minimise  Σ weight_k f_k(d) + weight_s mean (w_a - w_b)²   over 0 <= w <= upper,   d = fractions · A w + offset

with d in Gy over the course, w in MU per fraction, f_k from the shelf of objectives in Gy².
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.influence import Beamlets, FluencePlan, InfluenceOperator
from rtplan.domain.progress import Progress, silent
from rtplan.errors import PlanningFailed
from rtplan.objectives import Objective
from rtplan.steps.solver import BoxFunction, Evaluation, Solution, minimise
from rtplan.steps.wishes import Price, Wish, full_cost, penalty, updated_price

Float = NDArray[np.float64]
NEGLIGIBLE_GY2 = 1e-4  # 0.01 Gy everywhere: no further work on objectives that are met so closely


class LinearDose(Protocol):
    """Anything that maps weights in MU per fraction linearly to Gy per fraction: an InfluenceOperator is one."""

    def apply(self, weights_mu: NDArray[np.floating]) -> NDArray[np.floating]:
        """(n,) to (n_voxels,)."""
        ...

    def adjoint(self, dose_gradient: NDArray[np.floating]) -> NDArray[np.floating]:
        """(n_voxels,) to (n,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One objective on one structure. `voxel_rows` (n,) int64 index the operator's voxels, each once; `voxel_weight` (n,) is
    the part of each voxel that lies in the structure, > 0."""

    structure: str
    objective: Objective
    weight: float
    voxel_rows: NDArray[np.int64]
    voxel_weight: Float

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxel_rows", frozen(self.voxel_rows, np.int64))
        object.__setattr__(self, "voxel_weight", frozen(self.voxel_weight, np.float64))
        if not 0.0 < self.weight < np.inf:
            raise ValueError(f"{self.structure}: weight {self.weight} is not positive")
        if self.voxel_rows.shape != self.voxel_weight.shape or self.voxel_rows.ndim != 1:
            raise ValueError(f"{self.structure}: one weight per voxel row is needed")
        if np.unique(self.voxel_rows).size != self.voxel_rows.size or np.any(self.voxel_rows < 0):
            raise ValueError(f"{self.structure}: voxel rows must be unique and not negative")
        if not np.all((self.voxel_weight > 0.0) & np.isfinite(self.voxel_weight)):
            raise ValueError(f"{self.structure}: voxel weights must be positive")


@dataclass(frozen=True, slots=True, eq=False)
class Smoothness:
    """Quadratic variation of the fluence, weight · mean over pairs of (w_a - w_b)²: smooth fluence is deliverable in fewer
    segments. `weight` is in Gy² per MU²; `first` and `second` (m,) are indices of neighbouring beamlets."""

    weight: float
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", frozen(self.first, np.int64))
        object.__setattr__(self, "second", frozen(self.second, np.int64))
        if not 0.0 <= self.weight < np.inf:
            raise ValueError(f"smoothness weight {self.weight} is negative or not a number")  # it would not be convex

    def value_and_gradient(self, weights_mu: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy² per MU."""
        if self.first.size == 0:
            return 0.0, np.zeros_like(weights_mu)
        difference = weights_mu[self.first] - weights_mu[self.second]
        pull = 2.0 * self.weight / difference.size * difference
        n = len(weights_mu)
        gradient = np.bincount(self.first, pull, minlength=n) - np.bincount(self.second, pull, minlength=n)
        return self.weight * float(difference @ difference) / difference.size, gradient.astype(np.float64, copy=False)


def neighbour_smoothness(beamlets: Beamlets, weight: float) -> Smoothness:
    """Smoothness over beamlets of one beam that share an edge along x or y."""
    micrometre = [
        np.rint(1000.0 * edge).astype(np.int64) for edge in (beamlets.x1_mm, beamlets.x2_mm, beamlets.y1_mm, beamlets.y2_mm)
    ]
    cells = list(zip(beamlets.beam_index.tolist(), *(edge.tolist() for edge in micrometre), strict=True))
    corner = {(beam, x1, y1): i for i, (beam, x1, _, y1, _) in enumerate(cells)}
    right = [(i, corner.get((beam, x2, y1))) for i, (beam, _, x2, y1, _) in enumerate(cells)]
    above = [(i, corner.get((beam, x1, y2))) for i, (beam, x1, _, _, y2) in enumerate(cells)]
    pairs = np.array([(i, j) for i, j in right + above if j is not None], dtype=np.int64).reshape(-1, 2)
    return Smoothness(weight, pairs[:, 0], pairs[:, 1])


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What is minimised. `upper_mu` (n,) bounds each weight; `offset_gy` (n_voxels,) is dose over the whole course that is
    added to fractions · A w (a residual between this operator and the final dose, or a background; it may be negative)."""

    operator: LinearDose
    terms: tuple[Term, ...]
    fractions: int
    upper_mu: Float
    offset_gy: Float | None = None
    smoothness: Smoothness | None = None
    wishes: tuple[Wish, ...] = ()
    prices: tuple[Price, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "upper_mu", frozen(self.upper_mu, np.float64))
        if not self.terms:
            raise ValueError("nothing to optimise: no terms")
        if len(self.wishes) != len(self.prices):
            raise ValueError(f"{len(self.prices)} prices for {len(self.wishes)} wishes")
        if self.fractions < 1:
            raise ValueError(f"{self.fractions} fractions")
        if self.upper_mu.ndim != 1 or not np.all((self.upper_mu > 0.0) & np.isfinite(self.upper_mu)):
            raise ValueError("every weight needs a positive, finite upper bound")

    def image(self, weights: Float) -> Float:
        """fractions · A w, (n_voxels,) Gy."""
        return self.fractions * np.asarray(self.operator.apply(weights), dtype=np.float64)

    def dose_gy(self, image: Float) -> Float:
        """Dose over the course, (n_voxels,) Gy, where fractions · A w is `image`."""
        return image if self.offset_gy is None else image + self.offset_gy

    def pull(self, image_gradient: Float) -> Float:
        """fractions · Aᵀ g, (n,)."""
        return self.fractions * np.asarray(self.operator.adjoint(image_gradient), dtype=np.float64)

    def evaluate(self, weights: Float, image: Float) -> Evaluation:
        """All terms, and the convex ones apart, where fractions · A w is `image`."""
        dose_gy = self.dose_gy(image)
        smooth, weight_gradient = (
            self.smoothness.value_and_gradient(weights) if self.smoothness else (0.0, np.zeros_like(weights))
        )
        convex, convex_gradient = sum_of_terms([t for t in self.terms if t.objective.convex], dose_gy)
        convex += smooth
        asked, bound, ceiling = 0.0, 0.0, 0.0
        for wish, price in zip(self.wishes, self.prices, strict=True):
            own, lagrangian, pull = penalty(wish, price, dose_gy)
            asked, bound = asked + own, bound + lagrangian
            ceiling += full_cost(wish, price, dose_gy)
            convex_gradient[wish.rows] += pull
        others = [t for t in self.terms if not t.objective.convex]
        if not others:
            return Evaluation(convex + asked, convex_gradient, weight_gradient, convex + bound, convex + ceiling)
        value, gradient = sum_of_terms(others, dose_gy)
        value += convex
        return Evaluation(
            value + asked,
            gradient + convex_gradient,
            weight_gradient,
            convex + bound,
            value + ceiling,
            convex_gradient,
        )

    def repriced(self, image: Float, choosing: bool) -> tuple[Problem, bool]:
        """The problem with the prices that its wishes ask at an image, and whether other voxels are let off than before."""
        dose_gy = self.dose_gy(image)
        prices = tuple(updated_price(w, p, dose_gy, choose=choosing) for w, p in zip(self.wishes, self.prices, strict=True))
        changed = any(np.any(old.exempt != new.exempt) for old, new in zip(self.prices, prices, strict=True))
        return replace(self, prices=prices), changed


def sum_of_terms(terms: list[Term], dose_gy: Float) -> tuple[float, Float]:
    """Σ weight · f and its gradient (n_voxels,) for dose (n_voxels,) Gy over the course."""
    value, gradient = 0.0, np.zeros(len(dose_gy))
    for term in terms:
        own, pull = term.objective.value_and_gradient(dose_gy[term.voxel_rows], term.voxel_weight)
        value += term.weight * own
        gradient[term.voxel_rows] += term.weight * pull
    return value, gradient


def uniform_weights(
    operator: LinearDose, n_weights: int, *, target_rows: NDArray[np.int64], dose_gy: float, fractions: int
) -> Float:
    """Equal weights (n,) MU per fraction that give a target's voxels `dose_gy` on average: a start, and a scale for bounds.

    Raises PlanningFailed when the beams do not reach the target.
    """
    mean_gy = fractions * float(np.mean(np.asarray(operator.apply(np.ones(n_weights)), dtype=np.float64)[target_rows]))
    if not mean_gy > 0.0:
        raise PlanningFailed("TARGET_NOT_REACHED", f"mean target dose is {mean_gy} Gy for open beams", "a positive dose")
    return np.full(n_weights, dose_gy / mean_gy)


def optimise_weights(
    problem: Problem,
    start: Float,
    *,
    tolerance: float = 0.01,
    max_iterations: int = 200,
    progress: Progress = silent,
) -> Solution:
    """Weights (n,) MU per fraction that minimise the problem, from `start` (clipped into the bounds).

    `tolerance` is the relative gap to the proven lower bound at which to stop. An iteration costs one apply and one adjoint.
    Raises PlanningFailed when the objective is not a number.
    """
    start = np.asarray(start, dtype=np.float64)
    if start.shape != problem.upper_mu.shape:
        raise ValueError(f"{start.shape} start weights for {problem.upper_mu.shape} bounds")
    terms_weight = sum(t.weight for t in problem.terms)

    def report(iteration: int, value: float, gap: float) -> None:
        if not (np.isfinite(value) and np.isfinite(gap)):  # the gap is no number where the gradient is none
            found = f"objective is {value}, gap {gap} in iteration {iteration}"
            raise PlanningFailed("OBJECTIVE_NOT_FINITE", found, "numbers")
        progress("optimise", iteration / max(max_iterations, 1), f"objective {value:.4g} Gy², gap {100.0 * gap:.1f} %")

    solution = minimise(
        problem,
        upper=problem.upper_mu,
        scale=inverse_curvature(problem),
        start=start,
        tolerance=tolerance,
        max_iterations=max_iterations,
        negligible=NEGLIGIBLE_GY2 * terms_weight,
        report=report,
        reprice=_repriced if problem.wishes else None,
    )
    progress("optimise", 1.0, f"objective {solution.value:.4g} Gy², gap {100.0 * solution.relative_gap:.1f} %")
    return solution


def optimise(
    problem: Problem,
    start: Float,
    *,
    tolerance: float = 0.01,
    max_iterations: int = 200,
    progress: Progress = silent,
) -> tuple[FluencePlan, Problem]:
    """The ideal fluence of a problem whose operator is an InfluenceOperator, and the problem with the prices it ended with.

    See `optimise_weights`.
    """
    beamlets = cast(InfluenceOperator, problem.operator).beamlets
    if len(beamlets) != len(problem.upper_mu):
        raise ValueError(f"{len(beamlets)} beamlets for {len(problem.upper_mu)} weights")
    s = optimise_weights(problem, start, tolerance=tolerance, max_iterations=max_iterations, progress=progress)
    plan = FluencePlan(beamlets, s.weights, s.value, s.relative_gap, s.iterations, s.converged)
    return plan, cast(Problem, s.function)


def _repriced(problem: BoxFunction, image: Float, choosing: bool) -> tuple[BoxFunction, bool]:
    return cast(Problem, problem).repriced(image, choosing)


def inverse_curvature(problem: Problem) -> Float:
    """1 / (Aᵀ q), q the terms' weight per voxel: how strongly each weight is felt, scaled to mean 1. One apply, one adjoint.

    Weights that no term feels get the scale of the weakest hundredth, not an infinite one.
    """
    density = np.zeros(len(problem.image(np.zeros_like(problem.upper_mu))))
    for term in problem.terms:
        density[term.voxel_rows] += term.weight / term.voxel_weight.sum() * term.voxel_weight
    for wish in problem.wishes:
        # A mean bends by its square only where its wish is at work: a tenth stands for that.
        spread = wish.share if wish.mixing is None else wish.share @ wish.mixing
        density[wish.rows] += wish.stiffness * spread * (1.0 if wish.kind == "tail" else 0.1)
    felt = problem.pull(density)
    if not felt.max() > 0.0:
        return np.ones_like(felt)  # nothing that counts is reached by any beamlet
    scale: Float = 1.0 / np.maximum(felt, 0.01 * float(felt.max()))
    return scale / float(scale.mean())
