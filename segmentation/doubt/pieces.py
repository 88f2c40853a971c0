"""Contours that are torn, holed along the patient, or lie in one another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import Doubt
from segmentation.doubt.measures import Shape, box_of
from segmentation.evidence import Evidence

# Smaller bits are the clean-up's business, smaller overlaps the border of two neighbours.
PIECE_SHARE, OVERLAP_SHARE = 0.1, 0.1


def piece_doubts(evidence: Evidence, shapes: Mapping[str, Shape]) -> tuple[Doubt, ...]:
    """SLICES_MISSING inside an organ, ORGAN_IN_PIECES for what lies apart in one slice stack."""
    doubts = []
    for name, shape in shapes.items():
        mask = evidence.masks[evidence.names.index(name)]
        first, last = shape.slices
        empty = np.flatnonzero(~mask[first : last + 1].any(axis=(1, 2))) + first
        if empty.size:
            message = f"{name} is missing in {empty.size} slices between its ends"
            at = (int(empty[0]), shape.centre[1], shape.centre[2])
            doubts.append(Doubt("SLICES_MISSING", name, "flag", message, at))
        doubts += _in_pieces(name, mask)
    return tuple(doubts)


def _in_pieces(name: str, mask: NDArray[np.bool_]) -> list[Doubt]:
    box = box_of(mask)
    if box is None:
        return []
    labels, count = ndimage.label(mask[box], np.ones((3, 3, 3)))
    if count <= 1:
        return []
    sizes = np.bincount(labels.ravel())[1:]
    large = np.flatnonzero(sizes >= PIECE_SHARE * sizes.max()) + 1
    if large.size <= 1:
        return []
    second = int(np.argsort(sizes)[-2]) + 1
    z, y, x = (int(i) + side.start for i, side in zip(np.argwhere(labels == second)[0], box, strict=True))
    share = 100.0 * sizes[second - 1] / sizes.sum()
    message = f"{name} is in {large.size} pieces; the second has {share:.0f} % of it"
    return [Doubt("ORGAN_IN_PIECES", name, "flag", message, (z, y, x))]


def overlap_doubts(evidence: Evidence, shapes: Mapping[str, Shape]) -> tuple[Doubt, ...]:
    """ORGANS_OVERLAP, on the smaller of the two, when more than `OVERLAP_SHARE` of it lies in another organ."""
    organs = [name for name in shapes if name != "External"]
    doubts = []
    for i, name in enumerate(organs):
        for other in organs[i + 1 :]:
            small, large = sorted((name, other), key=lambda n: shapes[n].voxels)
            both = evidence.masks[evidence.names.index(small)] & evidence.masks[evidence.names.index(large)]
            count = int(both.sum())
            if count > OVERLAP_SHARE * shapes[small].voxels:
                z, y, x = (int(i) for i in np.argwhere(both)[count // 2])
                message = f"{100 * count / shapes[small].voxels:.0f} % of {small} lies in {large}"
                doubts.append(Doubt("ORGANS_OVERLAP", small, "flag", message, (z, y, x)))
    return tuple(doubts)
