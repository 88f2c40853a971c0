"""How many operator calls the optimiser needs, beside SciPy's L-BFGS-B and FISTA, on a synthetic C-shape.

    python -m benchmarks.bench_optimise [--spacing-mm 4] [--iterations 200]

Writes benchmarks/results/optimise.json: per problem the time and iterations to a proven gap, and per solver how far its
best value stood above the best value known after 40, 80, 160 and 320 operator calls (an apply or an adjoint each).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from benchmarks.results_file import write_results
from benchmarks.synthetic_c_shape import Float, SyntheticCase, make_case
from rtplan.registry import shelf
from rtplan.steps.optimise import Problem, Smoothness, Term, optimise_weights, uniform_weights
from rtplan.steps.solver import BoxFunction

CHECKPOINTS = (40, 80, 160, 320)
FRACTIONS = 30
Trail = list[tuple[int, float]]  # operator calls so far, best value so far

TARGET = (("PTV", "underdose", {"dose_gy": 60.0}, 300.0), ("PTV", "overdose", {"dose_gy": 61.5}, 60.0))
NORMAL = (
    ("Core", "overdose", {"dose_gy": 15.0}, 5.0),
    ("Core", "max_dose", {"dose_gy": 25.0}, 5.0),
    ("Core", "mean_dose", {"dose_gy": 10.0}, 2.0),
    ("Ring", "overdose", {"dose_gy": 35.0}, 5.0),
    ("External", "overdose", {"dose_gy": 62.0}, 50.0),
)
DVH = (("Core", "max_dvh", {"dose_gy": 10.0, "volume_percent": 40.0}, 10.0),)
TAILS = (
    ("PTV", "cold_tail", {"dose_gy": 59.0, "volume_percent": 3.0}, 20.0),
    ("Core", "hot_tail", {"dose_gy": 20.0, "volume_percent": 10.0}, 5.0),
)


class Counted:
    """A case that counts applies and adjoints."""

    def __init__(self, case: SyntheticCase) -> None:
        self.case, self.calls = case, 0

    def apply(self, weights_mu):
        """(n_beamlets,) to (n_voxels,)."""
        self.calls += 1
        return self.case.apply(weights_mu)

    def adjoint(self, dose_gradient):
        """(n_voxels,) to (n_beamlets,)."""
        self.calls += 1
        return self.case.adjoint(dose_gradient)


def make_problem(operator: Counted, specs, smoothness_weight: float = 0.0) -> tuple[Problem, Float]:
    """The problem and its uniform start. No weight may exceed five times the uniform one."""
    case, known = operator.case, shelf("rtplan.objectives")
    terms = tuple(
        Term(name, known[kind].from_parameters(parameters), weight, case.rows[name], np.ones(len(case.rows[name])))
        for name, kind, parameters, weight in specs
    )
    n = len(case.cells)
    start = uniform_weights(operator, n, target_rows=case.rows["PTV"], dose_gy=60.0, fractions=FRACTIONS)
    index = {tuple(cell): i for i, cell in enumerate(case.cells.tolist())}
    steps = ((0, 1, 0), (0, 0, 1))
    pairs = [(i, index.get((b + p, x + q, y + r))) for (b, x, y), i in index.items() for p, q, r in steps]
    first, second = np.array([pair for pair in pairs if pair[1] is not None]).T
    return Problem(operator, terms, FRACTIONS, 5.0 * start, None, Smoothness(smoothness_weight, first, second)), start


def ours(problem: Problem, start: Float, iterations: int, operator: Counted) -> Trail:
    """This project's solver."""
    trail: Trail = []
    values = Followed(problem, operator, trail)
    optimise_weights(values, start, tolerance=1e-9, max_iterations=iterations)
    return trail


class Followed:
    """A problem that notes the lowest value at every evaluation."""

    def __init__(self, problem: Problem, operator: Counted, trail: Trail) -> None:
        self.problem, self.operator, self.trail = problem, operator, trail

    def __getattr__(self, name):
        return getattr(self.problem, name)

    def evaluate(self, weights, image):
        """As the problem's."""
        at = self.problem.evaluate(weights, image)
        best = min(at.value, self.trail[-1][1]) if self.trail else at.value
        self.trail.append((self.operator.calls, best))
        return at


def scipy_lbfgsb(problem: Problem, start: Float, iterations: int, operator: Counted) -> Trail:
    """SciPy's L-BFGS-B with 20 pairs."""
    trail: Trail = []
    followed = Followed(problem, operator, trail)
    bounds = [(0.0, u) for u in problem.upper_mu]
    options = {"maxfun": iterations, "maxcor": 20, "ftol": 0.0, "gtol": 0.0}
    minimize(lambda w: value_and_gradient(followed, w), start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return trail


def fista(problem: Problem, start: Float, iterations: int, operator: Counted) -> Trail:
    """FISTA with backtracking and gradient restart (Beck and Teboulle 2009; O'Donoghue and Candes 2015)."""
    trail: Trail = []
    followed = Followed(problem, operator, trail)
    w, x, theta = start, start, 1.0
    value, gradient = value_and_gradient(followed, x)
    curvature = float(np.abs(gradient).max() / (0.2 * start.mean()))
    for _ in range(iterations):
        curvature /= 1.5
        while True:
            following = np.clip(x - gradient / curvature, 0.0, problem.upper_mu)
            step = following - x
            reached = followed.evaluate(following, problem.image(following)).value
            if reached <= value + gradient @ step + 0.5 * curvature * (step @ step) + 1e-9 * abs(value):
                break
            curvature *= 2.0
        theta = 1.0 if (x - following) @ (following - w) > 0.0 else theta
        next_theta = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * theta * theta))
        x, w = following + (theta - 1.0) / next_theta * (following - w), following
        theta = next_theta
        value, gradient = value_and_gradient(followed, x)
    return trail


def value_and_gradient(problem: BoxFunction, weights: Float) -> tuple[float, Float]:
    """f and its gradient by one apply and one adjoint."""
    at = problem.evaluate(weights, problem.image(weights))
    return at.value, problem.pull(at.image_gradient) + at.weight_gradient


def proven(problem: Problem, start: Float, operator: Counted, tolerance: float) -> dict:
    """Iterations, calls and time to a proven gap."""
    operator.calls, began = 0, time.perf_counter()
    s = optimise_weights(problem, start, tolerance=tolerance, max_iterations=400)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "iterations": s.iterations,
        "operator_calls": operator.calls,
        "objective_gy2": s.value,
        "lower_bound_gy2": s.lower_bound,
        "relative_gap": s.relative_gap,
        "converged": s.converged,
        "stopped": s.stopped,
    }


def compare(problem: Problem, start: Float, operator: Counted, iterations: int) -> dict:
    """Percent above the best value known, per solver and number of operator calls."""
    trails: dict[str, Trail] = {}
    solvers: dict[str, Callable[..., Trail]] = {"rtplan": ours, "scipy L-BFGS-B": scipy_lbfgsb, "FISTA": fista}
    for name, solver in solvers.items():
        operator.calls = 0
        trails[name] = solver(problem, start, iterations, operator)
    best = optimise_weights(problem, start, tolerance=1e-4, max_iterations=600).value
    best = min([best, *(trail[-1][1] for trail in trails.values())])
    above = {}
    for name, trail in trails.items():
        at = {calls: min([value for made, value in trail if made <= calls]) for calls in CHECKPOINTS}
        above[name] = {str(calls): round(100.0 * (value / best - 1.0), 3) for calls, value in at.items()}
    return {"best_gy2": best, "percent_above_best_after_operator_calls": above}


def main() -> None:
    """Runs every problem and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spacing-mm", type=float, default=4.0)
    parser.add_argument("--iterations", type=int, default=200)
    options = parser.parse_args()
    operator = Counted(make_case(spacing_mm=options.spacing_mm))
    n_voxels, n_beamlets = operator.case.influence.shape
    figures: dict = {"voxels": n_voxels, "beamlets": n_beamlets, "nonzeros": int(operator.case.influence.nnz)}
    problems = {"convex": (TARGET + NORMAL, 0.0), "smooth": (TARGET + NORMAL, 0.01)}
    problems |= {"dvh": (TARGET + NORMAL + DVH, 0.01), "tails": (TARGET + NORMAL + TAILS, 0.01)}
    for name, (specs, weight) in problems.items():
        problem, start = make_problem(operator, specs, weight)
        figures[name] = {"to_gap_1_percent": proven(problem, start, operator, 0.01)}
        if name == "smooth":
            figures[name]["comparison"] = compare(problem, start, operator, options.iterations)
        print(name, figures[name], flush=True)
    print(write_results("optimise", figures))


if __name__ == "__main__":
    main()
