"""Phantoms that every engine receives alike: plain arrays in one .npz file, NumPy alone.

Arrays are (z, y, x), points and isocentres LPS mm, gantry angles IEC 61217 degrees, collimator and couch at 0. Densities are
electron densities relative to water and mass densities in g/cm3 at once: everything is water or less of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAD_MM = 1000.0
BEAMLET_MM = 5.0
C_SHAPE_GRID_ZYX = (108, 167, 167)
C_SHAPE_SPACING_MM = 3.0
C_SHAPE_BEAMS = 7
BODY_HALF_XYZ_MM = (153.0, 76.5, 150.0)
INNER_MM, OUTER_MM, HALF_LENGTH_MM = 15.0, 37.0, 40.0  # of the C (TG-119)
OPENING_DEG = 90.0


@dataclass(frozen=True, slots=True, eq=False)
class Beamlets:
    """Phantom, structures and beamlets of an influence matrix.

    `beam` (n,) index into `gantry_deg`; `x_mm`, `y_mm` (n,) middles of square beamlets at the isocentre plane along beam X
    and Y, ordered by beam, y, x.
    """

    density: NDArray[np.float32]
    body: NDArray[np.bool_]
    target: NDArray[np.bool_]
    spacing_mm: float
    origin_xyz_mm: NDArray[np.float64]
    isocentre_xyz_mm: NDArray[np.float64]
    sad_mm: float
    gantry_deg: NDArray[np.float64]
    beamlet_mm: float
    beam: NDArray[np.int64]
    x_mm: NDArray[np.float64]
    y_mm: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class OpenFields:
    """Phantom and equal square fields, `half_field_mm` at the isocentre plane, one for each of `gantry_deg`.

    `tpr_20_10` is the beam quality, for engines whose kernels are chosen by it.
    """

    density: NDArray[np.float32]
    spacing_mm: float
    origin_xyz_mm: NDArray[np.float64]
    isocentre_xyz_mm: NDArray[np.float64]
    sad_mm: float
    gantry_deg: NDArray[np.float64]
    half_field_mm: float
    tpr_20_10: float


def save(path: Path, phantom: Beamlets | OpenFields) -> None:
    """Writes a phantom's fields by name to an .npz file."""
    np.savez(path, **{f.name: getattr(phantom, f.name) for f in fields(phantom)})


def load_beamlets(path: Path) -> Beamlets:
    """Reads what `save` wrote."""
    return Beamlets(**_arrays(path, Beamlets))


def load_fields(path: Path) -> OpenFields:
    """Reads what `save` wrote."""
    return OpenFields(**_arrays(path, OpenFields))


def _arrays(path: Path, kind: type) -> dict[str, NDArray | float]:
    with np.load(path) as data:
        return {f.name: data[f.name] if data[f.name].ndim else data[f.name].item() for f in fields(kind)}


def c_shape() -> Beamlets:
    """The C of TG-119 in a box of water, on 167 x 167 x 108 voxels of 3 mm, with seven beams of 5 mm beamlets."""
    shape, spacing = C_SHAPE_GRID_ZYX, C_SHAPE_SPACING_MM
    z, y, x = (((np.arange(n) - (n - 1) / 2) * spacing).reshape(s) for n, s in zip(shape, _AXES, strict=True))
    half = BODY_HALF_XYZ_MM
    body = (np.abs(x) < half[0]) & (np.abs(y) < half[1]) & (np.abs(z) < half[2])
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(x, y))
    ring = (radius > INNER_MM) & (radius < OUTER_MM) & (np.abs(angle) > OPENING_DEG / 2)
    target = ring & (np.abs(z) < HALF_LENGTH_MM)
    gantry = np.arange(C_SHAPE_BEAMS) * 360.0 / C_SHAPE_BEAMS
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1)[target]
    cells = [_cells(points, angle) for angle in gantry]
    beam = np.repeat(np.arange(len(gantry)), [len(c) for c in cells])
    middle = (np.concatenate(cells) + 0.5) * BEAMLET_MM
    origin = np.array([-(n - 1) / 2 * spacing for n in shape[::-1]])
    return Beamlets(
        np.ascontiguousarray(body, dtype=np.float32),
        np.ascontiguousarray(body),
        np.ascontiguousarray(target),
        spacing,
        origin,
        np.zeros(3),
        SAD_MM,
        gantry,
        BEAMLET_MM,
        beam,
        middle[:, 1],
        middle[:, 0],
    )


_AXES = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))


def _cells(points_xyz_mm: NDArray[np.float64], gantry_deg: float) -> NDArray[np.int64]:
    """Raster cells (row, column) of the target's projection grown by one beamlet all round, ordered by row and column."""
    c, s = np.cos(np.radians(gantry_deg)), np.sin(np.radians(gantry_deg))
    towards_source = points_xyz_mm @ np.array([s, -c, 0.0])
    scale = SAD_MM / (SAD_MM - towards_source) / BEAMLET_MM
    column = np.floor(points_xyz_mm @ np.array([c, s, 0.0]) * scale).astype(int)
    row = np.floor(points_xyz_mm[:, 2] * scale).astype(int)
    seen = np.unique(np.stack([row, column], axis=1), axis=0)
    around = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    return np.unique((seen[:, None] + around[None]).reshape(-1, 2), axis=0)


def first_beamlets(phantom: Beamlets, count: int) -> Beamlets:
    """The same phantom with the first few beamlets of its first beam, to warm an engine up."""
    values = {f.name: getattr(phantom, f.name) for f in fields(phantom)}
    values |= {name: values[name][:count] for name in ("beam", "x_mm", "y_mm")}
    return Beamlets(**(values | {"gantry_deg": phantom.gantry_deg[:1]}))


def cylinder_fields(size: int, n_beams: int, tpr_20_10: float) -> OpenFields:
    """Open 10x10 cm fields from all sides at the middle of a water cylinder in vacuum, `size`^3 voxels of 3 mm."""
    spacing = 3.0
    across = (np.arange(size) - (size - 1) / 2) * spacing
    inside = np.hypot(across[None], across[:, None]) < 0.45 * size * spacing
    density = np.ascontiguousarray(np.broadcast_to(inside, (size,) * 3), dtype=np.float32)
    gantry = np.arange(n_beams) * 360.0 / n_beams
    return OpenFields(density, spacing, np.full(3, across[0]), np.zeros(3), SAD_MM, gantry, 50.0, tpr_20_10)
