"""Samples whose points are voxels themselves, for tests of wishes without a grid."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from rtplan.steps.samples import Samples


def samples_of(rows, voxel_cc: float) -> Samples:
    """Points that are these rows of the dose vector, each of `voxel_cc`."""
    rows = np.asarray(rows, dtype=np.int64)
    return Samples(rows, sp.identity(len(rows), format="csr"), len(rows) * voxel_cc, np.arange(len(rows)))
