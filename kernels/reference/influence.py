"""Reference `split_field` and `deposit_columns`: NumPy float64, voxel by voxel. See `kernels.contract`."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from kernels.column_data import BeamletSources, Columns, ConeLines, columns_of


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
    density_rel: NDArray[np.float32],
    released: NDArray[np.float32],
    sources: BeamletSources,
    cone_kernels: NDArray[np.float32],
    local: NDArray[np.float32],
    exponents_per_cm: NDArray[np.float32],
    lines: ConeLines,
    reach_cm: NDArray[np.float32],
    dose_per_energy: NDArray[np.float32],
    row_of: NDArray[np.int32],
    threshold: float,
) -> Columns:
    """Columns of the influence matrix."""
    groups = released.reshape(len(released), -1).astype(np.float64)
    rows, values = [], []
    for first, last in pairwise(sources.block):
        share = np.zeros((last - first, density_rel.size))
        for j in range(first, last):
            own = slice(sources.start[j], sources.start[j + 1])
            share[j - first, sources.voxel[own]] = sources.fraction[own]
        energy = share * (local @ groups)
        for k in range(len(reach_cm)):
            # (lane, i, voxel): what every beamlet releases into this cone
            into = np.einsum("lgi,gv,lv->liv", cone_kernels[first:last, k].astype(np.float64), groups, share)
            _cone(into, np.asarray(density_rel, np.float64), exponents_per_cm, lines, k, float(reach_cm[k]), energy)
        for dose in energy * dose_per_energy.reshape(-1):
            dose[row_of < 0] = 0.0
            kept = np.flatnonzero(dose > threshold * dose.max(initial=0.0))
            rows.append(row_of[kept].astype(np.int64))
            values.append(dose[kept])
    return columns_of(rows, values)


def _cone(
    into: NDArray[np.float64],
    density: NDArray[np.float64],
    exponents_per_cm: NDArray[np.float32],
    lines: ConeLines,
    k: int,
    reach_cm: float,
    energy: NDArray[np.float64],
) -> None:
    """Adds the energy that cone k of one block deposits, (lane, voxel), line by line."""
    places = np.arange(density.size).reshape(density.shape).transpose(lines.axes[k])
    places = places if lines.forward[k] else places[::-1]
    n_planes, n_rows, n_columns = places.shape
    row_shift, column_shift = lines.row_shift[k, :n_planes], lines.column_shift[k, :n_planes]
    source = (into != 0).any(axis=(0, 1))
    for row in range(-max(row_shift.max(), 0), n_rows - min(row_shift.min(), 0)):
        for column in range(-max(column_shift.max(), 0), n_columns - min(column_shift.min(), 0)):
            r, c = row + row_shift, column + column_shift
            n = np.flatnonzero((r >= 0) & (r < n_rows) & (c >= 0) & (c < n_columns))
            voxels = places[n, r[n], c[n]]
            if source[voxels].any():
                _along_line(into, voxels, source, density, exponents_per_cm, float(lines.step_cm[k]), reach_cm, energy)


def _along_line(
    into: NDArray[np.float64],
    voxels: NDArray[np.int64],
    source: NDArray[np.bool_],
    density: NDArray[np.float64],
    exponents_per_cm: NDArray[np.float32],
    step_cm: float,
    reach_cm: float,
    energy: NDArray[np.float64],
) -> None:
    """The recursion of `superpose` along one line, until `reach_cm` beyond its last source."""
    lit = np.flatnonzero(source[voxels])
    state, beyond = np.zeros(into.shape[:2]), 0.0
    for n in range(lit[0], len(voxels)):
        path = float(density.reshape(-1)[voxels[n]]) * step_cm
        if n > lit[-1]:
            if beyond > reach_cm:
                return
            beyond += path
        y = exponents_per_cm.astype(np.float64) * path
        lost = -np.expm1(-y)
        kept = 1.0 - np.divide(lost, y, out=np.ones_like(y), where=y > 0)
        new = into[:, :, voxels[n]]
        left = state * lost + new * kept
        energy[:, voxels[n]] += left.sum(axis=1)
        state += new - left
