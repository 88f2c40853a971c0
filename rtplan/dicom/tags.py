"""Decodes single tags of a scanned file strictly: the right VR, the right count, a readable value, or a refusal."""

from __future__ import annotations

import re
import struct
import warnings

from pydicom.charset import decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement

from rtplan.dicom.scan import CHARACTER_SET_WARNINGS, DicomFile
from rtplan.errors import CaseRejected

_DECIMAL = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(nan|inf|infinity)$", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"^[+-]?\d{1,12}$", re.ASCII)
_UID = re.compile(r"^\d+(\.\d+)*$", re.ASCII)
_MAX_NUMBER_CHARS = 64  # the standard says 16; longer ones are common and harmless, very long ones are not
_PN_DELIMITERS = {0x0A, 0x0C, 0x0D, ord("^"), ord("=")}


def tag_label(keyword: str) -> str:
    """Keyword with its number, such as `PixelSpacing (0028,0030)`."""
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def text(file: DicomFile, keyword: str) -> str:
    """Text in the file's character set without padding; empty when absent."""
    raw = _bytes(file, keyword)
    if not raw:
        return ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=CHARACTER_SET_WARNINGS)
        charset = file.tags.original_character_set or "iso8859"
        decoded = decode_bytes(raw, [charset] if isinstance(charset, str) else charset, _PN_DELIMITERS)
    return decoded.rstrip("\0 ").lstrip(" ")


def codes(file: DicomFile, keyword: str) -> tuple[str, ...]:
    """The values of a multi-valued code string; empty when absent."""
    value = text(file, keyword)
    return tuple(part.strip() for part in value.split("\\")) if value else ()


def uid(file: DicomFile, keyword: str) -> str:
    """A unique identifier; empty when absent. Raises UID_INVALID."""
    value = text(file, keyword)
    if value and (len(value) > 64 or not _UID.match(value)):
        raise CaseRejected(
            "UID_INVALID",
            f"{tag_label(keyword)} in {file.name} is not a unique identifier",
            "digits and dots, at most 64",
            "export the series again",
        )
    return value


def decimals(file: DicomFile, keyword: str) -> tuple[float, ...] | None:
    """Values of a decimal string, NaN and infinity included; None when absent or empty. Raises VR_INVALID."""
    raw = _bytes(file, keyword).decode("ascii", "replace").strip("\0 ")
    if not raw:
        return None
    parts = [part.strip() for part in raw.split("\\")]
    if any(len(part) > _MAX_NUMBER_CHARS or not _DECIMAL.match(part) for part in parts):
        raise _invalid(file, keyword, "decimal numbers")
    return tuple(float(part) for part in parts)


def decimal(file: DicomFile, keyword: str) -> float | None:
    """The single value of a decimal string; None when absent. Raises VR_INVALID when there are several."""
    values = decimals(file, keyword)
    if values is not None and len(values) != 1:
        raise _invalid(file, keyword, "one number")
    return values[0] if values else None


def whole(file: DicomFile, keyword: str, *, signed: bool = False) -> int | None:
    """A single integer (US, SS or IS); None when absent. Raises VR_INVALID."""
    raw = _bytes(file, keyword)
    if not raw:
        return None
    if dictionary_VR(keyword) == "IS":
        value = raw.decode("ascii", "replace").strip("\0 ")
        if not _WHOLE.match(value):
            raise _invalid(file, keyword, "one integer")
        return int(value)
    if len(raw) != 2:
        raise _invalid(file, keyword, "one 16-bit integer")
    order = "<" if _element(file, keyword).is_little_endian else ">"
    return int(struct.unpack(order + ("h" if signed else "H"), raw)[0])


def _element(file: DicomFile, keyword: str) -> RawDataElement:
    return file.tags.get_item(keyword, keep_deferred=True)  # type: ignore[return-value]


def _bytes(file: DicomFile, keyword: str) -> bytes:
    element = _element(file, keyword)
    if element is None:
        return b""
    if not isinstance(element, RawDataElement):
        raise _invalid(file, keyword, "a plain value")
    if element.VR is not None and element.VR not in dictionary_VR(keyword).split(" or "):
        raise _invalid(file, keyword, f"value representation {dictionary_VR(keyword)}, not {element.VR}")
    return element.value or b""


def _invalid(file: DicomFile, keyword: str, expected: str) -> CaseRejected:
    return CaseRejected(
        "VR_INVALID",
        f"{tag_label(keyword)} in {file.name} is malformed",
        expected,
        "correct the tag or export the series again",
    )
