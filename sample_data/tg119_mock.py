"""TG-119's mock prostate and mock head and neck in water (Ezzell et al., Med Phys 36:5359, 2009).

The report gives these cases as contours and describes them in words. Every dimension called "recalled" below is that
description from memory, every one called "chosen" is this project's: the phantoms are of the description, not of the files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import distance_transform_edt

from rtplan.domain.grid import Grid
from sample_data.phantom import Field, Phantom, axes, centred_grid, ellipsoid, roi, slab, without
from sample_data.tg119 import WATER_SLAB_ZYX, in_water, slab_body

Draw = Callable[[Grid], Field]
_FINE = 3  # odd, so that every voxel's centre is also one of the finer grid's


def prostate() -> Phantom:
    """Mock prostate in the water slab of the other cases.

    Recalled: a CTV roughly ellipsoidal with a posterior concavity, 40 (RL) x 26 (AP) x 65 mm (SI); the PTV 6 mm around it;
    the rectum a cylinder of 15 mm diameter that abuts the concavity, a third of it in the PTV where that is widest; the
    bladder roughly ellipsoidal, 50 x 40 x 50 mm, centred on the prostate's superior end.
    Chosen: the concavity is 1 mm deep (0.4 of the rectum is then in the widest PTV slice); the rectum goes on for 60 mm
    to each side; the bladder's centre lies 22 mm in front of the prostate's, and what is CTV is not bladder. The CTV is not
    among the contours.
    """
    grid = WATER_SLAB_ZYX
    z, _, _ = axes(grid)
    ctv = _prostate_ctv(grid)
    ptv = distance_mm(grid, _prostate_ctv, reach_mm=10.0) - 6.0
    rectum = np.maximum(_rectum(grid), slab(z, -60.0, 60.0))
    bladder = without(ellipsoid(grid, (0.0, -22.0, 32.5), (25.0, 20.0, 25.0)), ctv)
    rois = (
        roi("PTV", "PTV", ptv),
        roi("Rectum", "ORGAN", rectum),
        roi("Bladder", "ORGAN", bladder),
    )
    return in_water("tg119_prostate", "TG-119 mock prostate in water", grid, slab_body(grid), rois)


def _prostate_ctv(grid: Grid) -> Field:
    return without(ellipsoid(grid, (0.0, 0.0, 0.0), (20.0, 13.0, 32.5)), _rectum(grid))


def _rectum(grid: Grid) -> Field:
    z, y, x = axes(grid)
    return np.hypot(x, y - (13.0 + 7.5 - 1.0)) - 7.5 + 0.0 * z


def head_neck_mock() -> Phantom:
    """Mock head and neck in a water cylinder.

    Recalled: the PTV holds all of the anterior volume from the base of the skull to the upper neck and the posterior neck
    nodes, is 6 mm retracted from the skin, and keeps about 15 mm from the cord; the parotids lie at its superior side.
    Chosen: the outline, an ellipse of 120 x 140 mm; the PTV's 90 mm along the patient; the cord, 12 mm across, 42 mm under
    the posterior skin; nothing of the PTV between the nodes behind the cord; the parotids of 22 x 34 x 48 mm, 4 mm from
    the PTV, which leaves out what lies lateral of them.
    """
    grid = centred_grid((68, 76, 66), (2.5, 2.0, 2.0))
    z, y, x = axes(grid)
    plane = grid.cropped((0, 0, 0), (1, grid.shape_zyx[1], grid.shape_zyx[2]))  # the outline is the same in all of them
    retracted = 6.0 - distance_mm(plane, lambda fine: -_neck(fine), reach_mm=70.0)
    cord = np.hypot(x, y - 22.0) - 6.0
    behind = np.maximum(np.abs(x) - 21.0, 22.0 - y)
    ptv = without(np.maximum(retracted, y - 42.0), cord - 15.0, behind, *(_beside_parotid(grid, s) for s in (1.0, -1.0)))
    rois = (
        roi("PTV", "PTV", np.maximum(ptv, slab(z, -45.0, 45.0))),
        roi("Cord", "ORGAN", np.maximum(cord, slab(z, -78.0, 78.0))),
        roi("Parotid L", "ORGAN", _parotid(grid, 1.0)),
        roi("Parotid R", "ORGAN", _parotid(grid, -1.0)),
    )
    body = np.maximum(_neck(grid), slab(z, -80.0, 80.0))
    return in_water("tg119_head_neck", "TG-119 mock head and neck in water", grid, body, rois)


def _neck(grid: Grid) -> Field:
    z, y, x = axes(grid)
    return (np.hypot(x / 60.0, y / 70.0) - 1.0) * 60.0 + 0.0 * z


def _parotid(grid: Grid, side: float) -> Field:
    return ellipsoid(grid, (43.0 * side, 8.0, 30.0), (11.0, 17.0, 24.0))


def _beside_parotid(grid: Grid, side: float) -> Field:
    """The parotid grown by 4 mm, and everything lateral of it."""
    z, y, x = axes(grid)
    medial_mm = np.maximum(43.0 - side * x, 0.0)
    return (np.sqrt((medial_mm / 15.0) ** 2 + ((y - 8.0) / 21.0) ** 2 + ((z - 30.0) / 28.0) ** 2) - 1.0) * 15.0


def distance_mm(grid: Grid, draw: Draw, *, reach_mm: float) -> Field:
    """Distance from each voxel centre to the shape that `draw` draws on any grid, (z, y, x) mm; 0 inside.

    By the Euclidean distance transform on voxels a third as wide, to half a millimetre. Beyond `reach_mm` it only says so.
    """
    near = np.argwhere(draw(grid) < 0)
    reach = np.ceil(reach_mm / np.array(grid.spacing_zyx_mm)).astype(int)
    low, high = np.maximum(near.min(axis=0) - reach, 0), np.minimum(near.max(axis=0) + 1 + reach, grid.shape_zyx)
    box = grid.cropped((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    spacing = np.array(box.spacing_zyx_mm) / _FINE
    origin = np.array(box.origin_xyz_mm) - spacing[::-1] * (_FINE // 2)
    shape = [int(n) * _FINE for n in box.shape_zyx]
    fine = Grid((shape[0], shape[1], shape[2]), tuple(spacing.tolist()), tuple(origin.tolist()))
    # The nearest centre inside lies a quarter of a fine voxel below the surface: the mean error around a ball vanishes.
    beyond = distance_transform_edt(draw(fine) >= 0, sampling=spacing) - spacing.mean() / 4
    result = np.full(grid.shape_zyx, 2.0 * reach_mm)
    middle = slice(_FINE // 2, None, _FINE)
    result[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = np.maximum(beyond[middle, middle, middle], 0.0)
    return result
