"""The patient's outline by threshold: a landmark that no network has a say in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import Float3

SKIN_HU = -350.0
# A couch plate and a mask's sheet are thinner than this, a nose and an ear are not missed by anyone.
THIN_MM = 12.0
IMAGED_MM2 = 1500.0


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """What of the CT is patient. A slice is imaged when it shows at least `IMAGED_MM2` of patient.

    Edges are voxel indices by slice: `right` and `left` along x, `front` and `back` along y, the first of each the lower;
    meaningless in slices that are not imaged.
    """

    mask: NDArray[np.bool_]  # (z, y, x), cavities filled
    area_mm2: NDArray[np.float64]  # (z,)
    right: NDArray[np.int64]
    left: NDArray[np.int64]
    front: NDArray[np.int64]
    back: NDArray[np.int64]
    imaged: NDArray[np.bool_]  # (z,)

    @property
    def ends(self) -> tuple[int, int] | None:
        """First and last imaged slice; None when nothing is."""
        found = np.flatnonzero(self.imaged)
        return (int(found[0]), int(found[-1])) if found.size else None

    def middle_x(self) -> NDArray[np.float64]:
        """Index of the midline by slice (z,): halfway between the sides, smoothed over 15 slices."""
        middle = (self.left + self.right) / 2.0
        found = np.flatnonzero(self.imaged)
        if not found.size:
            return middle
        whole = np.interp(np.arange(middle.size), found, middle[found])
        return np.asarray(ndimage.median_filter(whole, size=15, mode="nearest"), np.float64)


def body_of(hu: NDArray[np.float32], spacing_zyx_mm: Float3) -> Body:
    """The largest piece of the CT denser than `SKIN_HU`, without what is thinner than `THIN_MM`, filled slice by slice."""
    dense = hu > SKIN_HU
    size = [1, *(max(1, round(THIN_MM / step_mm)) for step_mm in spacing_zyx_mm[1:])]
    mask = _largest(ndimage.binary_opening(np.pad(dense, 1, mode="edge"), np.ones(size, bool))[1:-1, 1:-1, 1:-1])
    for plane in mask:
        plane[...] = ndimage.binary_fill_holes(plane)
    area_mm2 = mask.sum(axis=(1, 2)) * spacing_zyx_mm[1] * spacing_zyx_mm[2]
    right, left = _edges(np.asarray(mask.any(axis=1)))
    front, back = _edges(np.asarray(mask.any(axis=2)))
    return Body(mask, area_mm2, right, left, front, back, area_mm2 >= IMAGED_MM2)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(np.argmax(sizes)))


def _edges(profile: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low = np.argmax(profile, axis=1)
    return low, profile.shape[1] - 1 - np.argmax(profile[:, ::-1], axis=1)
