"""One CT slice as its header states it, and its voxels in Hounsfield units."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from rtplan.dicom import tags
from rtplan.dicom.scan import UNDEFINED_LENGTH, DicomFile
from rtplan.domain.case import Patient
from rtplan.errors import CaseRejected

NATIVE_SYNTAXES = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
READABLE_SYNTAXES = NATIVE_SYNTAXES | {RLELossless}

KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "StudyInstanceUID", "SeriesInstanceUID"),
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "GantryDetectorTilt"),
    *("SliceThickness", "SpacingBetweenSlices", "PatientPosition", "FrameOfReferenceUID", "PositionReferenceIndicator"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("LossyImageCompression", "SpecificCharacterSet"),
)


@dataclass(frozen=True, slots=True, eq=False)
class CtSlice:
    """Header of one CT slice. None, "" or () means that the tag is absent; nothing is judged yet."""

    file: DicomFile
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    patient: Patient
    patient_position: str
    image_type: tuple[str, ...]
    orientation: tuple[float, ...]
    position_xyz_mm: tuple[float, ...]
    pixel_spacing_yx_mm: tuple[float, ...]
    rows: int | None
    columns: int | None
    frames: int
    samples: int | None
    photometric: str
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    signed: bool | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    padding: tuple[int, int] | None  # stored values, inclusive
    lossy: bool
    thickness_mm: float | None
    spacing_between_mm: float | None
    tilt_deg: float | None
    kvp: str
    kernel: str

    @property
    def z_mm(self) -> float:
        """Third coordinate of the slice position, NaN when absent."""
        return self.position_xyz_mm[2] if len(self.position_xyz_mm) == 3 else float("nan")

    @property
    def place(self) -> str:
        """Where the slice is, for messages."""
        return f"slice at z = {self.z_mm:g} mm (file {self.file.name})"


def parse_slice(file: DicomFile) -> CtSlice:
    """Decode the header of a CT slice. Raises VR_INVALID and UID_INVALID."""
    signed = tags.whole(file, "PixelRepresentation")
    padding = tags.whole(file, "PixelPaddingValue", signed=bool(signed))
    limit = tags.whole(file, "PixelPaddingRangeLimit", signed=bool(signed))
    return CtSlice(
        file=file,
        sop_class_uid=tags.uid(file, "SOPClassUID"),
        sop_instance_uid=tags.uid(file, "SOPInstanceUID"),
        study_instance_uid=tags.uid(file, "StudyInstanceUID"),
        series_instance_uid=tags.uid(file, "SeriesInstanceUID"),
        frame_of_reference_uid=tags.uid(file, "FrameOfReferenceUID"),
        patient=Patient(*(tags.text(file, k) for k in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"))),
        patient_position=tags.text(file, "PatientPosition"),
        image_type=tags.codes(file, "ImageType"),
        orientation=tags.decimals(file, "ImageOrientationPatient") or (),
        position_xyz_mm=tags.decimals(file, "ImagePositionPatient") or (),
        pixel_spacing_yx_mm=tags.decimals(file, "PixelSpacing") or (),
        rows=tags.whole(file, "Rows"),
        columns=tags.whole(file, "Columns"),
        frames=tags.whole(file, "NumberOfFrames") or 1,
        samples=tags.whole(file, "SamplesPerPixel"),
        photometric=tags.text(file, "PhotometricInterpretation"),
        bits_allocated=tags.whole(file, "BitsAllocated"),
        bits_stored=tags.whole(file, "BitsStored"),
        high_bit=tags.whole(file, "HighBit"),
        signed=None if signed is None else signed == 1,
        slope=tags.decimal(file, "RescaleSlope"),
        intercept=tags.decimal(file, "RescaleIntercept"),
        rescale_type=tags.text(file, "RescaleType"),
        padding=None if padding is None else (min(padding, limit or padding), max(padding, limit or padding)),
        lossy=tags.text(file, "LossyImageCompression") == "01",
        thickness_mm=tags.decimal(file, "SliceThickness"),
        spacing_between_mm=tags.decimal(file, "SpacingBetweenSlices"),
        tilt_deg=tags.decimal(file, "GantryDetectorTilt"),
        kvp=tags.text(file, "KVP"),
        kernel=tags.text(file, "ConvolutionKernel"),
    )


@dataclass(frozen=True, slots=True, eq=False)
class SliceVoxels:
    """HU of one slice as stored (rows, columns) float64, and which of its pixels the scanner declared to be padding."""

    hu: NDArray[np.float64]
    padding: NDArray[np.bool_]


def read_voxels(ct: CtSlice) -> SliceVoxels:
    """HU = slope * stored + intercept, of a slice that the checks have passed. Raises PIXELDATA_TRUNCATED, BITDEPTH."""
    stored = _native_pixels(ct) if ct.file.transfer_syntax in NATIVE_SYNTAXES else _rle_pixels(ct)
    padding = np.zeros(stored.shape, bool)
    if ct.padding is not None and _means_air(ct, ct.padding):
        padding = (stored >= ct.padding[0]) & (stored <= ct.padding[1])
    bits = ct.bits_stored or 16
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if ct.signed else (0, (1 << bits) - 1)
    if np.any(((stored < low) | (stored > high)) & ~padding):
        raise CaseRejected(
            "BITDEPTH",
            f"{ct.place}: stored values need more than the {bits} bits of BitsStored (0028,0101)",
            f"values from {low} to {high}",
            "export the series again without overlays in the pixel data",
        )
    return SliceVoxels(stored.astype(np.float64) * float(ct.slope or 0) + float(ct.intercept or 0), padding)


def _means_air(ct: CtSlice, padding: tuple[int, int]) -> bool:
    """Only values outside what tissue can have are taken as padding; a declared padding of, say, water is left alone."""
    hu = np.array(padding) * float(ct.slope or 0) + float(ct.intercept or 0)
    return bool(hu.max() <= -1000 or hu.min() >= 30_000)


def _native_pixels(ct: CtSlice) -> NDArray[np.int32]:
    expected = int(ct.rows or 0) * int(ct.columns or 0) * 2
    with ct.file.path.open("rb") as stream:
        stream.seek(ct.file.pixel_offset)
        data = stream.read(expected)
    if len(data) != expected:
        raise CaseRejected("PIXELDATA_TRUNCATED", f"{ct.place} ends early", remedy="send the file again")
    order = ">" if ct.file.transfer_syntax == ExplicitVRBigEndian else "<"
    pixels = np.frombuffer(data, dtype=f"{order}{'i' if ct.signed else 'u'}2")
    return pixels.astype(np.int32).reshape(int(ct.rows or 0), int(ct.columns or 0))


def _rle_pixels(ct: CtSlice) -> NDArray[np.int32]:
    raw_bytes = int(ct.rows or 0) * int(ct.columns or 0) * 2
    coded_bytes = ct.file.pixel_length if ct.file.pixel_length != UNDEFINED_LENGTH else ct.file.size - ct.file.pixel_offset
    try:
        if coded_bytes > 2 * raw_bytes + 4096:
            raise ValueError("more coded than decoded bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = pixel_array(ct.file.path, decoding_plugin="pydicom")
        return pixels.astype(np.int32).reshape(int(ct.rows or 0), int(ct.columns or 0))
    except Exception as error:  # a decoder on damaged bytes may raise anything
        raise CaseRejected(
            "PIXELDATA_TRUNCATED",
            f"{ct.place}: RLE pixels cannot be decoded ({type(error).__name__})",
            remedy="send the file again",
        ) from error
