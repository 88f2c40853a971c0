"""Reads a physician's structure set and refuses what could be planned on wrongly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydicom.datadict import tag_for_keyword

from rtplan.dicom.rtstruct_contours import MAX_POINTS, read_roi
from rtplan.dicom.rtstruct_items import RawStructureSet, extract
from rtplan.dicom.scan import has_dicom_prefix, read_header
from rtplan.domain.image import CtImage
from rtplan.domain.roi_names import comparable, is_target_roi, printable
from rtplan.domain.structures import ContourSet, RoiContours
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
MAX_FILE_BYTES = 1 << 28
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "PatientID",
    "PatientBirthDate",
    "FrameOfReferenceUID",
    "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
    "ROIContourSequence",
    "RTROIObservationsSequence",
)


def read_rtstruct(path: Path, ct: CtImage) -> ContourSet:
    """The regions of an RTSTRUCT file with contours that lie on the slices of `ct`.

    Raises CaseRejected with the codes of docs/structures.md; what is left out or odd but harmless becomes a finding.
    """
    data = _guarded_bytes(path)
    tags = [tag for tag in (tag_for_keyword(k) for k in _KEYWORDS) if tag is not None]
    file = read_header(path, path.name, tags)
    if file.media_sop_class != RTSTRUCT_CLASS:
        raise _not_rtstruct(path)
    raw = extract(file.tags)
    if raw.sop_class_uid != RTSTRUCT_CLASS:
        raise _not_rtstruct(path)
    findings = [*_check_patient(raw, ct), *_check_references(raw, ct)]
    slice_of_image = {uid: index for index, uid in enumerate(ct.series.sop_instance_uids)}
    rois = []
    points = 0
    for item in raw.rois:
        roi, found = read_roi(item, ct.grid, slice_of_image)
        points += sum(len(c.points_xy_mm) for c in roi.contours)
        if points > MAX_POINTS:
            raise CaseRejected("SS_TOO_LARGE", f"more than {MAX_POINTS} points", remedy="export only what the plan needs")
        rois.append(roi)
        findings += found
    findings += _check_names(rois)
    if raw.orphan_contours:
        findings.append(
            Finding("SS_ORPHAN_CONTOURS", "flag", f"{raw.orphan_contours} contour(s) of an undefined region left out")
        )
    digest = hashlib.sha256(data).hexdigest()
    return ContourSet(raw.sop_instance_uid, ct.series.frame_of_reference_uid, tuple(rois), digest, tuple(findings))


def _guarded_bytes(path: Path) -> bytes:
    """Bytes of a file that is small enough and starts as a DICOM file."""
    if not has_dicom_prefix(path, path.name):
        raise CaseRejected(
            "SS_UNREADABLE",
            f"{path.name} is no DICOM file",
            "128-byte preamble and DICM",
            "name the RTSTRUCT file of the patient",
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise CaseRejected("SS_TOO_LARGE", f"{path.name} has {path.stat().st_size} bytes", f"at most {MAX_FILE_BYTES}")
    return path.read_bytes()


def _not_rtstruct(path: Path) -> CaseRejected:
    return CaseRejected(
        "SS_NOT_RTSTRUCT",
        f"{path.name} is a DICOM object of another kind",
        "SOPClassUID (0008,0016) RT Structure Set Storage",
        "name the RTSTRUCT file of the patient",
    )


def _check_patient(raw: RawStructureSet, ct: CtImage) -> list[Finding]:
    # The identifiers themselves stay out of messages, which reach logs.
    if raw.patient_id != ct.series.patient.patient_id.strip():
        raise CaseRejected(
            "PATIENT_MISMATCH",
            "PatientID (0010,0020) of the structure set is not that of the CT",
            "one patient",
            "check that both were exported for the same patient",
        )
    birth = ct.series.patient.birth_date.strip()
    if raw.patient_birth_date and birth and raw.patient_birth_date != birth:
        text = "PatientBirthDate (0010,0030) differs between CT and structure set although PatientID is equal"
        return [Finding("PATIENT_IDENTITY_CONFLICT", "hold", text)]
    return []


def _check_references(raw: RawStructureSet, ct: CtImage) -> list[Finding]:
    """The structure set must have been drawn in this frame of reference, and on this series if it names one."""
    frames = raw.frame_of_reference_uids | {r.frame_of_reference_uid for r in raw.rois if r.contours} - {""}
    if frames != {ct.series.frame_of_reference_uid}:
        found = (
            "no FrameOfReferenceUID (0020,0052)" if not frames else "another FrameOfReferenceUID (0020,0052) than the CT's"
        )
        raise CaseRejected(
            "FOR_MISMATCH",
            f"the structure set has {found}",
            "contours in the frame of reference of the CT",
            "export the structure set that was drawn on this CT",
        )
    known = set(ct.series.sop_instance_uids)
    if raw.series_uids and ct.series.series_instance_uid not in raw.series_uids:
        raise _wrong_images(
            "it refers to another series: SeriesInstanceUID (0020,000E) of the CT is not among its references"
        )
    if len(raw.series_uids) == 1 and raw.image_uids - known:
        raise _wrong_images(f"it refers to {len(raw.image_uids - known)} image(s) that are not in the CT given")
    if not raw.series_uids and not any(c.image_uids for r in raw.rois for c in r.contours):
        text = "the structure set names no images; only frame of reference, patient and slice positions tie it to the CT"
        return [Finding("REF_IMAGE_ABSENT", "flag", text)]
    return []


def _wrong_images(found: str) -> CaseRejected:
    return CaseRejected(
        "REF_IMAGE_MISMATCH",
        found,
        "references to this CT series",
        "export the CT together with the structure set drawn on it",
    )


def _check_names(rois: Sequence[RoiContours]) -> list[Finding]:
    """Two targets or bodies of one name are refused; other regions that share a name are reported."""
    findings = []
    groups: dict[str, list[RoiContours]] = {}
    for roi in rois:
        if roi.contours:
            groups.setdefault(comparable(roi.name), []).append(roi)
    for group in groups.values():
        if len(group) < 2:
            continue
        names = ", ".join(f'"{printable(r.name)}" (number {r.number})' for r in group)
        if any(is_target_roi(r.name, r.interpreted_type) or r.interpreted_type == "EXTERNAL" for r in group):
            raise CaseRejected(
                "SS_NAME_AMBIGUOUS",
                f"regions that differ in case or spaces at most: {names}",
                "one target or body of a name",
                "rename or delete all but one",
            )
        findings.append(Finding("SS_NAME_REPEATED", "flag", f"regions that differ in case or spaces at most: {names}"))
    return findings
