"""A structure's shadow on a beam's isocentre plane, to the width of the CT's voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtplan.domain.beams import Beam, beam_frame
from rtplan.domain.grid import Grid

_PIXEL_VOXELS = 1.2  # pixel over the widest voxel side: any narrower and rows of centres leave gaps


def shadow(
    mask: NDArray[np.bool_], grid: Grid, beam: Beam, extent_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pixel centres along X and Y alike, (n,) mm from -`extent_mm` to `extent_mm`, and what the mask covers, (n, n) rows Y.

    Voxels are points at their centres, projected from the source; beam limiting device axes.
    """
    pixel = _PIXEL_VOXELS * max(grid.spacing_zyx_mm)
    half = int(np.ceil(extent_mm / pixel))
    edges = (np.arange(-half, half + 2) - 0.5) * pixel
    # The surface casts the whole shadow; the inside of a large target would only cost time.
    surface = mask & ~ndimage.binary_erosion(mask)
    x, y, _ = beam_frame(beam).to_bev(grid.to_point_mm(np.argwhere(surface).astype(np.float64)))
    hit = np.histogram2d(y, x, bins=(edges, edges))[0] > 0
    return np.asarray(edges[1:] + edges[:-1]) / 2.0, np.asarray(ndimage.binary_closing(hit, np.ones((3, 3))))
