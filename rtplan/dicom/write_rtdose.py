"""Writes a dose as a DICOM RT Dose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import RTDoseStorage, RTPlanStorage

from rtplan.dicom.header import base_dataset, cut, decimal, dicom_date, dicom_time, reference, save_dataset
from rtplan.dicom.uids import OutputIds
from rtplan.domain.dose import Dose
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage
from rtplan.domain.verdict import Finding
from rtplan.errors import SafetyStop

_COMMENTS_LIMIT = 10240  # ImageComments is LT
_LARGEST = 65535  # unsigned 16 bit: a quantum of 0.0015 % of the maximum


def write_rtdose(path: Path, dose: Dose, ct: CtImage, ids: OutputIds, findings: Sequence[Finding] = ()) -> None:
    """Write `dose` to `path` as an RT Dose (DICOM PS3.3 A.18): physical dose to medium in Gy over the whole plan.

    16-bit; the quantum is 1/65535 of the maximum. DoseComment has room only to say that there are `findings`, ImageComments
    holds them, but for those for information. Raises SafetyStop for a dose that is empty, negative or not finite.
    """
    scaling, pixels = quantised(dose.dose_gy)
    dataset = base_dataset(
        RTDoseStorage,
        ids.dose_uid,
        modality="RTDOSE",
        series_uid=ids.dose_series_uid,
        ct=ct,
        created=ids.created,
        series_description="rtplan dose, not approved",
        series_number=9003,
    )
    _add_geometry(dataset, dose.grid)
    dataset.ContentDate, dataset.ContentTime = dicom_date(ids.created), dicom_time(ids.created)
    dataset.InstanceNumber = 1
    dataset.DoseUnits = "GY"
    dataset.DoseType = "PHYSICAL"
    flags = [f"{f.code}: {f.message}" for f in dict.fromkeys(findings) if f.severity != "info"]
    dataset.DoseComment = "AUTO-GENERATED - NOT APPROVED; dose to medium" + ("; see ImageComments" if flags else "")
    if flags:
        dataset.ImageComments = cut("\r\n".join(flags), _COMMENTS_LIMIT)
    dataset.DoseSummationType = "PLAN"
    dataset.TissueHeterogeneityCorrection = "IMAGE"
    dataset.ReferencedRTPlanSequence = Items([reference(RTPlanStorage, ids.plan_uid)])
    dataset.DoseGridScaling = scaling
    _add_pixels(dataset, pixels)
    save_dataset(dataset, path)


def quantised(dose_gy: NDArray[np.float32]) -> tuple[str, NDArray[np.uint16]]:
    """DoseGridScaling as written and the (z, y, x) uint16 values; their product is within half a quantum of the dose."""
    if not np.all(np.isfinite(dose_gy)):
        raise SafetyStop("DOSE_IMPLAUSIBLE", "the dose has voxels that are not finite", "finite dose everywhere")
    if float(dose_gy.min()) < 0:
        raise SafetyStop("DOSE_IMPLAUSIBLE", f"the dose falls to {dose_gy.min():g} Gy", "no negative dose")
    maximum = float(dose_gy.max())
    if maximum <= 0:
        raise SafetyStop("DOSE_IMPLAUSIBLE", "the dose is zero everywhere", "a plan that gives dose")
    scaling = decimal(maximum / _LARGEST, decimals=30)
    values = np.rint(dose_gy.astype(np.float64) / float(scaling))
    if values.max() > _LARGEST:
        raise SafetyStop("DOSE_GRID", f"a scaled dose of {values.max():g}", f"at most {_LARGEST}")
    return scaling, values.astype(np.uint16)


def _add_geometry(dataset: FileDataset, grid: Grid) -> None:
    """Image Plane and multi-frame geometry: axial frames, offsets relative to the first."""
    dz, dy, dx = grid.spacing_zyx_mm
    dataset.SliceThickness = decimal(dz)
    dataset.ImagePositionPatient = [decimal(v) for v in grid.origin_xyz_mm]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelSpacing = [decimal(dy, 10), decimal(dx, 10)]
    dataset.NumberOfFrames = grid.shape_zyx[0]
    dataset.FrameIncrementPointer = Tag("GridFrameOffsetVector")
    dataset.GridFrameOffsetVector = [decimal(dz * k) for k in range(grid.shape_zyx[0])]


def _add_pixels(dataset: FileDataset, pixels: NDArray[np.uint16]) -> None:
    """Image Pixel module."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[1], pixels.shape[2]
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    data = pixels.astype("<u2").tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
