"""Influence matrix of the TG-119 C-shape: python -m benchmarks.bench_influence [--beams 7] [--device cpu]

Seven beams, beamlets of 5 mm, a grid of 167 x 167 x 108 voxels of 3 mm, every body voxel a row: as in a real plan, but
without DICOM. Processor time is of all threads; BLAS has one, for idle ones spin. Memory is the peak of the resident set
over what was there before. An update is a voxel on a cone's line, for a block of up to 16 beamlets at once.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import write_results
from benchmarks.roofline import ceilings, copy_bytes_per_s, fp32_flops_per_s
from kernels.cpu.influence import LANES
from rtplan.domain.beams import Beam
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import BeamModel, Machine
from rtplan.domain.progress import silent
from rtplan.engines._cone_columns import ColumnInfluence, near_field_columns
from rtplan.engines.collapsed_cone import PLUGIN
from rtplan.library.machines import load_machine
from rtplan.library.protocols import load_protocol
from rtplan.library.water import load_kernel_table
from rtplan.planning import fluence_maps
from rtplan.steps.place_beams import place_beamlets
from sample_data.phantom import axes, centred_grid
from sample_data.tg119 import HALF_HEIGHT_MM, HALF_WIDTH_MM, c_shape

SHAPE_ZYX, SPACING_MM = (108, 167, 167), 3.0
ROUNDS = 5


def phantom() -> tuple[DensityImage, NDArray[np.bool_]]:
    """Water block of the C-shape phantom in vacuum, through the whole length of the grid; and the target's mask."""
    grid = centred_grid(SHAPE_ZYX, (SPACING_MM,) * 3)
    z, y, x = axes(grid)
    body = np.maximum(np.abs(x) - HALF_WIDTH_MM, np.abs(y) - HALF_HEIGHT_MM) + 0.0 * z < 0
    water = body.astype(np.float32)
    return DensityImage(grid, water, water), nearest(c_shape().masks["PTV"], c_shape().grid, grid)


def nearest(mask: NDArray[np.bool_], source: Grid, target: Grid) -> NDArray[np.bool_]:
    """A mask at the centres of another grid's voxels, (z, y, x)."""
    index = source.to_index(target.to_point_mm(np.argwhere(np.ones(target.shape_zyx, dtype=bool)).astype(np.float64)))
    at = np.rint(index).astype(int)
    inside = ((at >= 0) & (at < np.array(source.shape_zyx))).all(axis=1)
    found = np.zeros(len(at), dtype=bool)
    found[inside] = mask[tuple(at[inside].T)]
    return found.reshape(target.shape_zyx)


def beamlets_of(target: NDArray[np.bool_], grid: Grid, machine: Machine, n_beams: int) -> Beamlets:
    """Beamlets of equally spaced beams, placed as the pipeline places them."""
    angles = 360.0 * np.arange(n_beams) / n_beams
    beams = tuple(Beam(f"G{a:03.0f}", float(a), 0.0, 0.0, (0.0, 0.0, 0.0), machine.sad_mm) for a in angles)
    protocol = replace(load_protocol("tg119_c_shape"), beamlet_mm=5.0)
    return place_beamlets(beams, target, grid, machine, protocol)


def peak_bytes() -> int:
    """Largest resident set since `forget_peak`."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


def forget_peak() -> int:
    """Starts a new peak; returns the resident set it starts from."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def timed(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """An action's result, and its wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = action()
    return result, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}


def fastest(action: Callable[[], Any]) -> dict[str, float]:
    """Least wall and processor seconds of some rounds."""
    runs = [timed(action)[1] for _ in range(ROUNDS)]
    return {key: min(run[key] for run in runs) for key in ("wall_s", "cpu_s")}


def share_of_full_dose(
    operator: ColumnInfluence, density: DensityImage, target: NDArray[np.bool_], model: BeamModel, device: str
) -> dict[str, float]:
    """Dose of equal weights by the columns over that of the full engine: mean over the target, and over the body."""
    weights = np.ones(len(operator.beamlets))
    full = PLUGIN.dose(density, fluence_maps(operator.beamlets, weights), model, quality="quick", backend=device)
    near = np.zeros(density.grid.n_voxels, np.float32)
    near[operator.voxel_index] = operator.apply(weights)
    near = near.reshape(density.grid.shape_zyx)
    body = density.mass_density_g_cm3 > 0
    edge = full > 0.1 * full.max()
    return {
        "target": float(near[target].mean(dtype=np.float64) / full[target].mean(dtype=np.float64)),
        "above_10_percent": float(near[edge].mean(dtype=np.float64) / full[edge].mean(dtype=np.float64)),
        "body": float(near[body].mean(dtype=np.float64) / full[body].mean(dtype=np.float64)),
    }


def rates(operator: ColumnInfluence, cpu_s: float) -> dict[str, float]:
    """Updates of blocks and, each counted for the 16 beamlets that share it, their arithmetic: 4 flop a component."""
    flops = 4.0 * load_kernel_table().exponents_per_cm.size * LANES
    per_s = operator.columns.updates / cpu_s
    return {
        "block_updates": operator.columns.updates,
        "block_updates_per_cpu_s": per_s,
        "part_of_fp32_ceiling": per_s * flops / fp32_flops_per_s(1),
    }


def streamed(operator: ColumnInfluence, cpu_s: float) -> dict[str, float]:
    """Bytes of the matrix read a second of processor time, and as a part of the copy ceiling."""
    per_s = operator.n_bytes / cpu_s
    return {"bytes_per_cpu_s": per_s, "part_of_copy_ceiling": per_s / copy_bytes_per_s(1)}


def measure(n_beams: int, device: str) -> dict[str, Any]:
    """All figures, once compiled."""
    machine = load_machine("generic_6mv")
    density, target = phantom()
    voxels = np.flatnonzero(density.mass_density_g_cm3.reshape(-1) > 0)
    beamlets = beamlets_of(target, density.grid, machine, n_beams)

    def build() -> ColumnInfluence:
        return near_field_columns(density, beamlets, machine.beam, voxels, backend=device, progress=silent)

    build()
    before = forget_peak()
    operator, seconds = timed(build)
    memory = peak_bytes() - before
    rng = np.random.default_rng(1)
    w = rng.random(len(beamlets)).astype(np.float32)
    g = rng.standard_normal(len(voxels)).astype(np.float32)
    operator.adjoint(operator.apply(w))
    apply, adjoint = fastest(lambda: operator.apply(w)), fastest(lambda: operator.adjoint(g))
    figures = {
        "beamlets": len(beamlets),
        "rows": len(voxels),
        "nonzeros": operator.n_nonzero,
        "matrix_bytes": operator.n_bytes,
        "peak_memory_growth_bytes": memory,
        "build": seconds | rates(operator, seconds["cpu_s"]),
        "apply": apply | streamed(operator, apply["cpu_s"]),
        "adjoint": adjoint | streamed(operator, adjoint["cpu_s"]),
        "apply_and_adjoint": fastest(lambda: operator.adjoint(operator.apply(w))),
        "share_of_full_dose": share_of_full_dose(operator, density, target, machine.beam, device),
        "machine": ceilings(),
    }
    return figures


def main() -> None:
    """Prints the figures and writes benchmarks/results/influence_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beams", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    figures = measure(chosen.beams, chosen.device)
    for name, value in figures.items():
        print(f"{name:26s}", value)
    print(write_results("influence_speed", {"settings": vars(chosen)} | figures))


if __name__ == "__main__":
    main()
