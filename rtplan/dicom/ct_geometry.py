"""Checks that CT slices stack to one axis-aligned grid, and makes that grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.dicom.ct_checks import AGAIN, HEAD_FIRST_SUPINE
from rtplan.dicom.ct_slice import CtSlice
from rtplan.domain.grid import Grid
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected

MAX_POSITION_MM = 5000.0
SPACING_LIMITS_MM = (0.05, 20.0)
UNIT_TOLERANCE = 1e-3  # of the length and the dot product of direction cosines
AXIS_TOLERANCE = 5e-4  # of a direction cosine: 0.25 mm over 500 mm
POSITION_TOLERANCE_MM = 0.1
TILT_TOLERANCE_DEG = 0.05
MAX_TILT_DEG = 35.0  # gantries do not tilt further; beyond it the series is oblique
MIN_SLICES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Slices from inferior to superior, their grid, and whether stored columns and rows run against x and y."""

    slices: tuple[CtSlice, ...]
    grid: Grid
    flip_columns: bool
    flip_rows: bool


def stack_slices(slices: Sequence[CtSlice]) -> tuple[Stack, list[Finding]]:
    """Order slices by position along their normal, never by number or name.

    Raises the GEOMETRY_, ORIENTATION_ and CT_ codes of the functions below.
    """
    for s in slices:
        _check_numbers(s)
    _check_patient_position(slices)
    row_sign, column_sign = _check_orientation(slices)
    if len(slices) < MIN_SLICES:
        raise CaseRejected("CT_TOO_FEW_SLICES", f"{len(slices)} slice(s)", f"at least {MIN_SLICES}", AGAIN)
    ordered = sorted(slices, key=lambda s: s.z_mm)
    _check_shear(ordered)
    spacing_mm = _check_spacing(ordered)
    grid = _grid(ordered, spacing_mm, row_sign, column_sign)
    return Stack(tuple(ordered), grid, row_sign < 0, column_sign < 0), _thickness_findings(ordered, spacing_mm)


def _check_numbers(s: CtSlice) -> None:
    orientation, position, spacing = map(np.array, (s.orientation, s.position_xyz_mm, s.pixel_spacing_yx_mm))
    if position.shape != (3,) or not np.all(np.abs(position) <= MAX_POSITION_MM):
        expected = f"three numbers within {MAX_POSITION_MM:g} mm"
        raise _invalid(s, f"ImagePositionPatient (0020,0032) {s.position_xyz_mm or 'missing'}", expected)
    low, high = SPACING_LIMITS_MM
    if spacing.shape != (2,) or not np.all((spacing >= low) & (spacing <= high)):
        raise _invalid(
            s, f"PixelSpacing (0028,0030) {s.pixel_spacing_yx_mm or 'missing'}", f"two numbers from {low:g} to {high:g} mm"
        )
    if orientation.shape != (6,) or not np.all(np.isfinite(orientation)):
        raise _invalid(s, f"ImageOrientationPatient (0020,0037) {s.orientation or 'missing'}", "six finite numbers")
    row, column = orientation[:3], orientation[3:]
    off = max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column))
    if off > UNIT_TOLERANCE:
        raise _invalid(s, f"ImageOrientationPatient (0020,0037) {s.orientation}", "two perpendicular unit vectors")


def _invalid(s: CtSlice, found: str, expected: str) -> CaseRejected:
    return CaseRejected("GEOMETRY_INVALID", f"{s.place}: {found}", expected, AGAIN)


def _check_patient_position(slices: Sequence[CtSlice]) -> None:
    for s in slices:
        if not s.patient_position:
            raise CaseRejected(
                "ORIENTATION_UNKNOWN",
                f"{s.place} has no PatientPosition (0018,5100)",
                HEAD_FIRST_SUPINE,
                "set how the patient lay at the scanner and export again",
            )
        if s.patient_position != HEAD_FIRST_SUPINE:
            raise CaseRejected(
                "ORIENTATION_UNSUPPORTED",
                f"{s.place}: PatientPosition (0018,5100) {s.patient_position}",
                HEAD_FIRST_SUPINE,
                "plan this patient elsewhere; other positions are refused until they are proven",
            )


def _check_orientation(slices: Sequence[CtSlice]) -> tuple[int, int]:
    """Signs of the stored rows along x and columns along y of an axial series."""
    first = slices[0]
    for s in slices:
        if np.max(np.abs(np.subtract(s.orientation, first.orientation))) > AXIS_TOLERANCE:
            found = f"{s.place}: ImageOrientationPatient (0020,0037) {s.orientation}, elsewhere {first.orientation}"
            raise CaseRejected("CT_ORIENTATION_MIXED", found, "one orientation", AGAIN)
        if s.pixel_spacing_yx_mm and not np.allclose(s.pixel_spacing_yx_mm, first.pixel_spacing_yx_mm, rtol=1e-4, atol=0):
            found = f"PixelSpacing (0028,0030) {s.pixel_spacing_yx_mm}, elsewhere {first.pixel_spacing_yx_mm}"
            raise _invalid(s, found, "one pixel spacing")
        if s.tilt_deg is not None and not abs(s.tilt_deg) <= TILT_TOLERANCE_DEG:
            raise _tilted(s, f"GantryDetectorTilt (0018,1120) {s.tilt_deg:g} degrees")
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    off_axis = max(np.abs(row[1:]).max(), abs(column[0]), abs(column[2]))
    if off_axis <= AXIS_TOLERANCE:
        return int(np.sign(row[0])), int(np.sign(column[1]))
    normal = np.cross(row, column)
    angle_deg = float(np.degrees(np.arccos(min(1.0, abs(normal[2])))))
    found = f"ImageOrientationPatient (0020,0037) {first.orientation}"
    if np.abs(row[1:]).max() <= AXIS_TOLERANCE and angle_deg <= MAX_TILT_DEG:
        raise _tilted(first, found)
    raise CaseRejected(
        "CT_NOT_AXIAL",
        f"{first.place}: {found}",
        "rows along x, columns along y",
        "export the axial reconstruction, not a reformatted one",
    )


def _tilted(s: CtSlice, found: str) -> CaseRejected:
    return CaseRejected("CT_TILT", f"{s.place}: {found}", "no tilt", "scan again without gantry tilt")


def _check_shear(ordered: Sequence[CtSlice]) -> None:
    position = np.array([s.position_xyz_mm for s in ordered])
    drift = np.abs(position[:, :2] - np.median(position[:, :2], axis=0)).max(axis=1)
    worst = int(np.argmax(drift))
    if drift[worst] > POSITION_TOLERANCE_MM:
        found = (
            f"{ordered[worst].place}: ImagePositionPatient (0020,0032) lies {drift[worst]:.2f} mm beside the other slices"
        )
        raise CaseRejected(
            "CT_STACK_SHEAR", found, "one x and y for all slices", "reconstruct with one centre and table height"
        )


def _check_spacing(ordered: Sequence[CtSlice]) -> float:
    """Distance of the slices in mm. Raises CT_POSITION_DUPLICATE, CT_SLICE_GAP, CT_SPACING_NONUNIFORM."""
    z = np.array([s.z_mm for s in ordered])
    gaps = np.diff(z)
    double = int(np.argmin(gaps))
    if gaps[double] < 1e-3:
        found = f"{ordered[double + 1].place} and file {ordered[double].file.name} lie at the same place"
        raise CaseRejected("CT_POSITION_DUPLICATE", found, "one slice per position", "export one reconstruction alone")
    usual = _usual_gap(gaps)
    _reject_missing_slices(ordered, gaps, usual)
    spacing = float(round((z[-1] - z[0]) / (len(z) - 1), 6))
    off = np.abs(z - (z[0] + spacing * np.arange(len(z))))
    worst = int(np.argmax(off))
    if off[worst] > min(POSITION_TOLERANCE_MM, 0.25 * spacing):
        found = f"{ordered[worst].place}: slice distances run from {gaps.min():g} to {gaps.max():g} mm"
        raise CaseRejected("CT_SPACING_NONUNIFORM", found, "one distance", "reconstruct with one slice distance")
    if spacing > SPACING_LIMITS_MM[1]:
        raise _invalid(ordered[1], f"slices are {spacing:g} mm apart", f"at most {SPACING_LIMITS_MM[1]:g} mm")
    return spacing


def _usual_gap(gaps: NDArray[np.float64]) -> float:
    counts = Counter(np.round(gaps, 1).tolist())
    return float(min(counts, key=lambda gap: (-counts[gap], gap)))


def _reject_missing_slices(ordered: Sequence[CtSlice], gaps: NDArray[np.float64], usual: float) -> None:
    """A few gaps of a whole number of slice distances are missing slices; many are another spacing."""
    wide = np.flatnonzero(gaps > 1.5 * usual)
    multiple = np.round(gaps[wide] / usual)
    whole = np.abs(gaps[wide] - multiple * usual) <= 0.1 * usual * multiple
    if len(wide) and len(wide) <= max(1, len(gaps) // 4) and whole.all():
        before = ordered[int(wide[0])]
        first, count = before.z_mm + usual, int(np.sum(multiple - 1))
        found = (
            f"slice missing at z = {first:g} mm, after the {before.place} ({count} missing in all; distance {usual:g} mm)"
        )
        raise CaseRejected("CT_SLICE_GAP", found, f"a slice every {usual:g} mm", AGAIN)


def _thickness_findings(ordered: Sequence[CtSlice], spacing_mm: float) -> list[Finding]:
    stated = (
        ("SliceThickness (0018,0050)", ordered[0].thickness_mm),
        ("SpacingBetweenSlices (0018,0088)", ordered[0].spacing_between_mm),
    )
    findings = []
    for name, value in stated:
        if value is not None and not abs(value - spacing_mm) <= 0.01 + 0.01 * spacing_mm:
            message = f"{name} is {value:g} mm but slices lie {spacing_mm:g} mm apart; the positions are used"
            findings.append(Finding("SLICE_DISTANCE_CONTRADICTED", "flag", message))
    return findings


def _grid(ordered: Sequence[CtSlice], spacing_mm: float, row_sign: int, column_sign: int) -> Grid:
    first = ordered[0]
    rows, columns = int(first.rows or 0), int(first.columns or 0)
    dy, dx = first.pixel_spacing_yx_mm
    # Where storage runs against an axis, the lowest coordinate is that of the last stored column or row.
    x = first.position_xyz_mm[0] - (dx * (columns - 1) if row_sign < 0 else 0.0)
    y = first.position_xyz_mm[1] - (dy * (rows - 1) if column_sign < 0 else 0.0)
    return Grid((len(ordered), rows, columns), (spacing_mm, dy, dx), (x, y, first.z_mm))
