"""The items of an RTSTRUCT data set as plain values, before anything about them is believed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from rtplan.errors import CaseRejected

MAX_ROIS = 500
MAX_CONTOURS = 50_000
_CONTOUR_DATA = Tag(0x3006, 0x0050)
_NUMERIC_VRS = (None, "DS", "UN")  # long decimal strings do not fit an explicit DS and are written as UN


@dataclass(frozen=True, slots=True, eq=False)
class RawContour:
    """One item of a Contour Sequence. `data` is the undecoded text of the coordinates, `count` what the item claims."""

    geometric_type: str
    count: int | None
    data: bytes
    image_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RawRoi:
    """One region: its definition, its contours and its observation."""

    number: int
    name: str
    frame_of_reference_uid: str
    interpreted_type: str
    contours: tuple[RawContour, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RawStructureSet:
    """Everything of an RTSTRUCT file that the engine looks at."""

    sop_class_uid: str
    sop_instance_uid: str
    patient_id: str
    patient_birth_date: str
    frame_of_reference_uids: frozenset[str]
    series_uids: frozenset[str]
    image_uids: frozenset[str]
    rois: tuple[RawRoi, ...]
    orphan_contours: int  # contours of a region number that is not defined


def extract(dataset: Dataset) -> RawStructureSet:
    """Plain values of a data set. Raises CaseRejected SS_UNREADABLE, SS_TOO_LARGE, SS_NAME_AMBIGUOUS."""
    with warnings.catch_warnings():
        # What pydicom finds odd about a value either matters to a check of ours or does not matter.
        warnings.simplefilter("ignore")
        try:
            return _extract(dataset)
        except CaseRejected:
            raise
        except Exception as error:  # hostile bytes make pydicom raise anything, RecursionError included
            raise CaseRejected(
                "SS_UNREADABLE",
                f"the structure set cannot be parsed ({type(error).__name__})",
                "an intact RTSTRUCT file",
                "export the structure set again",
            ) from error


def _extract(dataset: Dataset) -> RawStructureSet:
    definitions = _items(dataset, "StructureSetROISequence", MAX_ROIS, "regions of interest")
    numbers = [int(item.ROINumber) for item in definitions]
    _require_once(numbers, "ROINumber (3006,0022)")
    contours = _contours_by_number(dataset)
    types = _types_by_number(dataset)
    frames, series, images = _references(dataset)
    rois = tuple(
        RawRoi(
            number,
            _text(item, "ROIName"),
            _text(item, "ReferencedFrameOfReferenceUID"),
            types.get(number, ""),
            contours.get(number, ()),
        )
        for number, item in zip(numbers, definitions, strict=True)
    )
    return RawStructureSet(
        _text(dataset, "SOPClassUID"),
        _text(dataset, "SOPInstanceUID"),
        _text(dataset, "PatientID"),
        _text(dataset, "PatientBirthDate"),
        frames,
        series,
        images,
        rois,
        sum(len(found) for number, found in contours.items() if number not in set(numbers)),
    )


def _items(dataset: Dataset, keyword: str, limit: int, what: str) -> Sequence[Dataset]:
    items = dataset.get(keyword)
    if items is None:
        raise CaseRejected(
            "SS_UNREADABLE", f"{keyword} is missing", "a complete RTSTRUCT file", "export the structure set again"
        )
    if len(items) > limit:
        raise CaseRejected("SS_TOO_LARGE", f"{len(items)} {what}", f"at most {limit}", "export only what the plan needs")
    found: Sequence[Dataset] = items
    return found


def _require_once(numbers: list[int], what: str) -> None:
    twice = sorted({n for n in numbers if numbers.count(n) > 1})
    if twice:
        raise CaseRejected(
            "SS_NAME_AMBIGUOUS",
            f"{what} {twice[0]} stands for more than one region",
            "one region a number",
            "export the structure set again",
        )


def _contours_by_number(dataset: Dataset) -> dict[int, tuple[RawContour, ...]]:
    items = _items(dataset, "ROIContourSequence", MAX_ROIS, "regions of interest")
    _require_once([int(item.ReferencedROINumber) for item in items], "Referenced ROI Number (3006,0084)")
    found: dict[int, tuple[RawContour, ...]] = {}
    total = 0
    for item in items:
        sequence = item.get("ContourSequence") or ()
        total += len(sequence)
        if total > MAX_CONTOURS:
            raise CaseRejected(
                "SS_TOO_LARGE", f"more than {MAX_CONTOURS} contours", remedy="export only what the plan needs"
            )
        found[int(item.ReferencedROINumber)] = tuple(_contour(c) for c in sequence)
    return found


def _contour(item: Dataset) -> RawContour:
    count = item.get("NumberOfContourPoints")
    images = tuple(_text(i, "ReferencedSOPInstanceUID") for i in item.get("ContourImageSequence") or ())
    raw = item.get_item(_CONTOUR_DATA)
    data = b""
    if raw is not None and raw.value is not None:
        if not isinstance(raw, RawDataElement) or raw.VR not in _NUMERIC_VRS:
            raise CaseRejected(
                "SS_GEOMETRY_INVALID", "ContourData (3006,0050) is no decimal string", "value representation DS"
            )
        data = raw.value or b""
        if len(data) != raw.length:
            raise CaseRejected(
                "SS_UNREADABLE", "ContourData (3006,0050) is cut off", remedy="export the structure set again"
            )
    return RawContour(_text(item, "ContourGeometricType"), None if count is None else int(count), data, images)


def _types_by_number(dataset: Dataset) -> dict[int, str]:
    found: dict[int, str] = {}
    for item in _items(dataset, "RTROIObservationsSequence", 2 * MAX_ROIS, "observations"):
        number, kind = int(item.ReferencedROINumber), _text(item, "RTROIInterpretedType").upper()
        if found.setdefault(number, kind) != kind:
            raise CaseRejected(
                "SS_NAME_AMBIGUOUS",
                f"region number {number} is observed as {found[number] or 'nothing'} and as {kind or 'nothing'}",
                "one RTROIInterpretedType (3006,00A4) a region",
                "correct the structure set",
            )
    return found


def _references(dataset: Dataset) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Frame of reference, series and image UIDs that the structure set says it was drawn on."""
    frames, series, images = {_text(dataset, "FrameOfReferenceUID")}, set(), set()
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        frames.add(_text(frame, "FrameOfReferenceUID"))
        for study in frame.get("RTReferencedStudySequence") or ():
            for referenced in study.get("RTReferencedSeriesSequence") or ():
                series.add(_text(referenced, "SeriesInstanceUID"))
                found = [_text(i, "ReferencedSOPInstanceUID") for i in referenced.get("ContourImageSequence") or ()]
                images.update(found)
    return frozenset(frames - {""}), frozenset(series - {""}), frozenset(images - {""})


def _text(item: Dataset, keyword: str) -> str:
    """Text of a tag without padding; a backslash in a name splits a value, and is put back."""
    value = item.get(keyword)
    if value is None:
        return ""
    return ("\\".join(str(v) for v in value) if isinstance(value, MultiValue) else str(value)).strip(" \0")
