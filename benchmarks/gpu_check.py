"""Checks and times the CUDA backend on a machine with a GPU: python -m benchmarks.gpu_check [--out FILE] [--backend cuda].

Needs torch's or any other CUDA, CuPy, Numba, NumPy, SciPy and PyYAML; nothing that reads DICOM or protocols. First every
operation, a full dose and an influence matrix against the CPU, then times, by CUDA events around calls that begin and end
with arrays on the host. `--backend cpu --size 24` rehearses the script where no GPU is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import circumstances
from kernels.backend import get_backend
from kernels.cones import cone_kernels
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, BeamModel
from rtplan.domain.progress import silent
from rtplan.engines._beamline import Beamline, beamline, grid_geometry
from rtplan.engines._source_model import primary_fluence
from rtplan.engines.collapsed_cone import PLUGIN, cones_of

SPACING_MM = 3.0
QUALITY = "standard"
REPEATS = 10
FLAT = np.array([0.0, 500.0]), np.array([1.0, 1.0])
NO_HEAD = NO_EXTRA_FOCAL_SOURCE, NO_CONTAMINATION


def model() -> BeamModel:
    """A spectrum of four energies like that of 6 MV, for the kernels only."""
    energy, fraction = np.array([0.5, 1.0, 2.0, 4.0]), np.array([0.35, 0.3, 0.25, 0.1])
    return BeamModel("check", 6.0, energy, fraction, 2.6e9, 1.0, 1.0, 500.0, *FLAT, *FLAT, *NO_HEAD, "for the check only")


def cylinder(size: int) -> DensityImage:
    """Water with a lung-like core along z, 90 % of the grid's width across, in vacuum."""
    corner = -(size - 1) * SPACING_MM / 2
    grid = Grid((size, size, size), (SPACING_MM,) * 3, (corner,) * 3)
    radius = np.hypot(grid.x_mm()[None], grid.y_mm()[:, None]) / (size * SPACING_MM)
    density = np.where(radius < 0.1, 0.3, np.where(radius < 0.45, 1.0, 0.0)).astype(np.float32)
    volume = np.broadcast_to(density, grid.shape_zyx)
    return DensityImage(grid, volume, volume)


def fields(count: int, half_mm: float) -> list[FluenceMap]:
    """Open square fields from all sides."""
    edges = np.array([-half_mm, half_mm])
    beams = [Beam(str(b), 360.0 * b / count, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0) for b in range(count)]
    return [FluenceMap(beam, edges, edges, np.ones((1, 1))) for beam in beams]


def beamlets(count: int, half_mm: float) -> Beamlets:
    """5 mm beamlets in square fields from `count` sides."""
    low = np.arange(-half_mm, half_mm, 5.0)
    y, x = (np.tile(a.ravel(), count) for a in np.meshgrid(low, low, indexing="ij"))
    pair, index = np.tile(np.repeat(np.arange(len(low)), len(low)), count), np.repeat(np.arange(count), len(low) ** 2)
    return Beamlets(tuple(one.beam for one in fields(count, half_mm)), index, pair, x, x + 5.0, y, y + 5.0)


class Sweep:
    """TERMA and superposition of some fields, prepared as far as the host does it once a plan."""

    def __init__(self, density: DensityImage, maps: list[FluenceMap]) -> None:
        self.density, self.grid = density, grid_geometry(density.grid)
        self.lines = [beamline(one.beam, model()) for one in maps]
        self.tables = [primary_fluence(one, model()) for one in maps]
        self.set = cones_of(QUALITY)
        begin = time.perf_counter()
        slope = float(np.abs(self.tables[0].x_edges_mm).max() / 1000.0)
        self.cones = np.stack([self._cones(line, (slope, slope)) for line in self.lines])
        self.cones_ms = 1e3 * (time.perf_counter() - begin)

    def _cones(self, line: Beamline, max_slope: tuple[float, float]) -> NDArray[np.float32]:
        """Cone kernels of one beam."""
        return cone_kernels(line.kernels.per_sr, line.theta_edges_rad, self.set.directions, line.geometry.axes, max_slope)

    def released(self, backend: str) -> list[Any]:
        """TERMA of every field."""
        terma, density = get_backend(backend).terma, self.density.electron_density_rel
        return [
            terma(density, grid=self.grid, beam=line.geometry, fluence=table, tables=line.tables)
            for line, table in zip(self.lines, self.tables, strict=True)
        ]

    def superposed(self, backend: str, released: list[Any]) -> NDArray[np.float32]:
        """Energy per cm³ of all fields together."""
        result: NDArray[np.float32] = get_backend(backend).superpose(
            self.density.electron_density_rel,
            released,
            self.cones,
            self.set.directions,
            grid=self.grid,
            beams=[line.geometry for line in self.lines],
            phases=np.full(len(self.set.directions), self.set.phases[0]),
            smallest_exponent_per_cm=self.lines[0].smallest_exponent_per_cm,
        )
        return result


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference, of the largest value."""
    return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())


def checks(backend: str, size: int) -> dict[str, float | bool]:
    """Largest difference of every operation from the CPU, of its largest value, and whether repeats give the same bits."""
    sweep, found = Sweep(cylinder(size), fields(5, 30.0)), {}
    here, there = sweep.released("cpu"), sweep.released(backend)
    found["terma"] = max(difference(a.energy, b.energy) for a, b in zip(there, here, strict=True))
    dose, again = (sweep.superposed(backend, there) for _ in range(2))
    found["superpose"] = difference(dose, sweep.superposed("cpu", here))
    found["superpose_repeats_bit_identical"] = bool(np.array_equal(dose, again))
    maps = fields(3, 30.0)
    full = [PLUGIN.dose(sweep.density, maps, model(), quality="final", backend=b) for b in (backend, "cpu")]
    found["full_dose"] = difference(*full)
    some, voxels = beamlets(2, 20.0), np.arange(sweep.density.grid.n_voxels)
    one, same, other = (
        PLUGIN.influence(sweep.density, some, model(), voxels, backend=b, progress=silent) for b in (backend, backend, "cpu")
    )
    random = np.random.default_rng(1)
    weights, gradient = random.uniform(0.5, 2.0, len(some)), random.normal(size=voxels.size)
    found["influence_apply"] = difference(one.apply(weights), other.apply(weights))
    found["influence_adjoint"] = difference(one.adjoint(gradient), other.adjoint(gradient))
    repeats = [(a.apply(weights), a.adjoint(gradient)) for a in (one, one, same)]
    found["influence_repeats_bit_identical"] = all(
        np.array_equal(a, b) for other in repeats[1:] for a, b in zip(repeats[0], other, strict=True)
    )
    return found


def timed(backend: str, action: Callable[[], Any], repeats: int = REPEATS) -> dict[str, float]:
    """Median and least milliseconds of an action, once warm; by CUDA events on the GPU, else by the wall clock."""
    action()
    spent = [_events_ms(action) if backend == "cuda" else _wall_ms(action) for _ in range(repeats)]
    return {"median_ms": float(np.median(spent)), "least_ms": min(spent), "repeats": repeats}


def _wall_ms(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - begin)


def _events_ms(action: Callable[[], Any]) -> float:
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    action()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end))


def speeds(backend: str, size: int, control_points: int, half_mm: float) -> dict[str, Any]:
    """Times of nine beams, of an arc and of an influence matrix."""
    found: dict[str, Any] = {}
    cases = ("nine_beams", size, 9), ("nine_beams_fine", 2 * size, 9), ("arc", size, control_points)
    for name, side, count in cases:
        sweep = Sweep(cylinder(side), fields(count, 50.0))
        released = sweep.released(backend)
        maps, density = fields(count, 50.0), sweep.density
        found[name] = {
            "shape": [side] * 3,
            "beams": count,
            "cones": len(sweep.set.directions),
            "terma": timed(backend, lambda sweep=sweep: sweep.released(backend)),
            "superpose": timed(backend, lambda sweep=sweep, released=released: sweep.superposed(backend, released)),
            "terma_and_superpose": timed(backend, lambda sweep=sweep: sweep.superposed(backend, sweep.released(backend))),
            "cone_kernels_on_the_host_ms": sweep.cones_ms,
            "engine": timed(
                backend,
                lambda density=density, maps=maps: PLUGIN.dose(density, maps, model(), quality=QUALITY, backend=backend),
                3,
            ),
        }
    density, some = cylinder(size), beamlets(7, half_mm)
    voxels = np.flatnonzero(density.electron_density_rel.reshape(-1) > 0)

    def matrix() -> Any:
        return PLUGIN.influence(density, some, model(), voxels, backend=backend, progress=silent)

    operator = matrix()
    weights, gradient = np.ones(len(some), np.float32), np.ones(voxels.size, np.float32)
    found["influence"] = {
        "shape": [size] * 3,
        "beamlets": len(some),
        "values": operator.n_nonzero,
        "bytes": operator.n_bytes,
        "matrix": timed(backend, matrix, 3),
        "apply": timed(backend, lambda: operator.apply(weights)),
        "adjoint": timed(backend, lambda: operator.adjoint(gradient)),
    }
    return found


def about() -> dict[str, Any]:
    """Circumstances of the run, less what asks git where there is none."""
    return circumstances() if shutil.which("git") else {"python": platform.python_version(), "cores": os.cpu_count()}


def device_name(backend: str) -> str:
    """The GPU that answered."""
    if backend != "cuda":
        return f"rehearsal on {backend}"
    from kernels.cuda.device import device

    return device().device_name


def main() -> None:
    """Prints all figures; `--out` keeps them as JSON. Exit status 1 when a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--control-points", type=int, default=180)
    parser.add_argument("--half-mm", type=float, default=67.5, help="half the beamlets' field: 67.5 gives 5,103 beamlets")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found = checks(chosen.backend, min(chosen.size, 48))
    right = all(value if isinstance(value, bool) else value <= 1e-3 for value in found.values())
    figures = {
        "about": about() | {"device": device_name(chosen.backend)},
        "settings": {name: value for name, value in vars(chosen).items() if name != "out"},
        "right": right,
        "differences": found,
        "times": speeds(chosen.backend, chosen.size, chosen.control_points, chosen.half_mm) if right else {},
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if chosen.out:
        chosen.out.write_text(text + "\n", encoding="utf-8")
    raise SystemExit(0 if right else 1)


if __name__ == "__main__":
    main()
