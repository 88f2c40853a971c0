"""Checks the contours of one region of an RTSTRUCT file and turns them into points on slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from rtplan.dicom.rtstruct_items import RawContour, RawRoi
from rtplan.domain.contour_faults import TooIntricate, crossings, doubled, gaps
from rtplan.domain.contours import SNAP_MM, polygon_area_mm2, slice_index
from rtplan.domain.grid import Grid
from rtplan.domain.roi_names import is_target_roi, printable
from rtplan.domain.structures import Contour, RoiContours
from rtplan.domain.verdict import Finding, Severity
from rtplan.errors import CaseRejected

MAX_POINTS = 4_000_000
MAX_POINTS_OF_CONTOUR = 50_000
MAX_CONTOURS_ON_SLICE = 2_000
_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_NUMBER_BYTES = b"0123456789+-.eE \\"
_FAR_MM = 5_000.0  # no patient coordinate is further than this from the origin of a scanner
_NO_AREA_MM2 = 1e-3
_SLIP_MM2 = 1.0  # a loop smaller than this is a slip of the pen that cannot move a dose
_NEAR_GAP_MM = 20.0  # parts of a target further apart than this may have been drawn so on purpose


def read_roi(raw: RawRoi, grid: Grid, slice_of_image: Mapping[str, int]) -> tuple[RoiContours, list[Finding]]:
    """One region with its contours on slices, and what was left out of it.

    Targets, and the body where slices are missing, are refused where other regions are repaired or reported. Raises
    CaseRejected: SS_CONTOUR_TYPE, SS_GEOMETRY_INVALID, SS_NOT_AXIAL, SS_OFF_SLICE, REF_IMAGE_MISMATCH, SS_DEGENERATE,
    SS_DOUBLED, SS_SELF_CROSSING, SS_OUTSIDE_CT, SS_GAP, SS_TOO_LARGE.
    """
    checks = _RoiChecks(printable(raw.name), is_target_roi(raw.name, raw.interpreted_type), grid)
    closed = checks.only_closed(raw.contours)
    contours = [checks.contour(item, slice_of_image) for item in closed]
    contours = checks.without_degenerate(contours)
    contours = checks.without_doubles(contours)
    checks.crossing(contours)
    checks.within_ct(contours)
    checks.whole(contours, raw.interpreted_type == "EXTERNAL")
    return RoiContours(raw.number, printable(raw.name), raw.interpreted_type, tuple(contours)), checks.findings


class _RoiChecks:
    """The checks of one region in the order in which they are made; findings gather along the way."""

    def __init__(self, name: str, is_target: bool, grid: Grid) -> None:
        self.name, self.is_target, self.grid = name, is_target, grid
        self.findings: list[Finding] = []

    def only_closed(self, items: Sequence[RawContour]) -> list[RawContour]:
        """Closed contours; points and open lines are left out, and refused as a target."""
        odd = sorted({i.geometric_type or "none" for i in items if i.geometric_type not in _CLOSED})
        kept = [i for i in items if i.geometric_type in _CLOSED]
        if odd:
            left_out = f"{len(items) - len(kept)} contour(s) of type {', '.join(printable(t) for t in odd)}"
            self._refuse_target("SS_CONTOUR_TYPE", f"has {left_out}", "ContourGeometricType (3006,0042) CLOSED_PLANAR")
            severity: Severity = "flag" if kept else "info"
            self.findings.append(Finding("SS_CONTOUR_TYPE", severity, f"{self.name}: {left_out} left out"))
        return kept

    def contour(self, item: RawContour, slice_of_image: Mapping[str, int]) -> Contour:
        """Points of one contour, moved onto its slice if it is less than 0.1 mm away."""
        points = self._points(item)
        if not len(points):
            return Contour(self.grid.origin_xyz_mm[2], np.zeros((0, 2)))
        low, high = float(points[:, 2].min()), float(points[:, 2].max())
        if high - low >= SNAP_MM:
            self._refuse(
                "SS_NOT_AXIAL",
                f"has a contour from z = {low:g} mm to {high:g} mm",
                "contours in axial planes",
                "redraw it axially",
            )
        drawn = Contour(float(points[:, 2].mean()), points[:, :2])
        try:
            index = slice_index(drawn, self.grid)
        except ValueError as error:
            z = self.grid.z_mm()
            nearest = float(z[np.argmin(np.abs(z - drawn.z_mm))])
            raise self._refusal(
                "SS_OFF_SLICE",
                f"has a contour at z = {drawn.z_mm:g} mm; the nearest slice is at {nearest:g} mm",
                f"contours on the slices of the CT, within {SNAP_MM} mm",
                "export the structure set for this CT series",
            ) from error
        if any(slice_of_image.get(uid) != index for uid in item.image_uids):
            self._refuse(
                "REF_IMAGE_MISMATCH",
                f"has a contour at z = {drawn.z_mm:g} mm that refers to another image than the slice there",
                "ReferencedSOPInstanceUID (0008,1155) of that slice of the CT",
                "export the CT together with the structure set drawn on it",
            )
        return Contour(float(self.grid.z_mm()[index]), drawn.points_xy_mm)

    def _points(self, item: RawContour) -> NDArray[np.float64]:
        """Coordinates (n, 3) mm, from nothing but plain finite decimal numbers."""
        text = item.data.rstrip(b"\0 ")
        values = np.zeros(0)
        if text:
            if text.translate(None, _NUMBER_BYTES):
                self._invalid("coordinates that are no decimal numbers")
            if text.count(b"\\") >= 3 * MAX_POINTS_OF_CONTOUR:
                self._refuse("SS_TOO_LARGE", "has a contour of too many points", f"at most {MAX_POINTS_OF_CONTOUR}")
            try:
                values = np.array(text.split(b"\\")).astype(np.float64)
            except ValueError:
                self._invalid("coordinates that are no decimal numbers")
        if not np.all(np.isfinite(values)) or np.any(np.abs(values) > _FAR_MM):
            self._invalid(f"coordinates that are not finite or beyond {_FAR_MM:g} mm")
        if len(values) % 3:
            self._invalid(f"{len(values)} coordinates, which is no multiple of 3")
        if item.count != len(values) // 3:
            claim = "nothing" if item.count is None else str(item.count)
            self._invalid(f"{len(values) // 3} points although NumberOfContourPoints (3006,0046) says {claim}")
        return values.reshape(-1, 3)

    def without_degenerate(self, contours: Sequence[Contour]) -> list[Contour]:
        """Contours that enclose something. A slice of a target must not be lost by this."""
        empty = [i for i, c in enumerate(contours) if _encloses_nothing(c)]
        if not empty:
            return list(contours)
        kept = [c for i, c in enumerate(contours) if i not in set(empty)]
        if any(not len(contours[i].points_xy_mm) for i in empty):
            self._refuse_target(
                "SS_DEGENERATE", "has a contour without points", "at least three points that enclose an area"
            )
        lost = {contours[i].z_mm for i in empty} - {c.z_mm for c in kept}
        if lost:
            found = f"has only contours without area at z = {min(lost):g} mm"
            self._refuse_target("SS_DEGENERATE", found, "at least three points that enclose an area")
        text = f"{self.name}: {len(empty)} contour(s) of fewer than three points or no area left out"
        self.findings.append(Finding("SS_DEGENERATE", "flag", text))
        return kept

    def without_doubles(self, contours: Sequence[Contour]) -> list[Contour]:
        """Each contour once: by the even-odd rule a double would erase what it encloses."""
        repeats = doubled(contours)
        if not repeats:
            return list(contours)
        z = contours[repeats[0]].z_mm
        self._refuse_target("SS_DOUBLED", f"has the same contour twice at z = {z:g} mm", "each contour once")
        text = f"{self.name}: {len(repeats)} contour(s) given twice, the first at z = {z:g} mm; each is used once"
        self.findings.append(Finding("SS_DOUBLED", "flag", text))
        return [c for i, c in enumerate(contours) if i not in set(repeats)]

    def crossing(self, contours: Sequence[Contour]) -> None:
        """Lines that cross enclose an area that nobody can be sure of. Other regions are filled even-odd and reported."""
        _, on_slice = np.unique(np.array([c.z_mm for c in contours]), return_counts=True)
        if len(on_slice) and on_slice.max() > MAX_CONTOURS_ON_SLICE:
            self._refuse("SS_TOO_LARGE", f"has {on_slice.max()} contours on one slice", f"at most {MAX_CONTOURS_ON_SLICE}")
        try:
            found = crossings(contours)
        except TooIntricate as error:
            raise self._refusal("SS_TOO_LARGE", f"has {error}", "contours of a plausible shape", "redraw it") from error
        if not found:
            return
        worst = max(found, key=lambda c: c.loop_mm2)
        where = contours[worst.first]
        how = "a contour that crosses itself" if worst.first == worst.second else "contours that cross each other"
        if worst.loop_mm2 >= _SLIP_MM2:
            self._refuse_target("SS_SELF_CROSSING", f"has {how} at z = {where.z_mm:g} mm", "outlines that do not cross")
        text = f"{self.name}: {len(found)} crossing(s), {how} at z = {where.z_mm:g} mm; filled by the even-odd rule"
        if worst.first == worst.second:
            area = abs(polygon_area_mm2(where.points_xy_mm))
            text += f", area by sign {area:.1f} mm², smaller loop {worst.loop_mm2:.1f} mm²"
        self.findings.append(Finding("SS_SELF_CROSSING", "flag", text))

    def within_ct(self, contours: Sequence[Contour]) -> None:
        """Contours must not leave the images, where there is no tissue to plan on."""
        low, high = self.grid.bounds_mm()
        for c in contours:
            beyond = np.any((c.points_xy_mm < np.array(low[:2]) - SNAP_MM) | (c.points_xy_mm > np.array(high[:2]) + SNAP_MM))
            if beyond:
                found = f"reaches beyond the edge of the image at z = {c.z_mm:g} mm"
                self._refuse_target("SS_OUTSIDE_CT", found, "contours within the images")
                self.findings.append(Finding("SS_OUTSIDE_CT", "flag", f"{self.name} {found}; cut there"))
                return

    def whole(self, contours: Sequence[Contour], is_body: bool) -> None:
        """No slice may be missing inside a target or the body; elsewhere it is reported. Nothing is interpolated."""
        for gap in gaps(contours, self.grid):
            z = self.grid.z_mm()[gap.below + 1]
            found = f"has no contour on {gap.above - gap.below - 1} slice(s) from z = {z:g} mm on, between slices that have"
            if is_body or (self.is_target and gap.joined and gap.length_mm <= _NEAR_GAP_MM):
                self._refuse("SS_GAP", found, "a contour on every slice", "draw the missing slices")
            severity: Severity = "hold" if self.is_target else "flag"
            self.findings.append(Finding("SS_GAP", severity, f"{self.name} {found}"))

    def _refuse_target(self, code: str, found: str, expected: str) -> None:
        if self.is_target:
            self._refuse(code, found, expected, "correct the contours of this target")

    def _refuse(self, code: str, found: str, expected: str, remedy: str = "correct the structure set") -> NoReturn:
        raise self._refusal(code, found, expected, remedy)

    def _refusal(self, code: str, found: str, expected: str, remedy: str) -> CaseRejected:
        return CaseRejected(code, f"{self.name} {found}", expected, remedy)

    def _invalid(self, found: str) -> NoReturn:
        self._refuse("SS_GEOMETRY_INVALID", f"has a contour with {found}", "ContourData (3006,0050) as x, y, z in mm")


def _encloses_nothing(contour: Contour) -> bool:
    """Fewer than three points or all of them on a line; a figure of eight of balanced halves does enclose something."""
    points = contour.points_xy_mm
    if len(points) < 3:
        return True
    spread = points - points.mean(axis=0)
    # The smaller singular value is the extent across the best line through the points.
    width = float(np.linalg.svd(spread, compute_uv=False)[-1])
    return width * float(np.abs(spread).max()) < _NO_AREA_MM2
