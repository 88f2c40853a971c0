"""Builds small synthetic CT series as DICOM files, to be changed in one thing each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
SHAPE_ZYX = (12, 32, 40)
SPACING_ZYX_MM = (3.0, 2.0, 2.0)
ORIGIN_XYZ_MM = (-39.0, -31.0, -120.0)

Edit = Callable[[int, Dataset], object]


def small_body(shape_zyx: tuple[int, int, int] = SHAPE_ZYX) -> NDArray[np.int16]:
    """An ellipse of water that no flip and no turn leaves unchanged: bone left, fat anterior, dense superiorly, noise."""
    nz, ny, nx = shape_zyx
    z, y, x = np.meshgrid(np.arange(nz), np.arange(ny), np.arange(nx), indexing="ij")
    hu = np.full(shape_zyx, -1000)
    hu[((x - nx / 2) / (0.4 * nx)) ** 2 + ((y - ny / 2) / (0.4 * ny)) ** 2 < 1] = 20
    body = hu > -500
    hu[body & (x > 0.7 * nx)] = 700
    hu[body & (y < 0.3 * ny)] = -100
    hu[body & (z > 0.7 * nz)] += 60
    return (hu + np.random.default_rng(7).integers(-5, 6, shape_zyx) * body).astype(np.int16)


def ct_dataset(k: int, stored: NDArray[np.int16]) -> FileDataset:
    """Slice k (from inferior) of the series, stored with intercept -1024, without position."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT_CLASS
    meta.MediaStorageSOPInstanceUID = f"1.2.826.77.1.{k + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CT_CLASS, f"1.2.826.77.1.{k + 1}", "CT"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.Manufacturer = "20240102", "101112", "A7", "Maker"
    ds.ReferringPhysicianName, ds.ManufacturerModelName = "Dr^Who", "Model"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Müller^Jörg", "PAT-7", "19500203", "M"
    ds.SliceThickness, ds.KVP, ds.GantryDetectorTilt, ds.ConvolutionKernel = "3", "120", "0", "B30"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.77.2", "1.2.826.77.3"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "S1", "2", str(100 - k)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = "1.2.826.77.4", ""
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    ds.PixelData = (stored.astype(np.int32) + 1024).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def write_series(
    folder: Path,
    hu: NDArray[np.int16] | None = None,
    *,
    spacing_zyx_mm: tuple[float, float, float] = SPACING_ZYX_MM,
    origin_xyz_mm: tuple[float, float, float] = ORIGIN_XYZ_MM,
    edit: Edit | None = None,
    name: Callable[[int], str] = "slice_{:02d}.dcm".format,
) -> list[Path]:
    """Write a series, each data set changed by `edit(k, dataset)`; an edit that returns False leaves the slice out."""
    hu = small_body() if hu is None else hu
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with pydicom.config.disable_value_validation():
        for k in range(len(hu)):
            ds = ct_dataset(k, hu[k])
            x, y, z = origin_xyz_mm
            ds.ImagePositionPatient = [f"{x:g}", f"{y:g}", f"{z + k * spacing_zyx_mm[0]:g}"]
            ds.PixelSpacing = [f"{spacing_zyx_mm[1]:g}", f"{spacing_zyx_mm[2]:g}"]
            ds.SliceThickness = f"{spacing_zyx_mm[0]:g}"
            if edit is not None and edit(k, ds) is False:
                continue
            path = folder / name(k)
            path.parent.mkdir(parents=True, exist_ok=True)
            ds.save_as(path, enforce_file_format=True)
            paths.append(path)
    return paths


def on_slice(number: int, **values: object) -> Edit:
    """An edit that sets tags on one slice; None deletes the tag."""

    def edit(k: int, ds: Dataset) -> None:
        if k == number:
            set_tags(ds, **values)

    return edit


def on_all(**values: object) -> Edit:
    """An edit that sets tags on every slice; None deletes the tag."""
    return lambda k, ds: set_tags(ds, **values)


def set_tags(ds: Dataset, **values: object) -> None:
    """Set tags by keyword; None deletes the tag."""
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
