"""Phantoms as DICOM: a CT series and an RTSTRUCT, the same bytes on every run.

UIDs are 2.25.<uuid5>, a pure function of the phantom's name and the object; dates are fixed.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import contourpy
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from sample_data.phantom import Phantom, Roi

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/rtplan/rtplan/sample_data")
DATE, TIME = "20260101", "120000"
INTERCEPT = -1024
SIMPLIFY_MM = 0.04
COLOURS = ((0, 255, 0), (220, 0, 0), (255, 120, 0), (255, 220, 0), (0, 160, 80), (60, 120, 255), (160, 80, 255))


def write_phantom(phantom: Phantom, folder: Path) -> tuple[Path, ...]:
    """Write `folder`/CT/CT_001.dcm, ... (most superior first) and `folder`/RS.dcm. Returns the files written.

    A phantom `with_targets_alone` gets `folder`/RS_targets.dcm as well, without body and organs.
    """
    (folder / "CT").mkdir(parents=True, exist_ok=True)
    n = phantom.grid.shape_zyx[0]
    written = []
    for k in range(n):
        path = folder / "CT" / f"CT_{n - k:03d}.dcm"
        _ct_slice(phantom, k).save_as(path, enforce_file_format=True)
        written.append(path)
    _rtstruct(phantom, phantom.rois, "rtstruct").save_as(folder / "RS.dcm", enforce_file_format=True)
    sets = [folder / "RS.dcm"]
    if phantom.with_targets_alone:
        targets = tuple(roi for roi in phantom.rois if roi.interpreted_type == "PTV")
        sets.append(folder / "RS_targets.dcm")
        _rtstruct(phantom, targets, "rtstruct targets").save_as(sets[-1], enforce_file_format=True)
    return (*sorted(written), *sets)


def _uid(phantom: Phantom, *parts: object) -> str:
    text = "/".join(str(part) for part in (phantom.name, *parts))
    return f"2.25.{uuid.uuid5(NAMESPACE, text).int}"


def _number(value: float) -> str:
    """Decimal string with at most four decimals and no negative zero."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _header(phantom: Phantom, sop_class: str, sop_uid: str, modality: str, series_number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = f"2.25.{uuid.uuid5(NAMESPACE, 'implementation').int}"
    meta.ImplementationVersionName = "RTPLAN_PHANTOM"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_class, sop_uid, modality
    ds.InstanceCreationDate = ds.StudyDate = ds.SeriesDate = DATE
    ds.InstanceCreationTime = ds.StudyTime = ds.SeriesTime = TIME
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "rtplan", "rtplan phantom", "1"
    ds.DeviceSerialNumber = "1"
    ds.StudyDescription, ds.SeriesDescription = "rtplan sample data", f"{phantom.title}"[:64]
    ds.PatientName, ds.PatientID = f"Phantom^{phantom.name}", f"PHANTOM-{phantom.name.upper()}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyInstanceUID, ds.StudyID = _uid(phantom, "study"), "1"
    ds.SeriesInstanceUID, ds.SeriesNumber = _uid(phantom, "series", modality), str(series_number)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(phantom, "frame"), ""
    return ds


def _ct_slice(phantom: Phantom, k: int) -> FileDataset:
    grid = phantom.grid
    dz, dy, dx = grid.spacing_zyx_mm
    z_mm = float(grid.z_mm()[k])
    ds = _header(phantom, CT_CLASS, _uid(phantom, "ct", k), "CT", 1)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.AcquisitionDate = ds.ContentDate = DATE
    ds.AcquisitionTime = ds.ContentTime = TIME
    ds.KVP, ds.AcquisitionNumber, ds.InstanceNumber = "120", "1", str(grid.shape_zyx[0] - k)
    ds.PatientPosition = "HFS"
    if phantom.body_part:
        ds.BodyPartExamined = phantom.body_part
    else:
        ds.Laterality = ""  # required, possibly empty, where no unpaired body part is named
    ds.ImagePositionPatient = [_number(grid.origin_xyz_mm[0]), _number(grid.origin_xyz_mm[1]), _number(z_mm)]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.PixelSpacing, ds.SliceThickness, ds.SliceLocation = [_number(dy), _number(dx)], _number(dz), _number(z_mm)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(INTERCEPT), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = grid.shape_zyx[1], grid.shape_zyx[2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = (phantom.hu[k].astype(np.int32) - INTERCEPT).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _rtstruct(phantom: Phantom, rois: tuple[Roi, ...], label: str) -> FileDataset:
    ds = _header(phantom, RTSTRUCT_CLASS, _uid(phantom, label), "RTSTRUCT", 2)
    ds.OperatorsName, ds.InstanceNumber = "", "1"
    ds.StructureSetLabel, ds.StructureSetName = "Phantom", phantom.name
    ds.StructureSetDate, ds.StructureSetTime, ds.ApprovalStatus = DATE, TIME, "UNAPPROVED"
    series = Dataset()
    series.SeriesInstanceUID = _uid(phantom, "series", "CT")
    series.ContourImageSequence = Sequence([_image(phantom, k) for k in range(phantom.grid.shape_zyx[0])])
    study = _reference(STUDY_CLASS, _uid(phantom, "study"))
    study.RTReferencedSeriesSequence = Sequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = _uid(phantom, "frame")
    frame.RTReferencedStudySequence = Sequence([study])
    ds.ReferencedFrameOfReferenceSequence = Sequence([frame])
    numbered = list(enumerate(rois, start=1))
    ds.StructureSetROISequence = Sequence([_roi_item(phantom, number, roi) for number, roi in numbered])
    ds.ROIContourSequence = Sequence([_contour_item(phantom, number, roi) for number, roi in numbered])
    ds.RTROIObservationsSequence = Sequence([_observation(number, roi) for number, roi in numbered])
    return ds


def _reference(sop_class: str, sop_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
    return item


def _image(phantom: Phantom, k: int) -> Dataset:
    return _reference(CT_CLASS, _uid(phantom, "ct", k))


def _roi_item(phantom: Phantom, number: int, roi: Roi) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ReferencedFrameOfReferenceUID = str(number), _uid(phantom, "frame")
    item.ROIName, item.ROIGenerationAlgorithm = roi.name, "MANUAL"
    return item


def _observation(number: int, roi: Roi) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = str(number)
    item.RTROIInterpretedType, item.ROIInterpreter = roi.interpreted_type, ""
    return item


def _contour_item(phantom: Phantom, number: int, roi: Roi) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = [str(c) for c in COLOURS[(number - 1) % len(COLOURS)]]
    contours = []
    for k in np.flatnonzero((roi.field < 0).any(axis=(1, 2))):
        z_text = _number(float(phantom.grid.z_mm()[k]))
        for points in outlines(roi.field[k], phantom.grid.x_mm(), phantom.grid.y_mm()):
            contour = Dataset()
            contour.ContourImageSequence = Sequence([_image(phantom, int(k))])
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", str(len(points))
            contour.ContourData = [text for px, py in points for text in (f"{px:.2f}", f"{py:.2f}", z_text)]
            contours.append(contour)
    item.ContourSequence, item.ReferencedROINumber = Sequence(contours), str(number)
    return item


def outlines(field: NDArray[np.float64], x_mm: NDArray[np.float64], y_mm: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Zero lines of a plane's field (ny, nx) as closed polygons (n, 2) mm, the first point not repeated; holes too."""
    lines = contourpy.contour_generator(x_mm, y_mm, field).lines(0.0)
    # An open line would mean that the structure runs out of the image.
    if any(not np.array_equal(line[0], line[-1]) for line in lines):
        raise ValueError("a structure touches the edge of the image")
    return [_simplified(np.asarray(line, dtype=np.float64)) for line in lines if len(line) > 3]


def _simplified(closed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fewer points, nowhere further than SIMPLIFY_MM from the line (Ramer, Douglas and Peucker)."""
    middle = len(closed) // 2
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, middle, -1]] = True
    pieces = [(0, middle), (middle, len(closed) - 1)]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        chord, offset = closed[last] - closed[first], closed[first + 1 : last] - closed[first]
        distance = np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0]) / np.hypot(*chord)
        furthest = int(distance.argmax())
        if distance[furthest] > SIMPLIFY_MM:
            split = first + 1 + furthest
            keep[split] = True
            pieces += [(first, split), (split, last)]
    return closed[keep][:-1]
