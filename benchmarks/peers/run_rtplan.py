"""rtplan on the shared phantoms, in a process of its own like the others.

python -m benchmarks.peers.run_rtplan influence|fields|optimise IN.npz OUT [--machine ID] [--quality final].
Writes OUT.json (figures) and OUT.npz (dose).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import fluence_goals
from benchmarks.peers import phantom as shared
from benchmarks.peers.measure import fastest, forget_peak, keep_to_threads, peak_memory_gib, timed, write_figures
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets, InfluenceOperator
from rtplan.domain.machine import BeamModel
from rtplan.engines.collapsed_cone import PLUGIN
from rtplan.library.machines import load_machine
from rtplan.provenance import code_version
from rtplan.registry import shelf
from rtplan.steps.optimise import Problem, Term, optimise_weights, uniform_weights
from rtplan.steps.wishes import PRICE_CAPS, TAIL_STIFFNESS, Wish, first_prices

GAP, MOST_ITERATIONS = 0.01, 120  # as the planner's ideal fluence


def density_of(phantom: shared.Beamlets | shared.OpenFields) -> DensityImage:
    """The phantom as rtplan's density image."""
    shape, spacing, origin = phantom.density.shape, float(phantom.spacing_mm), phantom.origin_xyz_mm
    grid = Grid(shape, (spacing,) * 3, (float(origin[0]), float(origin[1]), float(origin[2])))
    return DensityImage(grid, phantom.density, phantom.density)


def beams_of(phantom: shared.Beamlets | shared.OpenFields) -> tuple[Beam, ...]:
    """The phantom's beams."""
    x, y, z = (float(v) for v in phantom.isocentre_xyz_mm)
    return tuple(Beam(f"G{angle:03.0f}", float(angle), 0.0, 0.0, (x, y, z), phantom.sad_mm) for angle in phantom.gantry_deg)


def beamlets_of(phantom: shared.Beamlets) -> Beamlets:
    """The phantom's beamlets; every row of the raster counts as a leaf pair."""
    half = phantom.beamlet_mm / 2
    row = np.rint((phantom.y_mm - phantom.y_mm.min()) / phantom.beamlet_mm)
    x, y = phantom.x_mm, phantom.y_mm
    return Beamlets(beams_of(phantom), phantom.beam, row, x - half, x + half, y - half, y + half)


def influence(phantom: shared.Beamlets, model: BeamModel) -> tuple[dict[str, object], NDArray[np.float32]]:
    """Figures of the influence matrix, and the dose of all beamlets at 1 MU."""
    density = density_of(phantom)
    voxels = np.flatnonzero(phantom.body)

    def calculate(case: shared.Beamlets) -> InfluenceOperator:
        beamlets = beamlets_of(case)
        return PLUGIN.influence(density, beamlets, model, voxels, backend="cpu", progress=lambda *_: None)

    warm = calculate(shared.first_beamlets(phantom, 4))
    warm.adjoint(warm.apply(np.ones(4)))
    forget_peak()
    operator, cost = timed(lambda: calculate(phantom))
    peak = peak_memory_gib()
    dose, apply = fastest(lambda: operator.apply(np.ones(len(operator.beamlets))), 3)
    _, adjoint = fastest(lambda: operator.adjoint(np.ones(len(voxels))), 3)
    everywhere = np.zeros(phantom.density.size, np.float32)
    everywhere[voxels] = dose
    figures: dict[str, object] = {
        **cost,
        "beamlets": len(operator.beamlets),
        "n_nonzero": getattr(operator, "n_nonzero", None),  # not part of the operator's contract
        "peak_memory_gib": peak,
        "apply_cpu_s": apply["cpu_s"],
        "adjoint_cpu_s": adjoint["cpu_s"],
        "settings": "engine defaults of the planner's influence columns",
    }
    return figures, everywhere.reshape(phantom.density.shape)


def optimise(phantom: shared.Beamlets, model: BeamModel) -> tuple[dict[str, object], NDArray[np.float32]]:
    """Figures of the fluence optimisation with a hard limit everywhere, and its dose."""
    voxels = np.flatnonzero(phantom.body)
    quiet: Callable[..., None] = lambda *_: None  # noqa: E731
    operator = PLUGIN.influence(density_of(phantom), beamlets_of(phantom), model, voxels, backend="cpu", progress=quiet)
    problem, start = fluence_problem(phantom, operator, voxels)
    operator.adjoint(operator.apply(start))
    found, cost = timed(lambda: optimise_weights(problem, start, tolerance=GAP, max_iterations=MOST_ITERATIONS))
    dose = np.zeros(phantom.density.size, np.float32)
    dose[voxels] = operator.apply(found.weights)
    figures: dict[str, object] = {
        **cost,
        "iterations": found.iterations,
        "relative_gap": found.relative_gap,
        "n_nonzero": getattr(operator, "n_nonzero", None),
    }
    return figures, dose.reshape(phantom.density.shape)


def fluence_problem(
    phantom: shared.Beamlets, operator: InfluenceOperator, voxels: NDArray[np.int64]
) -> tuple[Problem, NDArray[np.float64]]:
    """The shared goals as terms, the hard limit as a wish of priority 0, and equal weights to begin with."""
    row_of = np.full(phantom.density.size, -1, dtype=np.int64)
    row_of[voxels] = np.arange(len(voxels))
    rows = {name: row_of[np.flatnonzero(mask)] for name, mask in fluence_goals.structures(phantom).items()}
    known = shelf("rtplan.objectives")
    terms = tuple(
        Term(name, known[kind].from_parameters({"dose_gy": level_gy}), weight, rows[name], np.ones(len(rows[name])))
        for name, kind, level_gy, weight in fluence_goals.GOALS
    )
    start = uniform_weights(
        operator, len(operator.beamlets), target_rows=rows["PTV"], dose_gy=fluence_goals.PRESCRIBED_GY, fractions=1
    )
    limit = Goal("Body", parse_metric("Max[Gy]"), "<=", fluence_goals.HOTTEST_ALLOWED_GY, 0, "shared goals", "unverified")
    n = len(voxels)
    wish = Wish(limit, "tail", np.arange(n), np.full(n, 1.0 / n), True, limit.limit, PRICE_CAPS[0], TAIL_STIFFNESS[0])
    problem = Problem(operator, terms, 1, 10.0 * start, wishes=(wish,), prices=first_prices((wish,)))
    return problem, start


def fields(phantom: shared.OpenFields, model: BeamModel, quality: str) -> tuple[dict[str, object], NDArray[np.float32]]:
    """Figures of the open fields' dose, and the dose."""
    density = density_of(phantom)
    edges = np.array([-1.0, 1.0]) * phantom.half_field_mm
    maps = [FluenceMap(beam, edges, edges, np.ones((1, 1))) for beam in beams_of(phantom)]

    def calculate() -> NDArray[np.float32]:
        return PLUGIN.dose(density, maps, model, quality=quality, backend="cpu")

    _, first = timed(calculate)
    forget_peak()
    dose, cost = fastest(calculate, 2)
    settings = f"quality {quality}: {PLUGIN.cones(quality)} cones"
    return {**cost, "first_cpu_s": first["cpu_s"], "peak_memory_gib": peak_memory_gib(), "settings": settings}, dose


def main() -> None:
    """Runs one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("influence", "fields", "optimise"))
    parser.add_argument("phantom", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--machine", default="generic_6mv")
    parser.add_argument("--quality", default="final")
    chosen = parser.parse_args()
    threads = keep_to_threads()
    model = load_machine(chosen.machine).beam
    if chosen.task in ("influence", "optimise"):
        task = influence if chosen.task == "influence" else optimise
        figures, dose = task(shared.load_beamlets(chosen.phantom), model)
    else:
        figures, dose = fields(shared.load_fields(chosen.phantom), model, chosen.quality)
    np.savez(chosen.out.with_suffix(".npz"), dose=np.asarray(dose, dtype=np.float32))
    write_figures(chosen.out.with_suffix(".json"), {**figures, "version": code_version(), "threads": threads})


if __name__ == "__main__":
    main()
