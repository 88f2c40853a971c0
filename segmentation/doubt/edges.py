"""What the edges of the scan cut off, and what leaks out of the patient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import Doubt, Severity
from segmentation.doubt.body import Body
from segmentation.doubt.envelopes import Envelopes
from segmentation.doubt.measures import OPEN_ENDED, Shape
from segmentation.evidence import Evidence

CUT_SIDE_MM, CUT_SIDE_SLICES_MM = 60.0, 15.0  # a flank's flat contact with the edge of the picture
OFTEN_WHOLE_SHARE = 0.8
CUT_SHARE = 0.5  # of the organ's largest section: what ends in the last slice has not tapered
OUTSIDE_SHARE = 0.1
UNCOVERED_SHARE, TOO_LARGE_SHARE, COUCH_CC = 0.1, 0.3, 200.0
NEAR_MM = 8.0  # the outline by threshold and the one drawn differ by skin, hair and masks


def cut_doubts(evidence: Evidence, body: Body, shapes: Mapping[str, Shape], envelopes: Envelopes) -> tuple[Doubt, ...]:
    """ORGAN_CUT_BY_SCAN at the first or last slice or a side of the picture, BODY_CUT_AT_SIDE for the patient."""
    doubts = []
    for name, shape in shapes.items():
        mask = evidence.masks[evidence.names.index(name)]
        if name not in OPEN_ENDED:
            doubts += _cut_at_end(name, mask, shape, _severity(name, envelopes))
        if name != "External" and (mask[:, :, 0].any() or mask[:, :, -1].any()):
            message = f"{name} reaches the side of the picture: what lies beyond is not in its contour"
            doubts.append(Doubt("ORGAN_CUT_BY_SCAN", name, "flag", message, shape.centre))
    return (*doubts, *_flanks_cut(evidence, body))


def _severity(name: str, envelopes: Envelopes) -> Severity:
    """`info` for an organ in which many scans of the training patients end."""
    seen = envelopes.structures.get(name, {})
    whole, all_of_them = seen.get("volume_cc"), seen.get("depth_share")
    often = whole is not None and all_of_them is not None and whole.n < OFTEN_WHOLE_SHARE * all_of_them.n
    return "info" if often else "flag"


def _cut_at_end(name: str, mask: NDArray[np.bool_], shape: Shape, severity: Severity) -> list[Doubt]:
    area = mask.sum(axis=(1, 2))
    for cut, k, end in ((shape.cut_below, shape.slices[0], "lowest"), (shape.cut_above, shape.slices[1], "highest")):
        if cut and area[k] > CUT_SHARE * area.max():
            y, x = (round(float(i.mean())) for i in np.nonzero(mask[k]))
            message = (
                f"{name} reaches the {end} slice of the scan with {100 * area[k] / area.max():.0f} % of its largest "
                "section: a part of it is not in the CT"
            )
            return [Doubt("ORGAN_CUT_BY_SCAN", name, severity, message, (k, y, x))]
    return []


def _flanks_cut(evidence: Evidence, body: Body) -> list[Doubt]:
    dz, dy, _ = evidence.spacing_zyx_mm
    for x, side in ((0, "right"), (-1, "left")):
        contact_mm = body.mask[:, :, x].sum(axis=1) * dy
        slices = np.flatnonzero(contact_mm >= CUT_SIDE_MM)
        if slices.size * dz >= CUT_SIDE_SLICES_MM:
            k = int(slices[slices.size // 2])
            y = round(float(np.flatnonzero(body.mask[k, :, x]).mean()))
            message = (
                f"the patient's {side} side ends at the edge of the picture in {slices.size} slices, "
                f"flat over up to {contact_mm.max():.0f} mm: a part of the body is not in the CT"
            )
            return [Doubt("BODY_CUT_AT_SIDE", None, "flag", message, (k, y, x % body.mask.shape[2]))]
    return []


def leak_doubts(evidence: Evidence, body: Body, shapes: Mapping[str, Shape]) -> tuple[Doubt, ...]:
    """Organs outside the patient; an External that takes in the couch, or leaves out a part of the patient."""
    doubts = []
    near = _grown(body.mask, evidence)
    for name in shapes:
        mask = evidence.masks[evidence.names.index(name)]
        if name == "External":
            doubts += _external(evidence, body, mask, near)
            continue
        outside = mask & ~near
        share = outside.sum() / mask.sum()
        if share > OUTSIDE_SHARE:
            severity: Severity = "hold" if share > 0.5 else "flag"
            message = f"{100 * share:.0f} % of {name} lies outside the patient"
            doubts.append(Doubt("ORGAN_OUTSIDE_BODY", name, severity, message, _some(outside)))
    return tuple(doubts)


def _external(evidence: Evidence, body: Body, mask: NDArray[np.bool_], near: NDArray[np.bool_]) -> list[Doubt]:
    voxel_cc = float(np.prod(evidence.spacing_zyx_mm)) / 1000.0
    doubts = []
    outside = mask & ~near
    leak_cc = float(outside.sum()) * voxel_cc
    behind = _behind_share(outside, body) if leak_cc > COUCH_CC else 0.0
    couch, too_large = behind > 0.5, float(outside.sum()) > TOO_LARGE_SHARE * float(body.mask.sum())
    if couch or too_large:
        code = "LEAK_INTO_COUCH" if couch else "EXTERNAL_TOO_LARGE"
        message = f"External takes in {leak_cc:.0f} cm³ outside the patient, {100 * behind:.0f} % of it behind the back"
        why = ": probably couch or headrest" if couch else ""
        doubts.append(Doubt(code, "External", "flag", message + why, _some(outside)))
    left_out = body.mask & ~mask
    share = float(left_out.sum() / max(1, body.mask.sum()))
    if share > UNCOVERED_SHARE:
        message = f"External leaves out {100 * share:.0f} % of the patient"
        doubts.append(Doubt("EXTERNAL_INCOMPLETE", "External", "hold", message, _some(left_out)))
    return doubts


def _behind_share(outside: NDArray[np.bool_], body: Body) -> float:
    """Of voxels outside the patient, those behind the back of their slice's patient, or of the nearest imaged slice."""
    ends = np.flatnonzero(body.imaged)
    if not ends.size:
        return 0.0
    back = np.interp(np.arange(len(body.back)), ends, body.back[ends])
    z, y, _ = np.nonzero(outside)
    return float(np.mean(y > back[z]))


def _grown(mask: NDArray[np.bool_], evidence: Evidence) -> NDArray[np.bool_]:
    """The mask and what lies within `NEAR_MM` of it in the slice."""
    voxels = max(1, round(NEAR_MM / evidence.spacing_zyx_mm[1]))
    cross = ndimage.generate_binary_structure(2, 1)[None]
    return np.asarray(ndimage.binary_dilation(mask, cross, iterations=voxels))


def _some(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """A voxel of the slice with the most of them."""
    k = int(np.argmax(mask.sum(axis=(1, 2))))
    found = np.argwhere(mask[k])
    y, x = found[len(found) // 2]
    return k, int(y), int(x)
