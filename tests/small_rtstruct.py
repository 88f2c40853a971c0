"""Builds a small CT and RTSTRUCT files drawn on it, to be changed in one thing each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from rtplan.domain.case import Patient, SeriesReference
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
GRID = Grid((14, 60, 64), (3.0, 2.0, 2.0), (-63.0, -59.0, -20.0))
Points = list[tuple[float, float]]
Edit = Callable[[Dataset], object]


def small_ct(grid: Grid = GRID) -> CtImage:
    uids = tuple(f"1.2.826.88.1.{k + 1}" for k in range(grid.shape_zyx[0]))
    patient = Patient("PAT-8", "Test^Case", "19600102", "F")
    series = SeriesReference(
        patient, "1.2.826.88.2", "1.2.826.88.3", "1.2.826.88.4", CT_CLASS, uids, "20240102", "101112", "S1"
    )
    return CtImage(grid, np.zeros(grid.shape_zyx, np.int16), series, "HFS", "0" * 64)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


@dataclass
class Roi:
    """A region: polygons by slice index, an interpreted type, a contour type."""

    name: str
    kind: str
    polygons: Mapping[int, list[Points]]
    geometric_type: str = "CLOSED_PLANAR"
    z_offset_mm: float = 0.0


def block(name: str, kind: str, corners: tuple[float, float, float, float], slices: Iterable[int]) -> Roi:
    return Roi(name, kind, {k: [rectangle(*corners)] for k in slices})


BODY = block("BODY", "EXTERNAL", (-50, -50, 50, 50), range(14))
TARGET = block("PTV70", "PTV", (-11, -11, 11, 11), range(4, 10))
CORD = block("SpinalCord", "ORGAN", (-6, 22, 6, 34), range(14))


@dataclass
class Drawing:
    """What is drawn; `edit` changes the data set before it is written."""

    rois: list[Roi] = field(default_factory=lambda: [BODY, TARGET, CORD])
    edit: Edit | None = None


def rtstruct_dataset(ct: CtImage, rois: list[Roi]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTSTRUCT_CLASS, "1.2.826.88.9"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTSTRUCT_CLASS, "1.2.826.88.9", "RTSTRUCT"
    ds.PatientID, ds.PatientName = ct.series.patient.patient_id, ct.series.patient.name
    ds.PatientBirthDate, ds.PatientSex = ct.series.patient.birth_date, ct.series.patient.sex
    ds.StudyInstanceUID, ds.SeriesInstanceUID = ct.series.study_instance_uid, "1.2.826.88.8"
    ds.StructureSetLabel, ds.ApprovalStatus = "Test", "UNAPPROVED"
    ds.FrameOfReferenceUID = ct.series.frame_of_reference_uid
    ds.ReferencedFrameOfReferenceSequence = Sequence([_frame(ct)])
    ds.StructureSetROISequence = Sequence(_definition(n, r, ct) for n, r in enumerate(rois, 1))
    ds.ROIContourSequence = Sequence(_contours(n, r, ct) for n, r in enumerate(rois, 1))
    ds.RTROIObservationsSequence = Sequence(_observation(n, r) for n, r in enumerate(rois, 1))
    return ds


def write_drawing(path: Path, ct: CtImage, drawing: Drawing | None = None) -> Path:
    drawing = drawing or Drawing()
    with config.disable_value_validation():
        ds = rtstruct_dataset(ct, drawing.rois)
        if drawing.edit is not None:
            drawing.edit(ds)
        ds.save_as(path, enforce_file_format=True)
    return path


def _frame(ct: CtImage) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = ct.series.series_instance_uid
    series.ContourImageSequence = Sequence(_image(uid) for uid in ct.series.sop_instance_uids)
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", ct.series.study_instance_uid
    study.RTReferencedSeriesSequence = Sequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = ct.series.frame_of_reference_uid
    frame.RTReferencedStudySequence = Sequence([study])
    return frame


def _image(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_CLASS, uid
    return item


def _definition(number: int, roi: Roi, ct: CtImage) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName, item.ROIGenerationAlgorithm = number, roi.name, ""
    item.ReferencedFrameOfReferenceUID = ct.series.frame_of_reference_uid
    return item


def _contours(number: int, roi: Roi, ct: CtImage) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    contours = []
    for k, polygons in roi.polygons.items():
        for polygon in polygons:
            c = Dataset()
            c.ContourImageSequence = Sequence([_image(ct.series.sop_instance_uids[k])])
            c.ContourGeometricType, c.NumberOfContourPoints = roi.geometric_type, len(polygon)
            z = ct.grid.z_mm()[k] + roi.z_offset_mm
            c.ContourData = [f"{v:g}" for x, y in polygon for v in (x, y, z)]
            contours.append(c)
    item.ContourSequence = Sequence(contours)
    return item


def _observation(number: int, roi: Roi) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIInterpretedType, item.ROIInterpreter = roi.kind, ""
    return item
