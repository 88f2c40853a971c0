"""Masks of the working grid as they are drawn on the CT: smooth, of the volume they had, in every slice that they had.

The External is drawn by the CT itself, which knows the skin to a voxel, wherever it agrees with the network on where the
skin is; the network says what is patient and what is couch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import CtVolume, Float3
from segmentation.models.body_threshold import PLUGIN as BODY_THRESHOLD
from segmentation.preprocess import Box, Working, from_working_grid, source_box, source_index
from segmentation.shapes import Mask, box_around, filled_plane, grown, reach, shrunk

SMOOTHING_SHARE = 0.5  # sigma in the plane, of a working voxel: what the steps between such voxels need to vanish
CERTAIN = 0.98  # of being outside: confidence is not drawn there voxel by voxel
_EDGE = np.float32(0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A structure on the CT's grid (z, y, x). `confidence` uint8, percent, that a voxel is inside or outside as it is drawn."""

    mask: NDArray[np.bool_]
    confidence: NDArray[np.uint8]


def drawn_organs(
    probability: NDArray[np.float32], masks: NDArray[np.bool_], names: Sequence[str], working: Working
) -> dict[str, Drawn]:
    """The organs that have a mask, disjoint, on the CT's grid. Arrays are (n, z, y, x) on the working grid."""
    channels = [i for i in range(len(names)) if masks[i].any()]
    parts = [_part(probability[i], masks[i], working) for i in channels]
    for later in range(1, len(parts)):
        for earlier in range(later):
            _part_from(parts[earlier], parts[later])
    drawn = {}
    for i, part in zip(channels, parts, strict=True):
        mask = np.zeros(working.source_shape_zyx, bool)
        mask[part.box] = part.mask
        drawn[names[i]] = Drawn(mask, _confidence(probability[i], mask, working))
    return drawn


def drawn_external(probability: NDArray[np.float32], mask: Mask, hu: NDArray[np.int16], working: Working) -> Drawn:
    """The External on the CT's grid: `mask` of the working grid, with the skin of the CT (z, y, x) HU."""
    coarse = from_working_grid(_shaped(probability, mask), working, hu.shape) > _EDGE
    refined = with_skin(coarse, hu, working.source_spacing_zyx_mm, working.spacing_zyx_mm)
    return Drawn(refined, _confidence(probability, refined, working))


def with_skin(coarse: Mask, hu: NDArray[np.int16], spacing_zyx_mm: Float3, working_spacing_zyx_mm: Float3) -> Mask:
    """A coarse External with the CT's own body (threshold, without couch) in a band of a working voxel to each side.

    Where the two part by more than the band, at a couch that the threshold took for patient or an organ full of gas, the
    coarse one stays as it is all around: doubt compares them and must see what is drawn.
    """
    found = BODY_THRESHOLD.segment(CtVolume.standard(hu, spacing_zyx_mm)).masks.get("External")
    if found is None or not coarse.any():  # no tissue, or none of the network's: nothing to agree on
        return coarse
    box = box_around(coarse | found, (0, 0, 0))
    if box is None:
        return coarse
    near, skin = coarse[box], found[box]
    band = tuple(max(3, size) for size in reach(max(working_spacing_zyx_mm), spacing_zyx_mm))
    outer, inner = grown(near, band), shrunk(near, band)
    beyond = grown((skin & ~outer) | (inner & ~skin), band)
    refined = np.where(beyond, near, inner | (skin & outer))
    out = np.zeros_like(coarse)
    out[box] = np.stack([filled_plane(plane) for plane in refined])
    return out


@dataclass(slots=True, eq=False)
class _Part:
    """An organ in a box of the CT: its mask, and by how much each voxel's field exceeds the level the mask was cut at."""

    box: Box
    excess: NDArray[np.float32]
    mask: NDArray[np.bool_]


def _part(probability: NDArray[np.float32], mask: Mask, working: Working) -> _Part:
    """Interpolated, smoothed in the plane, and cut at the level that keeps the volume."""
    inner = box_around(mask, (2, 3, 3))
    if inner is None:
        raise ValueError("an empty mask has no outline")
    box = source_box(working, inner)
    field = from_working_grid(_shaped(probability, mask), working, working.source_shape_zyx, box)
    plain = field > _EDGE
    pairs = zip(working.spacing_zyx_mm[1:], working.source_spacing_zyx_mm[1:], strict=True)
    sigma = (0.0, *(SMOOTHING_SHARE * coarse_mm / fine_mm for coarse_mm, fine_mm in pairs))
    smooth = np.asarray(ndimage.gaussian_filter(field, sigma, mode="nearest", truncate=3.0), np.float32)
    count = max(1, int(plain.sum()))
    level = np.partition(smooth, smooth.size - count, axis=None)[smooth.size - count]
    return _Part(box, smooth - level, _every_slice(smooth >= level, field, mask, box, working))


def _shaped(probability: NDArray[np.float32], mask: Mask) -> NDArray[np.float32]:
    """Probability that a threshold of one half turns into the mask: without what was taken away, with what was put in."""
    inside = np.maximum(probability, np.float32(0.6))
    beside = np.where(grown(mask, (3, 3, 3)), np.minimum(probability, _EDGE), np.float32(0))
    return np.where(mask, inside, beside)


def _every_slice(drawn: Mask, field: NDArray[np.float32], mask: Mask, box: Box, working: Working) -> Mask:
    """The mask drawn, and where a slice of the CT lost the organ that it has, the voxels that are most of it.

    A slice has the organ when it lies between the first and last slice of the organ on the working grid.
    """
    has = np.flatnonzero(mask.any(axis=(1, 2)))
    first, last = (source_index(working, (int(z), 0, 0))[0] - box[0].start for z in (has[0], has[-1]))
    for z in range(first, last + 1):
        if not drawn[z].any():
            drawn[z] = field[z] >= max(0.9 * float(field[z].max()), 1e-6)
    return drawn


def _part_from(one: _Part, other: _Part) -> None:
    """Voxels of both go to that which has more of them; a slice that one would lose by it stays that one's."""
    shared = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one.box, other.box, strict=True)]
    if any(low >= high for low, high in shared):
        return
    views = []
    for part in (one, other):
        inner = tuple(slice(low - b.start, high - b.start) for (low, high), b in zip(shared, part.box, strict=True))
        views.append((part.mask[inner], part.excess[inner]))
    (mask, excess), (mask_other, excess_other) = views
    both = mask & mask_other
    first = excess >= excess_other
    z0 = shared[0][0]
    for z in np.flatnonzero(both.any(axis=(1, 2))):
        for part, wins in ((one, True), (other, False)):
            plane = part.mask[z + z0 - part.box[0].start]
            if plane.sum() == int((both[z] & (first[z] != wins)).sum()):
                first[z] = wins
    mask &= ~(both & ~first)
    mask_other &= ~(both & first)


def _confidence(probability: NDArray[np.float32], mask: Mask, working: Working) -> NDArray[np.uint8]:
    """How sure of what each voxel got, percent. Full where the network is all but certain that there is nothing."""
    out = np.full(mask.shape, 100, np.uint8)
    likely = box_around(probability > 1 - CERTAIN, (1, 1, 1))
    if likely is not None:
        box = source_box(working, likely)
        inside = from_working_grid(probability, working, mask.shape, box)
        sure = np.where(mask[box], inside, 1 - inside)
        out[box] = np.rint(100 * np.clip(sure, 0, 1)).astype(np.uint8)
    return out
