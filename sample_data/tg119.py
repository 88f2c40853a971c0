"""TG-119 C-shape and multi-target in a water phantom (Ezzell et al., Med Phys 36:5359, 2009).

The phantom is water, 300 x 200 x 170 mm, without noise, so that physics can be judged on it. The report's dimensions are
kept; the angle of the C and the phantom's length are choices of this project.
"""

from __future__ import annotations

import numpy as np

from rtplan.domain.grid import Grid
from sample_data.phantom import AIR_HU, Field, Phantom, Roi, axes, centred_grid, roi, slab, without

WATER_HU = 0
HALF_WIDTH_MM, HALF_HEIGHT_MM = 150.0, 100.0
WATER_SLAB_ZYX = centred_grid((68, 108, 160), (2.5, 2.0, 2.0))


def c_shape() -> Phantom:
    """Core of 10 mm radius, 100 mm long; PTV from 15 to 37 mm radius, 80 mm long, open over 90 degrees posteriorly."""
    grid = WATER_SLAB_ZYX
    z, y, x = axes(grid)
    radius = np.hypot(x, y)
    opening = (np.abs(x) - y) * np.sqrt(0.5)  # negative within 45 degrees of posterior
    ring = np.maximum(15.0 - radius, radius - 37.0)
    ptv = np.maximum(without(ring, opening), slab(z, -40.0, 40.0))
    core = np.maximum(radius - 10.0, slab(z, -50.0, 50.0))
    rois = (roi("PTV", "PTV", ptv), roi("Core", "ORGAN", core))
    return in_water("tg119_c_shape", "TG-119 C-shape in water", grid, slab_body(grid), rois)


def multi_target() -> Phantom:
    """Multi-target: three stacked cylinders of 40 mm diameter and 40 mm length along the patient."""
    grid = centred_grid((68, 88, 128), (2.5, 2.5, 2.5))
    z, y, x = axes(grid)
    cylinder = np.hypot(x, y) - 20.0
    ends = {"Central Target": (-20.0, 20.0), "Superior Target": (20.0, 60.0), "Inferior Target": (-60.0, -20.0)}
    rois = tuple(roi(name, "PTV", np.maximum(cylinder, slab(z, low, high))) for name, (low, high) in ends.items())
    return in_water("tg119_multi_target", "TG-119 multi-target in water", grid, slab_body(grid), rois)


def slab_body(grid: Grid) -> Field:
    """The phantom's outline: as long as the grid."""
    z, y, x = axes(grid)
    body: Field = np.maximum(np.abs(x) - HALF_WIDTH_MM, np.abs(y) - HALF_HEIGHT_MM) + 0.0 * z
    return body


def in_water(name: str, title: str, grid: Grid, body: Field, rois: tuple[Roi, ...]) -> Phantom:
    """Structures in a body of water; its protocol carries the phantom's name."""
    hu = np.where(body < 0, WATER_HU, AIR_HU).astype(np.int16)
    return Phantom(name, title, name, "", grid, hu, (roi("BODY", "EXTERNAL", body), *rois))
