"""Reads an RT Dose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, RTDoseStorage

from rtplan.dicom.open_rt import number, numbers, open_rt_object, refusing_malformed, required
from rtplan.domain.dose import Dose
from rtplan.domain.grid import Grid
from rtplan.errors import CaseRejected

_MAX_BYTES = 2 * 2**30
_SPACING_TOLERANCE_MM = 0.01


def read_rtdose(path: Path) -> Dose:
    """The physical dose in Gy of an axial RT Dose file, whichever way its frames are ordered.

    Raises CaseRejected with a code that starts with RTDOSE_.
    """
    with refusing_malformed("RTDOSE", path):
        return _read(open_rt_object(path, sop_class_uid=RTDoseStorage, kind="RTDOSE", max_bytes=_MAX_BYTES))


def _read(dataset: FileDataset) -> Dose:
    """The dose that a data set holds."""
    units, kind = dataset.get("DoseUnits"), dataset.get("DoseType")
    if units != "GY" or kind != "PHYSICAL":
        raise CaseRejected("RTDOSE_UNITS", f"units {units}, type {kind}", "units GY, type PHYSICAL")
    if dataset.get("DoseSummationType") != "PLAN":
        raise CaseRejected(
            "RTDOSE_SUMMATION", f"summation type {dataset.get('DoseSummationType')}", "PLAN: the whole course"
        )
    scaling = number(dataset, "DoseGridScaling", code="RTDOSE_SCALING", where="dose")
    if scaling <= 0:
        raise CaseRejected("RTDOSE_SCALING", f"DoseGridScaling is {scaling:g}", "more than 0")
    values = _pixels(dataset)
    grid, descending = _grid(dataset, values.shape[0])
    if descending:
        values = values[::-1]
    return Dose(grid, (values.astype(np.float64) * scaling).astype(np.float32))


def _pixels(dataset: FileDataset) -> NDArray[np.unsignedinteger]:
    """Stored values (frames, rows, columns), checked for length before they are interpreted."""
    rows, columns, frames, bits = (
        int(number(dataset, keyword, code="RTDOSE_PIXELS", where="dose", default=default))
        for keyword, default in (("Rows", None), ("Columns", None), ("NumberOfFrames", 1.0), ("BitsAllocated", None))
    )
    if bits not in (16, 32) or dataset.get("BitsStored") != bits:
        raise CaseRejected(
            "RTDOSE_PIXELS", f"{bits} bits allocated, {dataset.get('BitsStored')} stored", "16 or 32, all stored"
        )
    if number(dataset, "PixelRepresentation", code="RTDOSE_PIXELS", where="dose") != 0:
        raise CaseRejected("RTDOSE_PIXELS", "signed dose values", "unsigned values")
    data = required(dataset, "PixelData", code="RTDOSE_PIXELS", where="dose")
    expected = rows * columns * frames * bits // 8
    if min(rows, columns, frames) < 1 or len(data) != expected + expected % 2:
        raise CaseRejected("RTDOSE_PIXELS", f"{len(data)} bytes of PixelData", f"{expected}", "export the dose again")
    order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    return np.frombuffer(data[:expected], dtype=f"{order}u{bits // 8}").reshape(frames, rows, columns)


def _grid(dataset: FileDataset, frames: int) -> tuple[Grid, bool]:
    """The grid, and whether the file's frames run from superior to inferior."""
    orientation = numbers(dataset, "ImageOrientationPatient", code="RTDOSE_GEOMETRY", where="dose", count=6)
    if np.max(np.abs(np.array(orientation) - [1, 0, 0, 0, 1, 0])) > 1e-4:
        raise CaseRejected("RTDOSE_GEOMETRY", f"ImageOrientationPatient is {orientation}", "axial: 1, 0, 0, 0, 1, 0")
    origin = numbers(dataset, "ImagePositionPatient", code="RTDOSE_GEOMETRY", where="dose", count=3)
    dy, dx = numbers(dataset, "PixelSpacing", code="RTDOSE_GEOMETRY", where="dose", count=2)
    offsets = np.array(numbers(dataset, "GridFrameOffsetVector", code="RTDOSE_GEOMETRY", where="dose", count=frames))
    if frames < 2:
        raise CaseRejected("RTDOSE_GEOMETRY", "a single frame", "a dose volume")
    # A vector that does not start at 0 holds the frames' z positions themselves (PS3.3 C.8.8.3.2).
    if offsets[0] != 0 and abs(offsets[0] - origin[2]) > _SPACING_TOLERANCE_MM:
        raise CaseRejected("RTDOSE_GEOMETRY", f"GridFrameOffsetVector starts at {offsets[0]:g}", "0 or the first frame's z")
    steps = np.diff(offsets)
    dz = float(offsets[-1] - offsets[0]) / (frames - 1)
    if dz == 0 or np.max(np.abs(steps - dz)) > _SPACING_TOLERANCE_MM:
        raise CaseRejected("RTDOSE_GEOMETRY", f"frames {steps.min():g} to {steps.max():g} mm apart", "evenly spaced frames")
    if min(dy, dx) <= 0:
        raise CaseRejected("RTDOSE_GEOMETRY", f"PixelSpacing {dy:g}, {dx:g}", "positive spacing")
    lowest_z = min(origin[2], origin[2] + dz * (frames - 1))
    shape = (frames, int(dataset.Rows), int(dataset.Columns))
    return Grid(shape, (abs(dz), dy, dx), (origin[0], origin[1], lowest_z)), dz < 0
