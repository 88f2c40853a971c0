"""Small but awkward inputs that every device must compute as the other backends do."""

from __future__ import annotations

import numpy as np

from kernels.column_data import BeamletSources, ConeKernels, columns_of, cone_lines
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


def directions_of(n: int):
    """So many directions from all sides, along the axes as well."""
    return direction_set(86)[np.linspace(0, 85, n).astype(int)]


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
    phases = np.where(np.arange(n_directions) % 2, 0.25, 0.75)
    options = {"grid": GRID, "beams": beams, "phases": phases, "smallest_exponent_per_cm": 0.04 * 2 ** (9 - n_components)}
    return (density, released, kernels, directions_of(n_directions)), options


def influence_arguments(ratio: int = 2, n_components: int = 9, threshold: float = 0.0, negligible: float = 0.0):
    """Arguments of `deposit_columns`: blocks of 16, 1 and 3 beamlets that overlap, some of whose sources release nothing."""
    random = np.random.default_rng(11)
    density = body()
    filled = np.flatnonzero(density.reshape(-1) > 0)
    middle = filled[len(filled) // 3 : 2 * len(filled) // 3]
    own = [np.sort(random.choice(middle, int(n), replace=False)) for n in random.integers(3, 25, 20)]
    start = np.concatenate([[0], np.cumsum([len(o) for o in own])]).astype(np.int64)
    fraction = random.uniform(0, 1, start[-1]).astype(np.float32)
    fraction[::7] = 0
    sources = BeamletSources(start, np.concatenate(own).astype(np.int64), fraction, np.array([0, 16, 17, 20], np.int64))
    directions, n_bins = directions_of(26), 4
    exponents = 0.05 * float(ratio) ** np.arange(n_components)
    per_cone = random.uniform(0, 1, (20, len(directions), n_bins, n_components)).astype(np.float32)
    kernels = ConeKernels(per_cone, random.uniform(0, 1, n_bins).astype(np.float32), exponents, 1.5, negligible)
    released = random.uniform(0.5, 1, SHAPE).astype(np.float32) * (density > 0)
    hardness = random.integers(0, n_bins, SHAPE).astype(np.uint8)
    per_energy = np.divide(1.0, density, out=np.zeros_like(density), where=density > 0.05)
    wanted = random.uniform(size=density.size) < 0.8
    row_of = np.where(wanted, np.cumsum(wanted) - 1, -1).astype(np.int32)
    lines = cone_lines(directions, GRID)
    return density, released, hardness, sources, kernels, lines, per_energy, row_of, threshold


def random_columns(n_rows: int = 300, n_columns: int = 30):
    """Columns with short and long runs, and one with nothing in it."""
    random = np.random.default_rng(3)
    rows = [np.flatnonzero(random.uniform(size=n_rows) < f) for f in random.uniform(0.05, 0.9, n_columns)]
    rows[4] = rows[4][:0]
    return columns_of(rows, [random.uniform(0.01, 10 ** random.uniform(-1, 3), len(r)) for r in rows])


def coverage_arguments():
    """Arguments of `split_field`: beamlets around the axis, one absent, a leaf pair missing, points on edges."""
    random = np.random.default_rng(9)
    n = 200
    centre = random.uniform(-20, 20, (n, 3)).astype(np.float32)
    centre[:20] = np.rint(centre[:20] / 5) * 5  # on the edges between beamlets, in the plane of the isocentre
    centre[:20, 1] = 0
    table = np.arange(40, dtype=np.int32).reshape(5, 8)
    table[2, 3] = -1
    row_of_y = np.array([0, 0, 1, -1, 2, 3, 4, 4], np.int32)
    one = BEAMS[0]
    spacing, origin, raster = np.array([3.0, 2.0, 2.5], np.float32), np.array([-20.0, -20.0]), np.array([5.0, 5.0])
    voxel = np.arange(1000, 1000 + n)
    return voxel, centre, spacing, one.source_xyz_mm, one.axes, one.sad_mm, row_of_y, table, origin, raster, 3
