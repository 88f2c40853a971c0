"""Dose columns of narrow beamlets by walking every source voxel's cone lines (specification)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def deposit_column(
    source_voxel: NDArray[np.int64],
    source_energy: NDArray[np.float32],
    source_kernel: NDArray[np.uint8],
    density_rel: NDArray[np.float32],
    offset_zyx: NDArray[np.int16],
    step_cm: NDArray[np.float32],
    cumulative: NDArray[np.float32],
    table_step_cm: float,
) -> NDArray[np.float64]:
    """Energy that one beamlet deposits in each voxel, (z, y, x). Shapes and units as in kernels.contract INFLUENCE."""
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
                if place >= last:
                    break
                after = float(np.interp(place, np.arange(last + 1), cumulative[kernel, k]))
                energy[at] += float(released) * (after - before)
                before = after
    return energy
