"""Where an engine and Monte Carlo disagree: gamma failures and signed differences by material and place in the beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from benchmarks.dose_comparison import CRITERIA, NOISE_SEED, View, above_a_tenth
from benchmarks.gamma_index import Criterion, gamma_index
from rtplan.domain.beams import beam_frame

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
LOW_G_CM3, BONE_G_CM3 = 0.5, 1.14
BUILD_UP_CM = 1.5
EDGE_MM = 6.0
BESIDE_MM = 7.5
BEHIND_CM = 1.0
STEP_MM = 2.0
MATERIALS = ("low density", "beside low", "behind low", "bone", "behind bone", "soft")
PLACES = ("build-up", "in field", "penumbra", "outside")


@dataclass(frozen=True, slots=True)
class RegionRow:
    """One region: voxels above 10 % of the maximum, % of them that fail 2 %/2 mm, % that fail by noise alone, mean and rms
    difference (engine less Monte Carlo) and the voxels' noise, in % of the maximum."""

    material: str
    place: str
    voxels: int
    fail_pct: float
    noise_fail_pct: float
    mean_pct: float
    rms_pct: float
    noise_pct: float


def failure_table(seen: View, engine_dose: NDArray[np.floating]) -> list[RegionRow]:
    """Rows for all regions that hold a voxel. A voxel belongs to the first material and place whose rule it meets."""
    high, field = above_a_tenth(seen), seen.field
    percent, distance_mm = CRITERIA[0]
    criterion = Criterion(percent / 100 * seen.top, distance_mm)
    replica = seen.ours + np.random.default_rng(NOISE_SEED).normal(size=seen.ours.shape) * field.sigma
    grid, edges = field.density.grid, field.edges_zyx_mm
    fails, by_noise = (gamma_index(engine_dose, grid, d, edges, high, criterion) > 1 for d in (field.dose, replica))
    points = field.centres_xyz_mm()[high]
    density, water_cm, low_cm, bone_cm = _along_ray(seen, points)
    material = _first(
        density < LOW_G_CM3,
        _beside_low(seen, points),
        low_cm > BEHIND_CM,
        density >= BONE_G_CM3,
        bone_cm > BEHIND_CM,
    )
    away_x, away_y = (np.abs(p[high]) - half for p, half in ((seen.x, seen.half_mm[0]), (seen.y, seen.half_mm[1])))
    edge = np.maximum(away_x, away_y)
    place = _first(water_cm < BUILD_UP_CM, edge < -EDGE_MM, edge < EDGE_MM)
    difference = 100 * (seen.ours - field.dose)[high] / seen.top
    noise = 100 * field.sigma[high] / seen.top
    rows = []
    for m, material_name in enumerate(MATERIALS):
        for p, place_name in enumerate(PLACES):
            own = (material == m) & (place == p)
            if own.any():
                rows.append(_row(material_name, place_name, fails[own], by_noise[own], difference[own], noise[own]))
    return rows


def _row(material: str, place: str, fails: Mask, by_noise: Mask, difference: Floats, noise: Floats) -> RegionRow:
    return RegionRow(
        material,
        place,
        len(fails),
        float(100 * fails.mean()),
        float(100 * by_noise.mean()),
        float(difference.mean()),
        float(np.sqrt((difference**2).mean())),
        float(np.sqrt((noise**2).mean())),
    )


def _first(*rules: Mask) -> NDArray[np.int64]:
    """Number of the first rule that holds; their count where none does."""
    result: NDArray[np.int64] = np.select(list(rules), list(range(len(rules))), default=len(rules))
    return result


def _along_ray(seen: View, points: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Density at points (n, 3), and upstream of them: water-equivalent path, path in low density and in bone, cm."""
    grid = seen.field.density.grid
    mass = seen.field.density.mass_density_g_cm3
    to_source = beam_frame(seen.field.fluence.beam).source_xyz_mm - points
    to_source /= np.linalg.norm(to_source, axis=1, keepdims=True)
    low, high = (np.array(b) for b in grid.bounds_mm())
    water, light, bone = (np.zeros(len(points)) for _ in range(3))
    here = _at(seen, mass, points)
    entered = np.zeros(len(points), dtype=bool)
    # From the source's side on, so that air before the body is not counted as low density.
    for n in range(int(np.linalg.norm(high - low) / STEP_MM), -1, -1):
        there = _at(seen, mass, points + (n + 0.5) * STEP_MM * to_source)
        entered |= there > LOW_G_CM3
        water += there
        light += entered & (there < LOW_G_CM3)
        bone += there >= BONE_G_CM3
    step_cm = STEP_MM / 10
    return here, water * step_cm, light * step_cm, bone * step_cm


def _at(seen: View, values: NDArray[np.float32], points: Floats) -> Floats:
    """Values of the voxels that hold the points; zero outside the grid."""
    index = seen.field.density.grid.to_index(points)
    result: Floats = map_coordinates(values, index.T, order=0, mode="constant", cval=0.0)
    return result


def _beside_low(seen: View, points: Floats) -> Mask:
    """Whether low density lies within 7.5 mm of points, along any axis of the grid; the surface of the body counts."""
    mass = seen.field.density.mass_density_g_cm3
    result = np.zeros(len(points), dtype=bool)
    for axis in range(3):
        for away in (-BESIDE_MM, -BESIDE_MM / 2, BESIDE_MM / 2, BESIDE_MM):
            moved = points.copy()
            moved[:, axis] += away
            result |= _at(seen, mass, moved) < LOW_G_CM3
    return result
