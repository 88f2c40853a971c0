"""Small but awkward inputs that every device must compute as the other backends do."""

from __future__ import annotations

import numpy as np

from kernels.contract import BeamGeometry, BeamTables, GridGeometry, Released, fluence_table
from kernels.directions import direction_set

SHAPE, SPACING_ZYX_MM = (11, 17, 14), (5.0, 2.5, 3.5)
GRID = GridGeometry(SHAPE, SPACING_ZYX_MM, (-21.0, -24.0, -27.0))


def beam(gantry_deg: float, couch_deg: float, sad_mm: float = 1000.0) -> BeamGeometry:
    """A beam from any side towards the origin."""
    g, c = np.deg2rad([gantry_deg, couch_deg])
    couch = np.array([[np.cos(c), 0, -np.sin(c)], [0, 1, 0], [np.sin(c), 0, np.cos(c)]])
    axes = np.array([[np.cos(g), np.sin(g), 0], [0, 0, 1], [np.sin(g), -np.cos(g), 0]]) @ couch
    return BeamGeometry(sad_mm * axes[2], axes, sad_mm)


BEAMS = (beam(0.0, 0.0), beam(37.0, 0.0), beam(200.0, 25.0), beam(90.0, 90.0, 800.0))


def body():
    """Lumps with air, nothing and metal in them; nothing at all around."""
    density = np.random.default_rng(3).uniform(0.1, 1.6, SHAPE).astype(np.float32)
    density[0], density[:, :2], density[4:6, 6:9], density[7, 8] = 0.0, 0.0, 0.0012, 7.0
    density[2:5, 10:12, 5:9] = 0.0
    return density


def fluence():
    """Unequal pixels, some shut, off the axis."""
    x, y = np.array([-18.0, -3.0, 1.0, 12.0]), np.array([-11.0, 0.0, 14.0])
    return fluence_table(x, y, np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 3.0]]))


def tables():
    """Two groups, softened off the axis in three steps, with horns."""
    depth = 0.1 * np.arange(600)
    decay = np.exp(-np.multiply.outer([[0.05, 0.1], [0.06, 0.12], [0.08, 0.13]], depth))
    return BeamTables(0.1, np.array([0.0, 8.0, 15.0]), decay, np.array([0.0, 10.0, 90.0]), np.array([1.0, 1.03, 1.2]))


def terma_arguments(one: BeamGeometry):
    """Arguments of `terma` for one beam."""
    return (body(),), {"grid": GRID, "beam": one, "fluence": fluence(), "tables": tables()}


def superpose_arguments(n_beams: int = 3, n_groups: int = 2, n_components: int = 9, n_directions: int = 50):
    """Arguments of `superpose` with a box for each beam, whose energies are random."""
    random = np.random.default_rng(5)
    density = body()
    released = []
    for b in range(n_beams):
        start = tuple(int(s) for s in random.integers(0, 6, 3))
        stop = [int(random.integers(s + 1, n + 1)) for s, n in zip(start, SHAPE, strict=True)]
        box = tuple(slice(a, e) for a, e in zip(start, stop, strict=True))
        energy = random.uniform(0, 1, (n_groups, *density[box].shape)).astype(np.float32)
        energy[:, (density[box] == 0) | (random.uniform(size=density[box].shape) < 0.2 * (b % 3))] = 0
        released.append(Released(start, energy))
    kernels = random.uniform(-0.1, 1, (n_beams, n_directions, 6 * n_groups, n_components)).astype(np.float32)
    beams = [BEAMS[b % len(BEAMS)] for b in range(n_beams)]
    # 0.04 per cm; metal and few components take it beyond the series for small paths.
    options = {"grid": GRID, "beams": beams, "smallest_exponent_per_cm": 0.04 * 2 ** (9 - n_components)}
    return (density, released, kernels, direction_set(n_directions)), options
