"""Speed of the dose engine: python -m benchmarks.bench_dose [--case nine_128] [--device cpu] [--repeats 3]

A water cylinder of 35 cm in vacuum on a cubic grid of 38.4 cm with open 10x10 cm² fields from all sides, 86 cones, from
fluence maps to Gy by the engine's own call. Processor time of all threads stands beside wall time, best of some repeats,
code compiled. An update is one voxel and cone with all nine exponents; the roofline says how fast the machine could do its
arithmetic or move its bytes at best, by ceilings measured in the same run.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from benchmarks.results_file import write_results
from benchmarks.roofline import copy_bytes_per_s, fp32_flops_per_s
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import BeamModel
from rtplan.engines import collapsed_cone
from rtplan.library.machines import load_machine

QUALITY = "standard"
WIDTH_MM = 384.0
HALF_FIELD_MM = 50.0
FIXED_BEAMS = 72  # more are the maps of an arc
CONES = collapsed_cone.PLUGIN.cones(QUALITY)
# Of one update: series of 1 - e^-y and its mean 21 flop, then 7 for each of nine exponents and 4 to the next. Density, dose
# in and dose out are 12 bytes if nothing stays in a cache.
FLOP_PER_UPDATE = 21 + 9 * 7 + 8 * 4
BYTES_PER_UPDATE = 12
# Of each lit voxel, beam and cone: six moments, then six multiply-adds for each of nine exponents.
FLOP_PER_RELEASE = 6 + 9 * 12
BYTES_PER_RELEASE = 8


@dataclass(frozen=True, slots=True)
class Case:
    """A cubic grid of `size` voxels a side and `beams` equally spaced gantry angles."""

    size: int
    beams: int
    machine_id: str
    limit_s: float  # what this project asks of two cores, wall time


POINT, HEAD = "point_source_mohan6", "generic_6mv"  # the engine itself; with extra-focal source and electrons on top
CASES = {
    "nine_128": Case(128, 9, POINT, 1.0),
    "nine_256": Case(256, 9, POINT, 8.0),
    "arc_128": Case(128, 180, POINT, 10.0),
    "nine_128_head": Case(128, 9, HEAD, 1.0),
    "nine_256_head": Case(256, 9, HEAD, 8.0),
    "arc_128_head": Case(128, 180, HEAD, 10.0),
}


def cylinder(size: int) -> DensityImage:
    """Water along z, 90 % of the grid's width across."""
    spacing = WIDTH_MM / size
    corner = -(size - 1) * spacing / 2
    grid = Grid((size, size, size), (spacing,) * 3, (corner,) * 3)
    inside = np.hypot(grid.x_mm()[None], grid.y_mm()[:, None]) < 0.45 * WIDTH_MM
    water = np.broadcast_to(inside, grid.shape_zyx).astype(np.float32)
    return DensityImage(grid, water, water)


def open_fields(n: int, sad_mm: float) -> list[FluenceMap]:
    """Open square fields at equal angles about the grid's middle."""
    edges = np.array([-HALF_FIELD_MM, HALF_FIELD_MM])
    beams = [Beam(str(b), 360.0 * b / n, 0.0, 0.0, (0.0, 0.0, 0.0), sad_mm) for b in range(n)]
    return [FluenceMap(beam, edges, edges, np.ones((1, 1)), of_arc=n > FIXED_BEAMS) for beam in beams]


def measure(case: Case, device: str, repeats: int) -> dict[str, float]:
    """Best wall and processor seconds of one dose calculation, and what follows from them."""
    density, machine = cylinder(case.size), load_machine(case.machine_id)
    fields = open_fields(case.beams, machine.sad_mm)
    _calculate(density, fields[:1], machine.beam, device)  # compiles
    times = [_calculate(density, fields, machine.beam, device) for _ in range(repeats)]
    wall, processor = min(t[0] for t in times), min(t[1] for t in times)
    updates = float((density.electron_density_rel > 0).sum()) * CONES
    return {
        "wall_s": wall,
        "cpu_s": processor,
        "limit_wall_s": case.limit_s,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "updates": updates,
        "updates_per_cpu_s": updates / processor,
        "lit_voxel_beams": _lit_voxels(density, fields[0]) * case.beams,
    }


def _calculate(density: DensityImage, fields: Sequence[FluenceMap], model: BeamModel, device: str) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    collapsed_cone.PLUGIN.dose(density, fields, model, quality=QUALITY, backend=device)
    return time.perf_counter() - wall, time.process_time() - processor


def _lit_voxels(density: DensityImage, field: FluenceMap) -> float:
    """Voxels of one field with a fluence, counted from its geometry: a pyramid through the cylinder."""
    grid = density.grid
    z, y, x = np.meshgrid(grid.z_mm(), grid.y_mm(), grid.x_mm(), indexing="ij")
    widening = 1 + y / field.beam.sad_mm
    lit = (np.abs(x) < HALF_FIELD_MM * widening) & (np.abs(z) < HALF_FIELD_MM * widening)
    return float((lit & (density.electron_density_rel > 0)).sum())


def roofline(figures: dict[str, float], ceilings: dict[str, float]) -> dict[str, float]:
    """The least seconds the machine needs for the arithmetic and for the bytes; the larger one's share of the wall time."""
    releases = figures["lit_voxel_beams"] * CONES
    flop = figures["updates"] * FLOP_PER_UPDATE + releases * FLOP_PER_RELEASE
    moved = figures["updates"] * BYTES_PER_UPDATE + releases * BYTES_PER_RELEASE
    arithmetic, memory = flop / ceilings["fp32_flops_per_s"], moved / ceilings["copy_bytes_per_s"]
    return {
        "flop_limit_s": arithmetic,
        "memory_limit_s": memory,
        "roofline_fraction": max(arithmetic, memory) / figures["wall_s"],
    }


def main() -> None:
    """Prints the figures and writes benchmarks/results/dose_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=tuple(CASES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    ceilings = {"fp32_flops_per_s": fp32_flops_per_s(), "copy_bytes_per_s": copy_bytes_per_s()}
    print("  ".join(f"{key} {value:.3g}" for key, value in ceilings.items()))
    rows: dict[str, dict[str, float]] = {}
    for name in chosen.case or CASES:
        # A process of its own, so that the peak of memory is this case's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            figures = process.submit(measure, CASES[name], chosen.device, chosen.repeats).result()
        rows[name] = figures | roofline(figures, ceilings)
        print(f"{name:14s}  " + "  ".join(f"{key} {value:.3g}" for key, value in rows[name].items()), flush=True)
    settings = {"device": chosen.device, "repeats": chosen.repeats, "cones": CONES}
    print(write_results("dose_speed", {"settings": settings, "ceilings": ceilings, "cases": rows}))


if __name__ == "__main__":
    main()
