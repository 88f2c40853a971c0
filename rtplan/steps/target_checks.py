"""Whether targets, organs and body are what they claim to be: where they lie, how large they are, on which side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from rtplan.domain.contour_faults import TooIntricate, crossings, gaps
from rtplan.domain.grid import Grid
from rtplan.domain.structures import RoiContours, Structure
from rtplan.domain.verdict import Finding, Severity
from rtplan.errors import CaseRejected
from rtplan.steps.margins import box_around, expanded

ORGAN_OUTSIDE_SHARE, ORGAN_LOST_SHARE = 0.1, 0.5  # of an organ's volume outside the body: flagged, held
MIN_INSIDE = 0.99  # of a target's volume, inside the External but for one voxel at its surface
MAX_EXTENT_MM = 400.0  # the largest field
MIN_VOLUME_CC, MAX_VOLUME_CC = 0.1, 5000.0
STRAY_CC = 0.05
MAX_PARTS = 2
MIN_EXTERNAL_OVERLAP = 0.8  # of the body found on the CT, inside the External drawn
GOOD_EXTERNAL_OVERLAP = 0.95
MAX_EXTERNAL_EXCESS = 0.5  # of the body's volume, drawn where no body was found


def check_external(external: NDArray[np.bool_], body: NDArray[np.bool_]) -> list[Finding]:
    """Compare the External drawn with the body found on the CT, both (z, y, x). Raises SS_EXTERNAL_MISMATCH."""
    found = int(body.sum())
    if found == 0:
        return [Finding("EXTERNAL_UNCHECKED", "hold", "no body was found on the CT to compare the External with")]
    overlap = int((external & body).sum()) / found
    excess = int((external & ~body).sum()) / found
    text = f"the External drawn holds {100 * overlap:.0f} % of the body found on the CT and {100 * excess:.0f} % besides"
    if overlap < MIN_EXTERNAL_OVERLAP or excess > MAX_EXTERNAL_EXCESS:
        raise CaseRejected(
            "SS_EXTERNAL_MISMATCH",
            text,
            f"at least {100 * MIN_EXTERNAL_OVERLAP:.0f} %, and at most {100 * MAX_EXTERNAL_EXCESS:.0f} % besides",
            "draw the outline of the whole patient on every slice, or delete it",
        )
    if overlap < GOOD_EXTERNAL_OVERLAP or excess > 1 - GOOD_EXTERNAL_OVERLAP:
        return [Finding("EXTERNAL_DIFFERS", "flag", text)]
    return []


def check_target(
    roi: RoiContours, mask: NDArray[np.bool_], external: NDArray[np.bool_], grid: Grid
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """A target's mask cut at the External, and findings about its size and parts.

    Raises CaseRejected: SS_TARGET_EMPTY, SS_TARGET_OUTSIDE_BODY, TARGET_TOO_LARGE.
    """
    _every_slice_filled(roi, mask, grid)
    inside, findings = _inside(roi.name, mask, external, grid)
    box = box_around(mask, grid, 0.0)
    extent_mm = [(b.stop - b.start) * step for b, step in zip(box, grid.spacing_zyx_mm, strict=True)]
    if max(extent_mm) > MAX_EXTENT_MM:
        axis = "along the body" if extent_mm[0] == max(extent_mm) else "across the body"
        raise CaseRejected(
            "TARGET_TOO_LARGE",
            f"{roi.name} is {max(extent_mm):.0f} mm long {axis}",
            f"at most {MAX_EXTENT_MM:.0f} mm, the largest field",
            "plan it in parts elsewhere",
        )
    return inside, [*findings, *_plausible(roi.name, inside[box], grid)]


def _every_slice_filled(roi: RoiContours, mask: NDArray[np.bool_], grid: Grid) -> None:
    """Contours of a slice may cancel by the even-odd rule; a target must not lose a slice that way."""
    index = {round((c.z_mm - grid.origin_xyz_mm[2]) / grid.spacing_zyx_mm[0]) for c in roi.contours}
    lost = [k for k in sorted(index) if not mask[k].any()]
    if lost:
        raise CaseRejected(
            "SS_TARGET_EMPTY",
            f"the contours of {roi.name} at z = {grid.z_mm()[lost[0]]:g} mm enclose nothing",
            "a volume on every contoured slice",
            "correct the contours",
        )


def _inside(
    name: str, mask: NDArray[np.bool_], external: NDArray[np.bool_], grid: Grid
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """The mask inside the External. One voxel beyond is the grain of the grid; more than that is tolerated for 1 %."""
    spill = mask & ~external
    n_spill, n_mask = int(spill.sum()), int(mask.sum())
    if n_spill == 0:
        return mask, []
    z = grid.z_mm()[int(np.argmax(spill.sum(axis=(1, 2))))]
    share = _share_outside(mask, external, grid)
    if share > 1 - MIN_INSIDE or n_spill == n_mask:
        raise CaseRejected(
            "SS_TARGET_OUTSIDE_BODY",
            f"{100 * n_spill / n_mask:.1f} % of {name} lies outside the body, most at z = {z:g} mm",
            f"at least {100 * MIN_INSIDE:.0f} % inside",
            "check the target, the External and that both belong to this CT",
        )
    text = f"{n_spill * grid.voxel_cc:.2f} cc ({100 * n_spill / n_mask:.1f} %) of {name} outside the body cut off"
    return mask & external, [Finding("TARGET_CUT_AT_BODY", "flag", text)]


def check_organ(structure: Structure, external: NDArray[np.bool_], grid: Grid) -> list[Finding]:
    """ORGAN_OUTSIDE_BODY for an organ of which more than a tenth lies outside the body, held from a half on: no dose is
    calculated there, and its goals are judged as if none arrived."""
    share = _share_outside(structure.mask, external, grid)
    if share <= ORGAN_OUTSIDE_SHARE:
        return []
    severity: Severity = "hold" if share > ORGAN_LOST_SHARE else "flag"
    text = f"{100 * share:.0f} % of {structure.name} lies outside the body, where no dose is calculated"
    z, y, x = np.argwhere(structure.mask & ~external)[0]
    return [Finding("ORGAN_OUTSIDE_BODY", severity, text, structure.name, (int(z), int(y), int(x)))]


def _share_outside(mask: NDArray[np.bool_], external: NDArray[np.bool_], grid: Grid) -> float:
    """Share of a volume that lies more than a voxel outside the body, 0 to 1."""
    if not (mask & ~external).any():
        return 0.0
    box = box_around(mask, grid, 2 * max(grid.spacing_zyx_mm))
    near = expanded(external[box], grid, max(grid.spacing_zyx_mm[1:])) if external[box].any() else external[box]
    return int((mask[box] & ~near).sum()) / int(mask.sum())


def _plausible(name: str, mask: NDArray[np.bool_], grid: Grid) -> list[Finding]:
    """Volumes and numbers of parts that a physician rarely means."""
    findings = []
    volume_cc = int(mask.sum()) * grid.voxel_cc
    if not MIN_VOLUME_CC <= volume_cc <= MAX_VOLUME_CC:
        findings.append(Finding("TARGET_IMPLAUSIBLE", "hold", f"{name} has a volume of {volume_cc:.2f} cc"))
    parts, _ = label(mask, structure=np.ones((3, 3, 3)))
    sizes_cc = np.bincount(parts.ravel())[1:] * grid.voxel_cc
    stray = int((sizes_cc < STRAY_CC).sum()) if len(sizes_cc) > 1 else 0
    if stray:
        findings.append(Finding("TARGET_STRAY_VOXELS", "hold", f"{name} has {stray} separate part(s) below {STRAY_CC} cc"))
    if len(sizes_cc) - stray > MAX_PARTS:
        findings.append(Finding("TARGET_PARTS", "hold", f"{name} consists of {len(sizes_cc) - stray} separate parts"))
    return findings


def required_outlines(roi: RoiContours, grid: Grid) -> None:
    """Refuse crossings and missing slices in a target that neither its type nor its name gave away to the reader."""
    try:
        crossed = [c for c in crossings(roi.contours) if c.loop_mm2 >= 1.0]
    except TooIntricate as error:
        raise CaseRejected(
            "SS_TOO_LARGE", f"{roi.name} has {error}", "contours of a plausible shape", "redraw it"
        ) from error
    if crossed:
        z = roi.contours[crossed[0].first].z_mm
        raise CaseRejected(
            "SS_SELF_CROSSING", f"{roi.name} has contours that cross at z = {z:g} mm", "outlines that do not cross"
        )
    for gap in gaps(roi.contours, grid):
        z = float(grid.z_mm()[gap.below + 1])
        raise CaseRejected("SS_GAP", f"{roi.name} has no contour at z = {z:g} mm", "a contour on every slice", "draw it")


def check_sides(structures: Sequence[Structure], grid: Grid) -> list[Finding]:
    """Organs called left must lie further left (+x) than their partners called right."""
    by_name = {s.name: s for s in structures if s.kind == "ORGAN" and s.mask.any()}
    findings = []
    for name, left in by_name.items():
        right = by_name.get(name.removesuffix("_L") + "_R") if name.endswith("_L") else None
        if right is not None and _middle_x_mm(left, grid) <= _middle_x_mm(right, grid):
            text = f"{left.source_name or name} lies to the right of {right.source_name or right.name}"
            findings.append(Finding("LATERALITY_CONFLICT", "hold", text))
    return findings


def _middle_x_mm(structure: Structure, grid: Grid) -> float:
    columns = structure.mask.sum(axis=(0, 1))
    return float((columns * grid.x_mm()).sum() / columns.sum())
