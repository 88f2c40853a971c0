"""Arcs as fixed maps: how fine they must be, and what they cost: python -m benchmarks.bench_arcs [--part steps|cost]

steps: dose of modulated arcs of 180 degrees in a water cylinder of 30 cm, control points 4 degrees apart, cut into maps of
4, 2 and 1 degrees against 0.5. cost: wall and processor seconds and peak memory of 90 and 180 maps on the C-shape phantom
(sample_data/tg119_c_shape), fluence and dose apart, by quality.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.results_file import write_results
from rtplan.dicom.read_ct import read_ct
from rtplan.domain.beams import Beam
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import Machine
from rtplan.domain.plan import Aperture, ControlPoint, PlanBeam, arc_beam
from rtplan.engines import collapsed_cone
from rtplan.library.calibrations import load_calibration
from rtplan.library.machines import load_machine
from rtplan.steps.fluence import beam_fluence
from rtplan.steps.ingest import body_mask, densities, dose_grid, resample_density

MACHINE = "generic_6mv"
C_SHAPE = Path(__file__).resolve().parents[1] / "sample_data" / "tg119_c_shape" / "CT"
STEPS_DEG = (4.0, 2.0, 1.0)
REFERENCE_DEG = 0.5
GRID_MM = 2.5
SEEDS = (1, 2)


def modulated_aperture(machine: Machine, angle_deg: float, phase: np.ndarray) -> Aperture:
    """Openings of 10 to 50 mm within 100 x 80 mm, whose tips wander with the angle by up to 2.5 mm per degree."""
    bounds = machine.mlc.leaf_boundaries_mm
    inside = (bounds[:-1] >= -40.0) & (bounds[1:] <= 40.0)
    turn = np.radians(angle_deg)
    centre = 20.0 * np.sin(3 * turn + phase[0]) + 8.0 * np.sin(11 * turn + phase[1])
    half = 15.0 + 10.0 * np.sin(5 * turn + phase[2])
    x1 = np.where(inside, centre - half, 49.0)
    return Aperture(x1, np.where(inside, centre + half, 49.5), -60.0, 60.0, -40.0, 40.0)


def modulated_arc(
    machine: Machine, spacing_deg: float, n: int, seed: int, isocentre: tuple[float, float, float]
) -> PlanBeam:
    """`n` intervals of `spacing_deg` from 181 degrees on, 400 MU in unequal parts."""
    draw = np.random.default_rng(seed)
    # Neighbouring leaves move alike, as those of a plan do.
    phase = np.cumsum(draw.normal(0.0, 0.4, (3, machine.mlc.n_pairs)), axis=1)
    mu = np.concatenate([[0.0], np.cumsum(draw.uniform(0.5, 1.5, n))])
    angles = (181.0 + spacing_deg * np.arange(n + 1)) % 360.0
    points = tuple(
        ControlPoint(float(m), float(a), modulated_aperture(machine, float(a), phase))
        for m, a in zip(400.0 * mu / mu[-1], angles, strict=True)
    )
    return arc_beam(1, Beam("arc", 181.0, 10.0, 0.0, isocentre, machine.sad_mm), "CW", points)


def cylinder() -> DensityImage:
    """Water, 30 cm across and 10 cm long."""
    grid = Grid((40, 124, 124), (GRID_MM,) * 3, (-61.5 * GRID_MM, -61.5 * GRID_MM, -19.5 * GRID_MM))
    inside = np.hypot(grid.x_mm()[None], grid.y_mm()[:, None]) < 150.0
    water = np.ascontiguousarray(np.broadcast_to(inside, grid.shape_zyx).astype(np.float32))
    return DensityImage(grid, water, water)


def arc_dose(arc: PlanBeam, density: DensityImage, machine: Machine, step_deg: float, quality: str) -> np.ndarray:
    """Dose of the arc cut into maps of at most `step_deg`, Gy."""
    maps = beam_fluence(arc, machine, arc_step_deg=step_deg)
    return collapsed_cone.dose(density, maps, machine.beam, quality=quality, backend="cpu")


def steps() -> dict[str, dict[str, float]]:
    """Difference of each step from the reference, percent of the reference's maximum."""
    density, machine = cylinder(), load_machine(MACHINE)
    rows: dict[str, dict[str, float]] = {}
    for seed in SEEDS:
        arc = modulated_arc(machine, 4.0, 45, seed, (0.0, 0.0, 0.0))
        reference = arc_dose(arc, density, machine, REFERENCE_DEG, "quick")
        top = float(reference.max())
        for step in STEPS_DEG:
            found = arc_dose(arc, density, machine, step, "quick")
            off = 100.0 * (found - reference) / top
            high = reference > 0.5 * top
            rows[f"seed {seed}, {step:g} deg"] = {
                "worst_percent": float(np.abs(off).max()),
                "rms_above_half_percent": float(np.sqrt(np.mean(off[high] ** 2))),
                "p99_above_half_percent": float(np.percentile(np.abs(off[high]), 99)),
                "mean_above_half_percent": float(off[high].mean()),
            }
            print(f"seed {seed}, {step:g} deg  {rows[f'seed {seed}, {step:g} deg']}", flush=True)
    return rows


def cost(maps: int, quality: str) -> dict[str, float]:
    """Seconds and memory of an arc of `maps` maps on the C-shape; code compiled beforehand."""
    ct = read_ct(C_SHAPE)
    body = body_mask(ct)
    density = resample_density(densities(ct, body, load_calibration("generic_120kvp")), dose_grid(ct, body, GRID_MM))
    machine = load_machine(MACHINE)
    low, high = density.grid.bounds_mm()
    middle = tuple(float(round((a + b) / 2)) for a, b in zip(low, high, strict=True))
    arc = modulated_arc(machine, 358.0 / maps, maps, 1, (middle[0], middle[1], middle[2]))
    short = modulated_arc(machine, 2.0, 2, 1, (middle[0], middle[1], middle[2]))
    collapsed_cone.dose(density, beam_fluence(short, machine), machine.beam, quality=quality, backend="cpu")
    marks = [(time.perf_counter(), time.process_time())]
    fields = beam_fluence(arc, machine, arc_step_deg=5.0)
    marks.append((time.perf_counter(), time.process_time()))
    collapsed_cone.dose(density, fields, machine.beam, quality=quality, backend="cpu")
    marks.append((time.perf_counter(), time.process_time()))
    return {
        "maps": len(fields),
        "voxels": density.grid.n_voxels,
        "fluence_wall_s": marks[1][0] - marks[0][0],
        "fluence_cpu_s": marks[1][1] - marks[0][1],
        "dose_wall_s": marks[2][0] - marks[1][0],
        "dose_cpu_s": marks[2][1] - marks[1][1],
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def costs() -> dict[str, dict[str, float]]:
    """Every number of maps at every quality, each in a process of its own."""
    rows = {}
    for maps in (90, 180):
        for quality in ("quick", "standard", "final"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                rows[f"{maps} {quality}"] = process.submit(cost, maps, quality).result()
            print(f"{maps} {quality:9s}  {rows[f'{maps} {quality}']}", flush=True)
    return rows


def main() -> None:
    """Prints the figures and writes benchmarks/results/arcs_<part>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=("steps", "cost"))
    for part in parser.parse_args().part or ("steps", "cost"):
        figures = steps() if part == "steps" else costs()
        print(write_results(f"arcs_{part}", {"machine": MACHINE, "figures": figures}))


if __name__ == "__main__":
    main()
