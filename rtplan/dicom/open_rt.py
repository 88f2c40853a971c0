"""Opens an RT object from outside with bounds on its size, and reads single values strictly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from rtplan.errors import CaseRejected, RtplanError

_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def open_rt_object(path: Path, *, sop_class_uid: str, kind: str, max_bytes: int) -> FileDataset:
    """The data set of an uncompressed DICOM file of one SOP class. `kind` is "RTPLAN" or "RTDOSE", the prefix of codes.

    Raises CaseRejected: <kind>_UNREADABLE, <kind>_TOO_LARGE, <kind>_TRANSFER_SYNTAX, <kind>_SOPCLASS.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise CaseRejected(f"{kind}_TOO_LARGE", f"{path.name} has {size} bytes", f"at most {max_bytes}")
        syntax = read_file_meta_info(path).get("TransferSyntaxUID", "")
        # A deflated file of a megabyte can take gigabytes to read, so it is refused before its data set is touched.
        if syntax not in _SYNTAXES:
            raise CaseRejected(f"{kind}_TRANSFER_SYNTAX", f"{path.name} is encoded as {syntax or 'nothing stated'}",
                               "an uncompressed transfer syntax", "export it uncompressed")  # fmt: skip
        dataset = pydicom.dcmread(path)
    except (OSError, InvalidDicomError) as error:
        raise CaseRejected(f"{kind}_UNREADABLE", f"{path.name}: {error}", "a DICOM part 10 file") from error
    if dataset.get("SOPClassUID") != sop_class_uid:
        raise CaseRejected(
            f"{kind}_SOPCLASS", f"{path.name} has SOP class {dataset.get('SOPClassUID', 'none')}", sop_class_uid
        )
    return dataset


@contextmanager
def refusing_malformed(kind: str, path: Path) -> Iterator[None]:
    """Turns whatever a malformed data set makes pydicom or its reader raise into CaseRejected <kind>_MALFORMED."""
    try:
        yield
    except RtplanError:
        raise
    except Exception as error:  # hostile bytes make pydicom raise anything, and only while a value is looked at
        found = f"{path.name}: a value cannot be understood ({type(error).__name__})"
        raise CaseRejected(f"{kind}_MALFORMED", found, "a valid DICOM object", "export it again") from error


def required(dataset: Dataset, keyword: str, *, code: str, where: str) -> Any:
    """A value that must be there and not empty. Raises CaseRejected with `code` and the place."""
    value = _value(dataset, keyword, code, where)
    if value is None or (isinstance(value, Sized) and len(value) == 0):
        raise CaseRejected(code, f"{where}: {keyword} is missing", "a value")
    return value


def number(dataset: Dataset, keyword: str, *, code: str, where: str, default: float | None = None) -> float:
    """One finite number, or `default` when the attribute is absent or empty. Raises CaseRejected with `code`."""
    value = _value(dataset, keyword, code, where)
    if value in (None, "") and default is not None:
        return default
    return _finite(value, keyword, code, where)


def numbers(dataset: Dataset, keyword: str, *, code: str, where: str, count: int) -> list[float]:
    """Exactly `count` finite numbers. Raises CaseRejected with `code`."""
    value = required(dataset, keyword, code=code, where=where)
    values = [value] if isinstance(value, (str, int, float)) else list(value)
    if len(values) != count:
        raise CaseRejected(code, f"{where}: {keyword} has {len(values)} values", f"{count}")
    return [_finite(v, keyword, code, where) for v in values]


def _value(dataset: Dataset, keyword: str, code: str, where: str) -> Any:
    """An attribute's value, where a value that pydicom cannot convert counts as bad input."""
    try:
        return dataset.get(keyword)
    except (ValueError, TypeError, OverflowError) as error:
        raise CaseRejected(code, f"{where}: {keyword} cannot be read ({error})", "a valid value") from error


def _finite(value: Any, keyword: str, code: str, where: str) -> float:
    """A value as a finite float."""
    try:
        result = float(value)
    except (TypeError, ValueError) as error:
        raise CaseRejected(code, f"{where}: {keyword} is {value!r}", "a number") from error
    if not math.isfinite(result):
        raise CaseRejected(code, f"{where}: {keyword} is {value}", "a finite number")
    return result
