"""What masks (z, y, x) have done to them: grown, shrunk, filled, bridged. Pure NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import Float3

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


def dice(one: Mask, other: Mask, *, of_nothing: float = 1.0) -> float:
    """Overlap of two masks, 2 |one and other| / (|one| + |other|); `of_nothing` when both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else of_nothing


def grown(mask: Mask, sizes: Sequence[int]) -> Mask:
    """Dilation by a box of `sizes` (z, y, x). Separable running maxima cost the same for any size.

    An even dilation mirrors an even erosion, so that the two together move nothing.
    """
    out = mask.view(np.uint8)
    for axis, size in enumerate(sizes):
        if size > 1:
            origin = -1 if size % 2 == 0 else 0
            out = ndimage.maximum_filter1d(out, size, axis=axis, mode="constant", cval=0, origin=origin)
    return out.view(bool)


def shrunk(mask: Mask, sizes: Sequence[int]) -> Mask:
    """Erosion by a box of `sizes`. The patient goes on beyond the image, so its border does not erode."""
    out = mask.view(np.uint8)
    for axis, size in enumerate(sizes):
        if size > 1:
            out = ndimage.minimum_filter1d(out, size, axis=axis, mode="constant", cval=1)
    return out.view(bool)


def reach(reach_mm: float, spacing_zyx_mm: Float3) -> tuple[int, int, int]:
    """Odd box sizes (z, y, x) that reach so far to each side."""
    z, y, x = (2 * round(reach_mm / spacing) + 1 for spacing in spacing_zyx_mm)
    return z, y, x


def filled_plane(plane: Mask) -> Mask:
    """A plane (y, x) with every hole that does not reach the border. Faster than repeated dilation on large planes."""
    padded = np.pad(~plane, 1, constant_values=True)
    labels, _ = ndimage.label(padded)
    return np.asarray((labels != labels[0, 0])[1:-1, 1:-1])


def box_around(mask: Mask, margins: Sequence[int]) -> Box | None:
    """Slices (z, y, x) of a mask's bounding box and `margins` voxels around it within the array; None of an empty mask."""
    box = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(found):
            return None
        box.append(slice(max(0, int(found[0]) - margins[axis]), min(mask.shape[axis], int(found[-1]) + margins[axis] + 1)))
    return box[0], box[1], box[2]


def empty_between(mask: Mask) -> list[int]:
    """Slices (indices in z) without a voxel of the mask that lie between two that have one."""
    has = np.asarray(mask.any(axis=(1, 2)))
    slices = np.flatnonzero(has)
    return [] if not len(slices) else [int(z) for z in range(slices[0], slices[-1]) if not has[z]]


def bridged(mask: Mask) -> Mask:
    """The mask with every empty slice between two others filled by what lies between their shapes.

    A slice gets the outlines of its neighbours, each moved along the line between their centres, and mixed by their
    distance (shape-based interpolation, Raya and Udupa, IEEE Trans Med Imaging 9:32, 1990). Never empty.
    """
    out = mask.copy()
    has = np.flatnonzero(mask.any(axis=(1, 2)))
    for low, high in pairwise(has):
        for z in range(low + 1, high):
            out[z] = _between(mask[low], mask[high], (z - low) / (high - low))
    return out


def _between(first: Mask, second: Mask, share: float) -> Mask:
    """A shape on the way from one plane's to another's; `share` 0 is the first, 1 the second."""
    centres = [np.argwhere(plane).mean(axis=0) for plane in (first, second)]
    at = (1 - share) * centres[0] + share * centres[1]
    mixed = sum(
        weight * ndimage.shift(_signed_distance(plane), at - centre, order=1, mode="nearest")
        for plane, centre, weight in zip((first, second), centres, (1 - share, share), strict=True)
    )
    inside = np.asarray(mixed > 0)
    if not inside.any():
        inside[tuple(np.rint(at).astype(int))] = True
    return inside


def _signed_distance(plane: Mask) -> NDArray[np.float64]:
    """Voxels to the outline of a plane's mask, positive inside, zero on the outline between voxels."""
    padded = np.pad(plane, 1)
    distance = ndimage.distance_transform_edt(padded) - ndimage.distance_transform_edt(~padded)
    return np.asarray((distance - np.sign(distance) * 0.5)[1:-1, 1:-1], np.float64)
