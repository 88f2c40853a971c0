"""Writes the structures that a plan was made on as an RTSTRUCT."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from rtplan.dicom.header import base_dataset, cut, decimal, dicom_date, dicom_time, reference, save_dataset
from rtplan.dicom.outlines import outlines
from rtplan.dicom.uids import OutputIds
from rtplan.domain.image import CtImage
from rtplan.domain.structures import Contour, Structure, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import SafetyStop

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired, yet what the attribute asks for
_DECIMALS = 4
_MAX_TEXT = 1024  # characters of a DICOM short text
_CONTOUR_DATA = Tag(0x3006, 0x0050)
_COLOURS = {
    "EXTERNAL": (0, 255, 0),
    "PTV": (230, 0, 0),
    "CTV": (255, 140, 0),
    "GTV": (255, 220, 0),
    "SUPPORT": (140, 140, 140),
    "CONTROL": (170, 170, 255),
    "AVOIDANCE": (150, 0, 200),
}
_ORGAN_COLOURS = ((0, 170, 80), (255, 255, 0), (80, 80, 255), (255, 80, 180), (0, 255, 255), (255, 165, 0), (120, 200, 255))


def write_rtstruct(
    path: Path, structures: StructureSet, ct: CtImage, ids: OutputIds, findings: Iterable[Finding] = ()
) -> None:
    """Write all structures that are not empty, unapproved, with contours that give back their masks exactly.

    The description names the models that drew, what they drew, and the codes of `findings` that hold the case.
    Implicit VR little endian, because coordinates of a long contour do not fit an explicit decimal string. Raises
    SafetyStop STRUCTURE_GRID when the structures do not lie on the CT's grid, OSError when the file cannot be written.
    """
    if structures.grid != ct.grid:
        raise SafetyStop("STRUCTURE_GRID", "the structures lie on another grid than the CT", "masks on the CT's voxels")
    dataset = base_dataset(
        RTSTRUCT_CLASS,
        ids.structure_set_uid,
        modality="RTSTRUCT",
        series_uid=ids.structure_set_series_uid,
        ct=ct,
        created=ids.created,
        series_description="rtplan contours, proposal, not approved",
        series_number=1,
    )
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.InstanceNumber = 1
    dataset.StructureSetLabel = "RTPLAN PROPOSAL"
    dataset.StructureSetName = "rtplan proposal, not approved"
    dataset.StructureSetDescription = _description(structures, findings)
    dataset.StructureSetDate, dataset.StructureSetTime = dicom_date(ids.created), dicom_time(ids.created)
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = Sequence([_frame_of_reference(ct)])
    written = [(number, s) for number, s in enumerate((s for s in structures if s.mask.any()), start=1)]
    dataset.StructureSetROISequence = Sequence(_definition(number, s, ct) for number, s in written)
    dataset.ROIContourSequence = Sequence(_contours(number, s, ct) for number, s in written)
    dataset.RTROIObservationsSequence = Sequence(_observation(number, s) for number, s in written)
    save_dataset(dataset, path)


def _description(structures: StructureSet, findings: Iterable[Finding]) -> str:
    """The watermark, what each model drew, and what holds the case."""
    drawn: dict[str, list[str]] = {}
    for s in structures:
        if s.drawn_by is not None:
            drawn.setdefault(f"{s.drawn_by.model_id} {s.drawn_by.version}", []).append(s.name)
    text = "AUTO-GENERATED - NOT APPROVED - a person has to look at every contour."
    held = sorted({f.code for f in findings if f.severity == "hold"})
    text += f" HELD: {', '.join(held)}." if held else ""
    text += "".join(f" Drawn by the model {model}: {', '.join(names)}." for model, names in drawn.items())
    return cut(_plain(text), _MAX_TEXT)


def _frame_of_reference(ct: CtImage) -> Dataset:
    """The CT's frame of reference, study, series and every image of it."""
    series = Dataset()
    series.SeriesInstanceUID = ct.series.series_instance_uid
    series.ContourImageSequence = Sequence(reference(ct.series.sop_class_uid, uid) for uid in ct.series.sop_instance_uids)
    study = reference(_STUDY_CLASS, ct.series.study_instance_uid)
    study.RTReferencedSeriesSequence = Sequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = ct.series.frame_of_reference_uid
    frame.RTReferencedStudySequence = Sequence([study])
    return frame


def _definition(number: int, structure: Structure, ct: CtImage) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = ct.series.frame_of_reference_uid
    item.ROIName = structure.name
    if structure.source_name and structure.source_name != structure.name:
        item.ROIDescription = _plain(f"from {structure.source_name}")
    item.ROIGenerationAlgorithm = "" if structure.origin == "physician" else "AUTOMATIC"
    if structure.drawn_by is not None:
        drawn = structure.drawn_by
        text = f"proposal, not approved; drawn by the model {drawn.model_id} {drawn.version}"
        item.ROIDescription = _plain(f"{text}; confidence {drawn.confidence:.2f}")
        item.ROIGenerationDescription = cut(_plain(f"{drawn.model_id} {drawn.version}"), 64)
    return item


def _plain(text: str) -> str:
    """Text that fits a DICOM short text and splits into no values."""
    return "".join(c for c in text if c.isprintable()).replace("\\", "/")[:_MAX_TEXT]


def _contours(number: int, structure: Structure, ct: CtImage) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(_COLOURS.get(structure.kind, _ORGAN_COLOURS[number % len(_ORGAN_COLOURS)]))
    item.ContourSequence = Sequence(_contour(c, ct) for c in outlines(structure.mask, ct.grid))
    item.ReferencedROINumber = number
    return item


def _contour(contour: Contour, ct: CtImage) -> Dataset:
    index = round((contour.z_mm - ct.grid.origin_xyz_mm[2]) / ct.grid.spacing_zyx_mm[0])
    item = Dataset()
    item.ContourImageSequence = Sequence([reference(ct.series.sop_class_uid, ct.series.sop_instance_uids[index])])
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(contour.points_xy_mm)
    text = _coordinates(contour).encode("ascii")
    text += b" " * (len(text) % 2)
    # As bytes, because pydicom would make an object of every single number: a large patient has millions.
    item[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)
    return item


def _coordinates(contour: Contour) -> str:
    """x, y, z of every point as decimal strings joined by backslashes."""
    z = decimal(contour.z_mm, _DECIMALS)
    rounded = np.round(contour.points_xy_mm, _DECIMALS) + 0.0
    return "\\".join(f"{_short(x)}\\{_short(y)}\\{z}" for x, y in rounded.tolist())


def _short(value: float) -> str:
    """A rounded coordinate without trailing zeros; below a hundred metres it fits the 16 characters of a DS."""
    return f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def _observation(number: int, structure: Structure) -> Dataset:
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = number
    item.RTROIInterpretedType = structure.kind
    item.ROIInterpreter = ""
    return item
