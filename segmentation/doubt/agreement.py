"""How much the network agrees with itself about a structure: the ground of its confidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.doubt.measures import box_of
from segmentation.evidence import Evidence
from segmentation.shapes import dice

INSIDE = 0.5
DOUBTFUL = (0.2, 0.8)
LOOSE, STRICT = 0.3, 0.7
PIECE_SHARE = 0.02

Mask = NDArray[np.bool_]


def agreement_of(evidence: Evidence, name: str) -> dict[str, float]:
    """Measures of one structure, all from 0 to 1 but `shell_ratio` and `parts`. Empty when nobody sees any of it.

    `expected_dice`: 2 sum(p in the mask) / (voxels + sum(p)), the Dice if the probabilities were true;
    `members_dice`: mean over the pairs of members; `levels_dice`: of p >= 0.3 with p >= 0.7; `p_inside`: mean p in the mask;
    `shell_ratio`: voxels of 0.2 < p < 0.8 over those of the mask's surface; `removed_share`: what the clean-up took away;
    `parts`: pieces before the clean-up of at least 2 % of the largest.
    """
    n = evidence.names.index(name)
    box = box_of(evidence.masks[n] | (evidence.probability[n] > DOUBTFUL[0]) | evidence.members[:, n].any(axis=0))
    if box is None:
        return {}
    mask, p = evidence.masks[n][box], evidence.probability[n][box]
    raw = p >= INSIDE
    doubtful = (p > DOUBTFUL[0]) & (p < DOUBTFUL[1])
    return {
        "expected_dice": _ratio(2.0 * float(p[mask].sum()), float(mask.sum() + p.sum())),
        "members_dice": _members_dice(evidence.members[:, n, box[0], box[1], box[2]]),
        "levels_dice": dice(p >= LOOSE, p >= STRICT, of_nothing=0.0),
        "p_inside": float(p[mask].mean()) if mask.any() else 0.0,
        "shell_ratio": _ratio(float(doubtful.sum()), float(_surface(mask).sum())),
        "removed_share": _ratio(float((raw & ~mask).sum()), float(raw.sum())),
        "parts": float(_parts(raw)),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _members_dice(members: NDArray[np.bool_]) -> float:
    pairs = [(i, j) for i in range(len(members)) for j in range(i)]
    return float(np.mean([dice(members[i], members[j], of_nothing=0.0) for i, j in pairs])) if pairs else 1.0


def _surface(mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


def _parts(raw: Mask) -> int:
    labels, count = ndimage.label(raw)
    if count <= 1:
        return int(count)
    sizes = np.bincount(labels.ravel())[1:]
    return int((sizes >= PIECE_SHARE * sizes.max()).sum())
