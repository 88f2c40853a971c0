"""From what a network finds likely to what can be an organ, on the working grid.

An organ lies inside the body, on its own side, in one piece or in pieces that belong together, and in every slice between
its first and its last. What was taken away or put in is told, so that doubt can name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import Float3
from segmentation.shapes import Mask, bridged, empty_between, filled_plane

BODY = "External"
LONG = frozenset({"SpinalCord", "Esophagus"})  # a weak probability interrupts them without their ending there
PART_MIN_SHARE = 0.1  # of the largest part: less is a speck
PART_MAX_GAP_MM = 12.0
LONG_MIN_SHARE = 0.03
LONG_MAX_GAP_MM = 30.0
LONG_MAX_DRIFT = 1.0  # mm aside per mm along: a cord does not jump
LONG_FREE_DRIFT_MM = 8.0
WRONG_SIDE_MM = 3.0  # beyond the midline, before a part counts as the other side's
_NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, slots=True)
class Change:
    """What the clean-up did to an organ. `at` is its voxel (z, y, x) nearest to its middle."""

    kind: str  # "wrong_side", "part_removed" or "bridged"
    structure: str
    cc: float
    slices: int
    at: tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned:
    """`masks` (n, z, y, x) in the order of the names, disjoint but for the External; and what was changed."""

    masks: NDArray[np.bool_]
    changes: tuple[Change, ...]


def cleaned(probability: NDArray[np.float32], names: Sequence[str], spacing_zyx_mm: Float3) -> Cleaned:
    """Masks of probabilities (n, z, y, x). An organ of which nothing remains has an empty mask."""
    masks = np.zeros(probability.shape, bool)
    organs = [i for i, name in enumerate(names) if name != BODY]
    body = np.ones(probability.shape[1:], bool)
    if BODY in names:
        masks[names.index(BODY)] = body = body_of(probability[names.index(BODY)])
    middle = _midline(body)
    winner = np.argmax(probability[organs], axis=0) if organs else np.zeros(body.shape, np.intp)
    taken = np.zeros(body.shape, bool)
    changes: list[Change] = []
    for place, i in enumerate(organs):
        own = (probability[i] > 0.5) & (winner == place) & body
        masks[i], made = _organ(own, names[i], middle, spacing_zyx_mm)
        changes += made
        taken |= masks[i]
    for i in organs:
        masks[i], made = _completed(masks[i], names[i], taken & ~masks[i], body, spacing_zyx_mm)
        changes += made
        taken |= masks[i]
    return Cleaned(masks, tuple(changes))


def body_of(probability: NDArray[np.float32]) -> Mask:
    """The largest connected part, filled slice by slice. Empty when nothing is likely."""
    labels, count = ndimage.label(probability > 0.5)
    if not count:
        return np.zeros(probability.shape, bool)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.stack([filled_plane(plane) for plane in largest])


def _midline(body: Mask) -> NDArray[np.float64]:
    """Index in x of the body's middle by slice (z,): halfway between its sides, smoothed over 15 slices."""
    columns = np.asarray(body.any(axis=1))
    has = np.flatnonzero(columns.any(axis=1))
    if not len(has):
        return np.full(len(body), (body.shape[2] - 1) / 2)
    first, last = columns.argmax(axis=1), body.shape[2] - 1 - columns[:, ::-1].argmax(axis=1)
    middle = np.interp(np.arange(len(body)), has, ((first + last) / 2.0)[has])
    return np.asarray(ndimage.median_filter(middle, size=15, mode="nearest"), np.float64)


def _organ(own: Mask, name: str, middle: NDArray[np.float64], spacing_zyx_mm: Float3) -> tuple[Mask, list[Change]]:
    """The parts of an organ that are on its side and belong together."""
    labels, count = ndimage.label(own, _NEIGHBOURS)
    if not count:
        return own, []
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    wrong = _on_wrong_side(labels, sizes, name, middle, spacing_zyx_mm[2])
    kept = np.zeros(count + 1, bool)
    kept[_belonging(labels, np.where(wrong, 0, sizes), name in LONG, spacing_zyx_mm)] = True
    gone = ~kept & (np.arange(count + 1) > 0)
    changes = []
    for kind, which in (("wrong_side", gone & wrong), ("part_removed", gone & ~wrong)):
        if which.any():
            changes.append(_change(kind, name, which[labels], spacing_zyx_mm))
    return kept[labels], changes


def _on_wrong_side(
    labels: NDArray[np.int32], sizes: NDArray[np.int64], name: str, middle: NDArray[np.float64], dx_mm: float
) -> NDArray[np.bool_]:
    """By part, whether it is a paired organ's and lies beyond the midline. x rises to the patient's left."""
    if name[-2:] not in ("_L", "_R"):
        return np.zeros(len(sizes), bool)
    z, y, x = np.nonzero(labels)
    sums = np.bincount(labels[z, y, x], weights=x - middle[z], minlength=len(sizes))
    left_of_middle_mm = sums / np.maximum(sizes, 1) * dx_mm
    return np.asarray(left_of_middle_mm * (1 if name.endswith("_L") else -1) < -WRONG_SIDE_MM)


def _belonging(labels: NDArray[np.int32], sizes: NDArray[np.int64], long: bool, spacing_zyx_mm: Float3) -> list[int]:
    """The largest part and those large enough and near enough to what is kept already, chains included.

    Parts of size 0 do not count; label 0 is what lies around them all.
    """
    largest = 1 + int(np.argmax(sizes[1:]))
    if not sizes[largest]:
        return []
    least = (LONG_MIN_SHARE if long else PART_MIN_SHARE) * sizes[largest]
    rest = [k for k in range(1, len(sizes)) if k != largest and sizes[k] >= max(least, 1)]
    near = _continues if long else _is_near
    kept = [largest]
    while found := [k for k in rest if near(np.isin(labels, kept), labels == k, spacing_zyx_mm)]:
        kept += found
        rest = [k for k in rest if k not in found]
    return kept


def _is_near(kept: Mask, part: Mask, spacing_zyx_mm: Float3) -> bool:
    distance_mm = ndimage.distance_transform_edt(~kept, sampling=spacing_zyx_mm)
    return float(np.asarray(distance_mm)[part].min()) <= PART_MAX_GAP_MM


def _continues(kept: Mask, part: Mask, spacing_zyx_mm: Float3) -> bool:
    """Whether a part lies above or below, not beside, and where a long organ's course leads."""
    dz_mm, *plane_mm = spacing_zyx_mm
    has, new = (np.flatnonzero(mask.any(axis=(1, 2))) for mask in (kept, part))
    missing = new[~np.isin(new, has)]
    if not len(missing):
        return False
    pairs = [(int(np.abs(has - z).min()), int(has[np.abs(has - z).argmin()]), int(z)) for z in missing]
    steps, at, z = min(pairs)
    aside = (np.argwhere(kept[at]).mean(axis=0) - np.argwhere(part[z]).mean(axis=0)) * plane_mm
    gap_mm = (steps - 1) * dz_mm
    drift_mm = float(np.hypot(*aside))
    return gap_mm <= LONG_MAX_GAP_MM and drift_mm <= LONG_FREE_DRIFT_MM + LONG_MAX_DRIFT * steps * dz_mm


def _completed(mask: Mask, name: str, others: Mask, body: Mask, spacing_zyx_mm: Float3) -> tuple[Mask, list[Change]]:
    """Empty slices between others bridged, holes filled. A bridge stays within the body and out of the others if it can."""
    gaps = empty_between(mask)
    out = mask
    if gaps:
        out = bridged(mask)
        for z in gaps:
            free = out[z] & body[z] & ~others[z]
            out[z] = free if free.any() else out[z]
    out = out | (ndimage.binary_fill_holes(out) & ~others)
    if not gaps:
        return out, []
    between = np.zeros_like(out)
    between[gaps] = out[gaps]
    return out, [_change("bridged", name, between, spacing_zyx_mm)]


def _change(kind: str, name: str, part: Mask, spacing_zyx_mm: Float3) -> Change:
    voxels = np.argwhere(part)
    z, y, x = voxels[int(np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1)))]
    cc = len(voxels) * float(np.prod(spacing_zyx_mm)) / 1000.0
    return Change(kind, name, cc, len(np.unique(voxels[:, 0])), (int(z), int(y), int(x)))
