"""Reference `split_field` and `deposit_columns`: NumPy float64, voxel by voxel. See `kernels.contract`."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray


def split_field(
    voxel: NDArray[np.int64],
    centre_mm: NDArray[np.float32],
    spacing_mm: NDArray[np.float32],
    source_mm: NDArray[np.float64],
    axes: NDArray[np.float64],
    sad_mm: float,
    row_of_y: NDArray[np.int32],
    beamlet_of: NDArray[np.int32],
    origin_mm: NDArray[np.float64],
    raster_mm: NDArray[np.float64],
    sub: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Which fraction of each voxel each beamlet covers. Returns (n,) beamlet, voxel and fraction, ordered by voxel."""
    found: list[tuple[int, int, float]] = []
    places = (np.arange(sub) + 0.5) / sub - 0.5
    for v, centre in zip(voxel, centre_mm.astype(np.float64), strict=True):
        share: dict[int, float] = {}
        for a, b, c in product(places, repeat=3):
            point = centre + spacing_mm[::-1].astype(np.float64) * np.array([c, b, a]) - source_mm
            x, y = (axes[:2] @ point) * sad_mm / -(axes[2] @ point)
            ix, iy = (int(np.floor((p - o) / r)) for p, o, r in zip((x, y), origin_mm, raster_mm, strict=True))
            if 0 <= iy < len(row_of_y) and 0 <= ix < beamlet_of.shape[1] and row_of_y[iy] >= 0:
                beamlet = int(beamlet_of[row_of_y[iy], ix])
                if beamlet >= 0:
                    share[beamlet] = share.get(beamlet, 0.0) + 1.0 / sub**3
        found += [(beamlet, int(v), part) for beamlet, part in share.items()]
    columns = list(zip(*found, strict=True))
    return np.array(columns[0], np.int32), np.array(columns[1], np.int64), np.array(columns[2], np.float32)


def deposit_columns(
    source_start: NDArray[np.int64],
    source_voxel: NDArray[np.int64],
    source_energy: NDArray[np.float32],
    source_kernel: NDArray[np.uint8],
    density_rel: NDArray[np.float32],
    dose_per_energy: NDArray[np.float32],
    row_of: NDArray[np.int32],
    offset_zyx: NDArray[np.int16],
    step_cm: NDArray[np.float32],
    cumulative: NDArray[np.float32],
    reach: NDArray[np.int64],
    table_step_cm: float,
    threshold: float,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint16], NDArray[np.float32]]:
    """Columns of the influence matrix. Returns start, row, level, scale."""
    start, rows, levels, scales = [0], [], [], []
    for j in range(len(source_start) - 1):
        part = slice(source_start[j], source_start[j + 1])
        energy = _column(
            source_voxel[part],
            source_energy[part],
            source_kernel[part],
            density_rel,
            offset_zyx,
            step_cm,
            cumulative,
            reach,
            table_step_cm,
        )
        dose = np.where(row_of >= 0, energy.reshape(-1) * dose_per_energy, 0.0)
        kept = np.flatnonzero((dose > threshold * dose.max()) & (dose > 0))
        scales.append(dose.max() / 65535.0)
        rows.append(row_of[kept])
        levels.append(np.rint(dose[kept] / scales[-1]))
        start.append(start[-1] + len(kept))
    return (
        np.array(start, np.int64),
        np.concatenate(rows).astype(np.int32),
        np.concatenate(levels).astype(np.uint16),
        np.array(scales, np.float32),
    )


def _column(
    source_voxel: NDArray[np.int64],
    source_energy: NDArray[np.float32],
    source_kernel: NDArray[np.uint8],
    density_rel: NDArray[np.float32],
    offset_zyx: NDArray[np.int16],
    step_cm: NDArray[np.float32],
    cumulative: NDArray[np.float32],
    reach: NDArray[np.int64],
    table_step_cm: float,
) -> NDArray[np.float64]:
    """Energy that one beamlet deposits in each voxel, (z, y, x)."""
    energy = np.zeros(density_rel.shape)
    last = cumulative.shape[2] - 1
    for voxel, released, kernel in zip(source_voxel, source_energy, source_kernel, strict=True):
        home = np.array(np.unravel_index(voxel, density_rel.shape))
        for k in range(len(step_cm)):
            path, before = 0.0, 0.0
            for n in range(offset_zyx.shape[1]):
                at = tuple(home + offset_zyx[k, n])
                if min(at) < 0 or any(a >= m for a, m in zip(at, density_rel.shape, strict=True)):
                    break
                # Half a voxel: the source sits at the centre of its own voxel.
                path += float(density_rel[at]) * float(step_cm[k]) * (0.5 if n == 0 else 1.0)
                place = path / table_step_cm
                if int(place) >= reach[k]:
                    break
                after = float(np.interp(place, np.arange(last + 1), cumulative[kernel, k]))
                energy[at] += float(released) * (after - before)
                before = after
    return energy
