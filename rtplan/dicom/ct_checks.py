"""What a CT series must be before it is read as one volume. Each check names the slice and the tag at fault."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from rtplan.dicom import tags
from rtplan.dicom.ct_slice import NATIVE_SYNTAXES, READABLE_SYNTAXES, CtSlice
from rtplan.dicom.scan import UNDEFINED_LENGTH, DicomFile
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
RT_AND_DOCUMENT_MODALITIES = frozenset(
    {"RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "SEG", "SR", "PR", "KO", "DOC", "PLAN"}
)
LOSSY_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"})
HEAD_FIRST_SUPINE = "HFS"
MAX_MATRIX = 4096
MAX_VOXELS = 1 << 30
AGAIN = "export the whole series again"


def pick_ct_files(files: Sequence[DicomFile]) -> tuple[list[DicomFile], list[Finding]]:
    """The axial CT image files among all DICOM files of a folder.

    RT objects and documents are passed over; localizers and images of other modalities are left out with a finding.
    Raises NO_CT_FOUND, MODALITY_UNSUPPORTED, SOPCLASS_MISMATCH, SOPCLASS_UNSUPPORTED.
    """
    picked, localizers, others = [], [], []
    for file in files:
        modality, sop_class = tags.text(file, "Modality"), tags.uid(file, "SOPClassUID")
        if modality in RT_AND_DOCUMENT_MODALITIES:
            continue
        if sop_class in ENHANCED_CT_CLASSES:
            raise CaseRejected(
                "SOPCLASS_UNSUPPORTED",
                f"{file.name} is an enhanced (multi-frame) CT",
                "CT Image Storage, one slice a file",
                "export as classic CT images",
            )
        if (modality == "CT") != (sop_class == CT_CLASS) or (sop_class == CT_CLASS) != (file.media_sop_class == CT_CLASS):
            raise CaseRejected(
                "SOPCLASS_MISMATCH",
                f"{file.name}: Modality (0008,0060) {modality or 'empty'}, SOPClassUID (0008,0016) {sop_class or 'empty'}",
                f"Modality CT with {CT_CLASS}",
                "leave screenshots and secondary captures out of the export",
            )
        if modality != "CT":
            others.append((file, modality))
        elif "LOCALIZER" in tags.codes(file, "ImageType"):
            localizers.append(file)
        else:
            picked.append(file)
    if not picked:
        _reject_without_ct(others)
    _require_other_series(picked, others)
    findings = []
    if localizers:
        findings.append(
            Finding("LOCALIZER_DROPPED", "flag", f"{len(localizers)} localizer image(s) left out: {localizers[0].name}")
        )
    if others:
        names = sorted({m or "no modality" for _, m in others})
        findings.append(Finding("OTHER_IMAGES_IGNORED", "flag", f"{len(others)} image(s) of {', '.join(names)} left out"))
    return picked, findings


def _reject_without_ct(others: Sequence[tuple[DicomFile, str]]) -> None:
    remedy = "name the folder of the planning CT"
    if others:
        file, modality = others[0]
        raise CaseRejected("MODALITY_UNSUPPORTED", f"{file.name} is of modality {modality or 'none'}", "modality CT", remedy)
    raise CaseRejected("NO_CT_FOUND", "no CT image in the folder", "one axial CT series", remedy)


def _require_other_series(picked: Sequence[DicomFile], others: Sequence[tuple[DicomFile, str]]) -> None:
    series = {tags.uid(file, "SeriesInstanceUID") for file in picked}
    for file, modality in others:
        if tags.uid(file, "SeriesInstanceUID") in series:
            raise CaseRejected(
                "MODALITY_UNSUPPORTED",
                f"{file.name} of the CT series is of modality {modality or 'none'}",
                "modality CT",
                AGAIN,
            )


def drop_duplicates(slices: Sequence[CtSlice]) -> tuple[list[CtSlice], list[Finding]]:
    """Slices with each SOP instance once. Raises UID_CONFLICT when one UID has two contents, UID_INVALID when it lacks."""
    kept: dict[str, CtSlice] = {}
    dropped = []
    for s in slices:
        if not s.sop_instance_uid:
            raise CaseRejected("UID_INVALID", f"{s.place} has no SOPInstanceUID (0008,0018)", "a unique identifier", AGAIN)
        first = kept.setdefault(s.sop_instance_uid, s)
        if first is s:
            continue
        if _file_digest(first) != _file_digest(s):
            raise CaseRejected(
                "UID_CONFLICT",
                f"{s.place} and file {first.file.name} carry the same SOPInstanceUID (0008,0018) but differ",
                "one content per UID",
                "find out which of the two is right and send only that",
            )
        dropped.append(s.file.name)
    if not dropped:
        return list(kept.values()), []
    message = f"{len(dropped)} exact duplicate file(s) ignored: {', '.join(dropped[:5])}"
    return list(kept.values()), [Finding("DUPLICATE_IGNORED", "info", message)]


def _file_digest(s: CtSlice) -> str:
    with s.file.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_identity(slices: Sequence[CtSlice]) -> list[Finding]:
    """One patient, study, series and frame of reference.

    Raises PATIENT_ID_MISSING, PATIENT_MIXED, PATIENT_IDENTITY_CONFLICT, SERIES_AMBIGUOUS, STUDY_MIXED, FOR_MIXED,
    FOR_MISSING.
    """
    for s in slices:
        if not s.patient.patient_id:
            raise CaseRejected(
                "PATIENT_ID_MISSING", f"{s.place} has no PatientID (0010,0020)", "a patient identifier", AGAIN
            )
        if not s.series_instance_uid or not s.study_instance_uid:
            raise CaseRejected(
                "UID_INVALID", f"{s.place} lacks SeriesInstanceUID (0020,000E) or StudyInstanceUID (0020,000D)", remedy=AGAIN
            )
    wrong = "check at the scanner whose images these are; then export one patient alone"
    _all_same(slices, lambda s: s.patient.patient_id, "PATIENT_MIXED", "PatientID (0010,0020)", wrong)
    person = "PatientName (0010,0010), PatientBirthDate (0010,0030) or PatientSex (0010,0040)"
    _all_same(slices, _person, "PATIENT_IDENTITY_CONFLICT", person, wrong)
    one_series = "name the folder of one series"
    _all_same(slices, lambda s: s.series_instance_uid, "SERIES_AMBIGUOUS", "SeriesInstanceUID (0020,000E)", one_series)
    _all_same(slices, lambda s: s.study_instance_uid, "STUDY_MIXED", "StudyInstanceUID (0020,000D)", AGAIN)
    for s in slices:
        if not s.frame_of_reference_uid:
            raise CaseRejected("FOR_MISSING", f"{s.place} has no FrameOfReferenceUID (0020,0052)", remedy=AGAIN)
    _all_same(slices, lambda s: s.frame_of_reference_uid, "FOR_MIXED", "FrameOfReferenceUID (0020,0052)", AGAIN)
    return []


def _person(s: CtSlice) -> tuple[str, str, str]:
    # Trailing carets, case and doubled blanks differ between systems without meaning another person.
    name = " ".join(s.patient.name.upper().rstrip("^= ").split())
    return name, s.patient.birth_date, s.patient.sex


def _all_same(slices: Sequence[CtSlice], key: Callable[[CtSlice], Hashable], code: str, what: str, remedy: str) -> None:
    """Values themselves stay out of the message: they may identify a person."""
    counts = Counter(key(s) for s in slices)
    if len(counts) == 1:
        return
    usual = min(counts, key=lambda value: (-counts[value], repr(value)))
    odd = [s for s in slices if key(s) != usual]
    raise CaseRejected(
        code, f"{odd[0].place} differs from the other slices in {what} ({len(odd)} such)", f"one {what}", remedy
    )


def check_pixels(slices: Sequence[CtSlice]) -> list[Finding]:
    """Pixels can be read whole and mean HU.

    Raises TRANSFER_SYNTAX_UNSUPPORTED, CT_LOSSY, SOPCLASS_UNSUPPORTED, PHOTOMETRIC, BITDEPTH, GEOMETRY_INVALID,
    CT_MATRIX_MIXED, PIXELDATA_TRUNCATED, PIXELDATA_EXCESS, RESCALE_MISSING, RESCALE_INVALID, HU_UNITS, CT_TOO_LARGE.
    """
    for s in slices:
        _check_encoding(s)
        _check_rescale(s)
    matrix = "Rows (0028,0010) x Columns (0028,0011)"
    _all_same(slices, lambda s: (s.rows, s.columns), "CT_MATRIX_MIXED", matrix, AGAIN)
    for s in slices:
        _check_pixel_length(s)
    if len(slices) * int(slices[0].rows or 0) * int(slices[0].columns or 0) > MAX_VOXELS:
        raise CaseRejected(
            "CT_TOO_LARGE", f"{len(slices)} slices hold more than {MAX_VOXELS} voxels", remedy="crop or reconstruct coarser"
        )
    if len({(s.slope, s.intercept) for s in slices}) > 1:
        return [
            Finding(
                "RESCALE_VARIES", "flag", "RescaleSlope or RescaleIntercept differs between slices; applied slice by slice"
            )
        ]
    return []


def _check_encoding(s: CtSlice) -> None:
    syntax = s.file.transfer_syntax
    if s.lossy or syntax in LOSSY_SYNTAXES:
        raise CaseRejected("CT_LOSSY", f"{s.place} was compressed with loss", "lossless CT", "export the original images")
    if syntax not in READABLE_SYNTAXES:
        raise CaseRejected(
            "TRANSFER_SYNTAX_UNSUPPORTED",
            f"{s.place}: TransferSyntaxUID (0002,0010) {syntax} is compressed",
            "uncompressed or RLE",
            "export as Explicit VR Little Endian (dcmdjpeg or gdcmconv --raw decompress)",
        )
    if s.frames != 1:
        raise CaseRejected(
            "SOPCLASS_UNSUPPORTED", f"{s.place} holds {s.frames} frames", "one slice a file", "export as classic CT"
        )
    if s.samples not in (None, 1) or s.photometric != "MONOCHROME2":
        found = f"{s.place}: PhotometricInterpretation (0028,0004) {s.photometric or 'missing'}, {s.samples} sample(s)"
        raise CaseRejected("PHOTOMETRIC", found, "MONOCHROME2, 1 sample", AGAIN)
    stored = s.bits_stored or 0
    if s.bits_allocated != 16 or not 8 <= stored <= 16 or s.high_bit != stored - 1 or s.signed is None:
        found = (
            f"{s.place}: BitsAllocated/BitsStored/HighBit (0028,0100-0102) {s.bits_allocated}/{s.bits_stored}/{s.high_bit}"
        )
        raise CaseRejected(
            "BITDEPTH", found, "16 allocated, high bit = stored - 1, PixelRepresentation (0028,0103) present", AGAIN
        )
    if not (1 < (s.rows or 0) <= MAX_MATRIX and 1 < (s.columns or 0) <= MAX_MATRIX):
        found = f"{s.place}: Rows x Columns (0028,0010-0011) {s.rows} x {s.columns}"
        raise CaseRejected("GEOMETRY_INVALID", found, f"2 to {MAX_MATRIX} each", AGAIN)


def _check_rescale(s: CtSlice) -> None:
    if s.slope is None or s.intercept is None:
        # Raw numbers taken for HU would give a wrong dose that looks right.
        missing = tags.tag_label("RescaleSlope" if s.slope is None else "RescaleIntercept")
        raise CaseRejected("RESCALE_MISSING", f"{s.place} has no {missing}", "slope and intercept to HU", AGAIN)
    if not (np.isfinite(s.slope) and np.isfinite(s.intercept) and 0 < s.slope < 100 and abs(s.intercept) < 40_000):
        found = f"{s.place}: RescaleSlope (0028,1053) {s.slope:g}, RescaleIntercept (0028,1052) {s.intercept:g}"
        raise CaseRejected("RESCALE_INVALID", found, "a positive slope and a finite intercept", AGAIN)
    if s.rescale_type not in ("", "HU"):
        raise CaseRejected(
            "HU_UNITS", f"{s.place}: RescaleType (0028,1054) {s.rescale_type}", "HU", "export the HU reconstruction"
        )


def _check_pixel_length(s: CtSlice) -> None:
    expected = int(s.rows or 0) * int(s.columns or 0) * 2
    length, left = s.file.pixel_length, s.file.size - s.file.pixel_offset
    native = s.file.transfer_syntax in NATIVE_SYNTAXES
    if (
        s.file.pixel_offset < 0
        or (native and min(length, left) < expected)
        or (length != UNDEFINED_LENGTH and length > left)
    ):
        has = 0 if s.file.pixel_offset < 0 else min(length, left)
        found = f"{s.place}: PixelData (7FE0,0010) holds {has} of {expected} bytes"
        raise CaseRejected("PIXELDATA_TRUNCATED", found, f"{expected} bytes", "send the file again")
    if native and length > expected + 1:
        found = f"{s.place}: PixelData (7FE0,0010) holds {length} bytes, {length - expected} too many"
        raise CaseRejected("PIXELDATA_EXCESS", found, f"{expected} bytes", AGAIN)


def check_provenance(slices: Sequence[CtSlice]) -> list[Finding]:
    """Findings on how the images were made: derived images, mixed reconstructions."""
    findings = []
    projected = [s for s in slices if {"MIP", "MINIP", "AVERAGE", "MEAN", "MAX", "MIN"} & set(s.image_type)]
    derived = [s for s in slices if s.image_type[:1] == ("DERIVED",)]
    if projected:
        findings.append(
            Finding("CT_PROJECTED", "hold", f"{projected[0].place} is a projection or average of several images")
        )
    elif derived:
        message = f"{len(derived)} slice(s) are DERIVED by ImageType (0008,0008), not as the scanner made them"
        findings.append(Finding("CT_DERIVED", "flag", message))
    if len({(s.kvp, s.kernel) for s in slices}) > 1:
        message = "KVP (0018,0060) or ConvolutionKernel (0018,1210) differs between slices"
        findings.append(Finding("SERIES_HETEROGENEOUS", "hold", message))
    return findings
