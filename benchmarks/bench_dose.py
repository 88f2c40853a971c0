"""Speed of the dose kernels: python -m benchmarks.bench_dose [--size 128] [--beams 9] [--cones 86] [--device cpu]

A water cylinder in vacuum on a cubic grid of 3 mm with open 10x10 cm² fields from all sides. Processor time of all threads
stands beside wall time; an update is one voxel and cone, all nine exponents.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results_file import write_results
from kernels.cones import cone_kernels
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.engines._beamline import beamline, grid_geometry, load_backend
from rtplan.engines.collapsed_cone import blurred_fluence
from rtplan.library.machines import load_machine

SPACING_MM = 3.0


def cylinder(size: int) -> DensityImage:
    """Water along z, 90 % of the grid's width across."""
    corner = -(size - 1) * SPACING_MM / 2
    grid = Grid((size, size, size), (SPACING_MM,) * 3, (corner,) * 3)
    inside = np.hypot(grid.x_mm()[None], grid.y_mm()[:, None]) < 0.45 * size * SPACING_MM
    water = np.broadcast_to(inside, grid.shape_zyx).astype(np.float32)
    return DensityImage(grid, water, water)


def timed(seconds: dict[str, dict[str, float]], name: str, action: Callable[[], Any]) -> Any:
    """Runs an action once; wall and processor seconds go to `seconds`."""
    wall, processor = time.perf_counter(), time.process_time()
    result = action()
    seconds[name] = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}
    return result


def measure(size: int, n_beams: int, n_cones: int, device: str) -> dict[str, dict[str, float]]:
    """Seconds of each operation, once compiled."""
    density, machine, kernels = cylinder(size), load_machine("generic_6mv"), load_backend(device)
    edges = np.array([-50.0, 50.0])
    beams = [Beam(str(b), 360.0 * b / n_beams, 0.0, 0.0, (0.0, 0.0, 0.0), machine.sad_mm) for b in range(n_beams)]
    maps = [FluenceMap(beam, edges, edges, np.ones((1, 1))) for beam in beams]
    grid, electrons = grid_geometry(density.grid), density.electron_density_rel
    lines = [beamline(beam, machine.beam, n_cones) for beam in beams]
    seconds: dict[str, dict[str, float]] = {}

    def release() -> Any:
        return [
            kernels.terma(
                electrons, grid=grid, beam=line.geometry, fluence=blurred_fluence(one, machine.beam), tables=line.tables
            )
            for line, one in zip(lines, maps, strict=True)
        ]

    def cones() -> Any:
        return np.stack(
            [
                cone_kernels(line.kernels.per_sr, line.theta_edges_rad, line.directions, line.geometry.axes, (0.06, 0.06))
                for line in lines
            ]
        )

    def spread() -> Any:
        return kernels.superpose(
            electrons,
            released,
            tables,
            lines[0].directions,
            grid=grid,
            beams=[line.geometry for line in lines],
            smallest_exponent_per_cm=lines[0].smallest_exponent_per_cm,
        )

    for _ in range(2):
        released = timed(seconds, "terma", release)
        tables = timed(seconds, "cone_kernels", cones)
        timed(seconds, "superpose", spread)
    updates = size**3 * n_cones
    seconds["superpose"]["updates_per_cpu_s"] = updates / seconds["superpose"]["cpu_s"]
    seconds["total"] = {key: sum(part[key] for part in seconds.values()) for key in ("wall_s", "cpu_s")}
    return seconds


def main() -> None:
    """Prints the figures and writes benchmarks/results/dose_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--beams", type=int, default=9)
    parser.add_argument("--cones", type=int, default=86)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    seconds = measure(chosen.size, chosen.beams, chosen.cones, chosen.device)
    for name, figures in seconds.items():
        print(f"{name:14s}" + "  ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    print(write_results("dose_speed", {"settings": vars(chosen), "seconds": seconds}))


if __name__ == "__main__":
    main()
