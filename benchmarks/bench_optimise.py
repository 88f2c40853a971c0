"""How long the optimiser takes to a proven gap, and how it compares with other solvers.

    python -m benchmarks.bench_optimise [--only sizes peers solvers] [--venvs DIR] [--threads 1]

- sizes: processor time and iterations to a proven gap of 1e-3 at 1e7 and 1e8 non-zeros (synthetic C-shape).
- peers: the C-shape of benchmarks/peers beside pyRadPlan's fluence optimisation, each on its own influence matrix in a
  process of its own. Skipped, with the reason, where its environment cannot be made.
- solvers: operator calls beside SciPy's L-BFGS-B and FISTA on the synthetic C-shape of 2e7 non-zeros.

Each part writes its own benchmarks/results/optimise_PART.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.optimize import minimize

from benchmarks.bench_peers import Bench, Rows, Run, row
from benchmarks.peers.environments import PYRADPLAN, default_folder
from benchmarks.peers.fluence_goals import quality
from benchmarks.peers.measure import timed
from benchmarks.peers.phantom import c_shape, save
from benchmarks.peers.tables import OURS, table
from benchmarks.results_file import write_results
from benchmarks.synthetic_c_shape import Float, SyntheticCase, make_case
from rtplan.registry import shelf
from rtplan.steps.optimise import Problem, Smoothness, Term, optimise_weights, uniform_weights
from rtplan.steps.solver import BoxFunction

CHECKPOINTS = (40, 80, 160, 320)
FRACTIONS = 30
PARTS = ("sizes", "peers", "solvers")
SIZES = {"1e7": 5.3, "1e8": 2.46}  # non-zeros: spacing of the voxels, mm
SMALL_GAP, MOST_ITERATIONS = 1e-3, 2000
SMOOTHNESS = 0.01
COMPARED_ITERATIONS = 200
PEER_COLUMNS = (
    ("cpu_s", "CPU s"),
    ("wall_s", "wall s"),
    ("iterations", "iterations"),
    ("relative_gap", "gap"),
    ("objective_gy2", "objective"),
    ("hottest_pct", "hottest %"),
    ("target_d10_gy", "PTV D10 Gy"),
    ("core_d10_gy", "core D10 Gy"),
)
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


def proven(problem: Problem, start: Float, operator: Counted, tolerance: float, most: int) -> dict:
    """Iterations, calls and time to a proven gap, or to `most` iterations."""
    operator.calls = 0
    s, cost = timed(lambda: optimise_weights(problem, start, tolerance=tolerance, max_iterations=most))
    return {
        "cpu_s": round(cost["cpu_s"], 2),
        "wall_s": round(cost["wall_s"], 2),
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


def sizes() -> dict:
    """The smooth convex problem to a gap of 1e-3, by size."""
    found = {}
    for name, spacing_mm in SIZES.items():
        operator = Counted(make_case(spacing_mm=spacing_mm))
        n_voxels, n_beamlets = operator.case.influence.shape
        problem, start = make_problem(operator, TARGET + NORMAL, SMOOTHNESS)
        figures = proven(problem, start, operator, SMALL_GAP, MOST_ITERATIONS)
        n_nonzero = int(operator.case.influence.nnz)
        found[name] = {"voxels": n_voxels, "beamlets": n_beamlets, "nonzeros": n_nonzero} | figures
        print(name, found[name], flush=True)
    return found


def peers(venvs: Path, threads: int) -> Rows:
    """Ours and pyRadPlan's fluence optimisation on the shared C-shape, by row of the table."""
    with TemporaryDirectory(prefix="rtplan-bench-") as folder:
        bench = Bench(venvs, threads, Path(folder))
        phantom, path = c_shape(), Path(folder) / "c_shape.npz"
        save(path, phantom)

        def judged(result: Run) -> dict[str, object]:
            return dict(quality(phantom, result[1]))

        rows: Rows = {OURS: row(bench.ours(["optimise", str(path)]), judged)}
        rows["pyRadPlan"] = row(bench.theirs(PYRADPLAN, ["optimise", str(path)]), judged)
    print(table("fluence optimisation of the C-shape", rows, PEER_COLUMNS, with_ratios=False), flush=True)
    return rows


def solvers() -> dict:
    """Every problem to a gap of 1 %, and operator calls beside other solvers."""
    operator = Counted(make_case(spacing_mm=4.0))
    figures: dict = {"nonzeros": int(operator.case.influence.nnz)}
    problems = {"convex": (TARGET + NORMAL, 0.0), "smooth": (TARGET + NORMAL, SMOOTHNESS)}
    problems |= {"dvh": (TARGET + NORMAL + DVH, SMOOTHNESS), "tails": (TARGET + NORMAL + TAILS, SMOOTHNESS)}
    for name, (specs, weight) in problems.items():
        problem, start = make_problem(operator, specs, weight)
        figures[name] = {"to_gap_1_percent": proven(problem, start, operator, 0.01, 400)}
        if name == "smooth":
            figures[name]["comparison"] = compare(problem, start, operator, COMPARED_ITERATIONS)
        print(name, figures[name], flush=True)
    return figures


def main() -> None:
    """Runs the parts and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--venvs", type=Path, default=default_folder())
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    parts = {"sizes": sizes, "peers": lambda: peers(chosen.venvs, chosen.threads), "solvers": solvers}
    for name in [part for part in PARTS if part in chosen.only]:
        print(write_results(f"optimise_{name}", {"threads": chosen.threads, name: parts[name]()}), flush=True)


if __name__ == "__main__":
    main()
