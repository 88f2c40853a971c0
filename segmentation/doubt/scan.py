"""What a CT looks like as a whole, and whether it is one that the model was made for. Nothing here asks the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import Float3
from segmentation.doubt.body import Body

BONE_HU, AIR_HU, METAL_HU = 250.0, -400.0, 2500.0
SOFT_HU, FAT_HU = (-250.0, 250.0), (-150.0, -40.0)
LUNG_SHARE = 0.2


def scan_measures(hu: NDArray[np.float32], body: Body, spacing_zyx_mm: Float3) -> dict[str, float]:
    """Measures of a CT with at least one imaged slice. Those that cannot be had are left out."""
    slices = np.flatnonzero(body.imaged)
    area_cm2 = body.area_mm2[slices] / 100.0
    inside = hu[body.mask]
    soft = inside[(inside > SOFT_HU[0]) & (inside < SOFT_HU[1])]
    out = {
        "length_mm": float((slices[-1] - slices[0] + 1) * spacing_zyx_mm[0]),
        "area_narrow_cm2": float(np.percentile(area_cm2, 10)),
        "area_cm2": float(np.median(area_cm2)),
        "bone_share": float(np.mean(inside > BONE_HU)),
        "air_share": float(np.mean(inside < AIR_HU)),
        "fat_share": float(np.mean((inside > FAT_HU[0]) & (inside < FAT_HU[1]))),
        "metal_cc": float(np.sum(inside > METAL_HU) * np.prod(spacing_zyx_mm) / 1000.0),
    }
    if soft.size:
        out["soft_median_hu"], out["soft_spread_hu"] = float(np.median(soft)), float(soft.std())
    return out | _along(hu, body, slices)


def _along(hu: NDArray[np.float32], body: Body, slices: NDArray[np.int64]) -> dict[str, float]:
    """Profiles along the patient: lung, where the gas lies from front to back, and bone above against below."""
    voxels = np.maximum(body.mask.sum(axis=(1, 2))[slices], 1)
    air = (body.mask & (hu < AIR_HU))[slices]
    bone_share = (body.mask & (hu > BONE_HU)).sum(axis=(1, 2))[slices] / voxels
    air_share = air.sum(axis=(1, 2)) / voxels
    out = {"lung_slices_share": float(np.mean(air_share > LUNG_SHARE))}
    third = max(1, len(slices) // 3)
    out["bone_above_below"] = float(bone_share[-third:].mean() - bone_share[:third].mean())
    # A pharynx or a sinus fills less of its slice than this.
    lung = air_share > LUNG_SHARE
    if lung.sum() >= 3:
        out["lung_height_share"] = float(np.mean(np.linspace(0.0, 1.0, len(slices))[lung]))
    gas = (air_share > 0.004) & (air_share < 0.1)
    if gas.sum() >= 5:
        y = (air.sum(axis=2) @ np.arange(air.shape[1]))[gas] / air.sum(axis=(1, 2))[gas]
        depth = np.maximum((body.back - body.front)[slices][gas], 1)
        out["gas_depth_share"] = float(np.median((y - body.front[slices][gas]) / depth))
    return out
