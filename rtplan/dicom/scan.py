"""Finds the DICOM files of a folder and reads their headers without trusting a byte of them.

Sizes, preamble and transfer syntax are looked at before pydicom sees a file; pixels are never read here, only located.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected

MAX_FILE_BYTES = 1 << 30
MAX_FILES = 20_000
MAX_ELEMENTS = 20_000
UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
CHARACTER_SET_WARNINGS = "(?i).*(encoding|character set|code extension)"
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

# Things that other software leaves beside images. Anything else that is not DICOM may be a damaged slice and stops the case.
BYSTANDER_SUFFIXES = frozenset(
    {
        ".txt",
        ".md",
        ".xml",
        ".json",
        ".csv",
        ".html",
        ".htm",
        ".pdf",
        ".ini",
        ".inf",
        ".log",
        ".jpg",
        ".jpeg",
        ".png",
        ".exe",
    }
)
BYSTANDER_NAMES = frozenset({"dicomdir", "readme", "license", "licence", "version", "lockfile", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True, eq=False)
class DicomFile:
    """Header of one DICOM file: the wanted tags undecoded, and where its pixels lie (bytes; offset -1 without pixels)."""

    path: Path
    name: str  # relative to the scanned folder, for messages
    size: int
    transfer_syntax: str
    media_sop_class: str
    tags: FileDataset
    pixel_offset: int
    pixel_length: int


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Readable DICOM files of a folder in the order of their names, the names that are not DICOM, and findings."""

    files: tuple[DicomFile, ...]
    not_dicom: tuple[str, ...]
    findings: tuple[Finding, ...]


def scan_folder(folder: Path, keywords: Iterable[str]) -> Scan:
    """Read the tags `keywords` of every DICOM file below a folder.

    Raises CaseRejected: FOLDER_UNREADABLE, FILE_UNREADABLE, FILE_TOO_LARGE, TOO_MANY_FILES, NOT_DICOM,
    DATASET_MALFORMED, TS_MISMATCH, TRANSFER_SYNTAX_UNSUPPORTED.
    """
    paths, findings = list_files(folder)
    wanted = [tag for tag in (tag_for_keyword(k) for k in keywords) if tag is not None]
    files: list[DicomFile] = []
    bystanders: list[str] = []
    damaged: list[str] = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if not has_dicom_prefix(path, name):
            (bystanders if _is_bystander(path) else damaged).append(name)
            continue
        file = read_header(path, name, wanted)
        if file.media_sop_class == DICOMDIR_CLASS:
            bystanders.append(name)
        else:
            files.append(file)
    if damaged and files:
        raise CaseRejected(
            "NOT_DICOM",
            f"file {damaged[0]} lies among the images but is not a DICOM file ({len(damaged)} such)",
            "128-byte preamble and DICM in every image file",
            "export the series again, or take that file out if it is no image",
        )
    if bystanders:
        shown = ", ".join(bystanders[:5]) + (" ..." if len(bystanders) > 5 else "")
        findings.append(
            Finding("FILE_IGNORED", "info", f"{len(bystanders)} file(s) that are no DICOM images ignored: {shown}")
        )
    return Scan(tuple(files), (*damaged, *bystanders), tuple(findings))


def list_files(folder: Path) -> tuple[list[Path], list[Finding]]:
    """Regular files below a folder, sorted by path. Links to folders are not followed and named in a finding."""
    if not folder.is_dir():
        raise CaseRejected("FOLDER_UNREADABLE", f"{folder} is not a folder", "a folder with one CT series", "check the path")

    def unreadable(error: OSError) -> None:
        name = os.path.basename(error.filename or str(folder))
        raise CaseRejected(
            "FILE_UNREADABLE", f"folder {name} cannot be read ({error.strerror})", remedy="check its permissions"
        )

    paths: list[Path] = []
    links: list[str] = []
    for root, folders, names in os.walk(folder, onerror=unreadable, followlinks=False):
        links += [os.path.relpath(os.path.join(root, f), folder) for f in folders if os.path.islink(os.path.join(root, f))]
        paths += [Path(root, name) for name in names]
        if len(paths) > MAX_FILES:
            raise CaseRejected(
                "TOO_MANY_FILES", f"more than {MAX_FILES} files", "one CT series", "name the folder of the series"
            )
    findings = []
    if links:
        shown = ", ".join(sorted(links)[:5])
        findings.append(Finding("LINK_IGNORED", "flag", f"{len(links)} link(s) to folders were not followed: {shown}"))
    return sorted(paths), findings


def has_dicom_prefix(path: Path, name: str) -> bool:
    """Whether a regular file of at most 1 GiB carries DICM after its preamble. Raises FILE_UNREADABLE, FILE_TOO_LARGE."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CaseRejected("FILE_UNREADABLE", f"{name} is not a regular file", remedy="take it out of the folder")
        if status.st_size > MAX_FILE_BYTES:
            raise CaseRejected("FILE_TOO_LARGE", f"{name} has {status.st_size} bytes", f"at most {MAX_FILE_BYTES}")
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as error:
        remedy = "check the link and the permissions"
        raise CaseRejected("FILE_UNREADABLE", f"{name} cannot be read ({error.strerror})", remedy=remedy) from error


def _is_bystander(path: Path) -> bool:
    name = path.name.lower()
    return name.startswith(".") or name in BYSTANDER_NAMES or path.suffix.lower() in BYSTANDER_SUFFIXES


def read_header(path: Path, name: str, wanted: Iterable[int]) -> DicomFile:
    """Read the wanted tags of one DICOM file up to its pixels, with every length checked against the file.

    Raises DATASET_MALFORMED, TS_MISMATCH, TRANSFER_SYNTAX_UNSUPPORTED.
    """
    size = path.stat().st_size
    with warnings.catch_warnings(), path.open("rb") as stream:
        # pydicom warns where it guesses; a guess about the encoding of a CT is a reason to refuse it.
        warnings.simplefilter("error")
        # An unknown character set spoils accents in a name; identity rests on the identifiers.
        warnings.filterwarnings("ignore", message=CHARACTER_SET_WARNINGS)
        walk = _ElementWalk(stream, name, size)
        try:
            meta = read_file_meta_info(path)
            syntax, media_class = str(meta.get("TransferSyntaxUID", "")), str(meta.get("MediaStorageSOPClassUID", ""))
            _require_safe_syntax(syntax, name)
            tags = read_partial(stream, stop_when=walk, specific_tags=[BaseTag(t) for t in wanted])
        except CaseRejected:
            raise
        except UserWarning as warning:
            code = "TS_MISMATCH" if "VR, but found" in str(warning) else "DATASET_MALFORMED"
            raise CaseRejected(
                code, f"{name}: {warning}", "a data set encoded as (0002,0010) says", "export the series again"
            ) from warning
        except Exception as error:  # hostile bytes make pydicom raise anything, RecursionError included
            raise CaseRejected(
                "DATASET_MALFORMED",
                f"{name}: header cannot be parsed ({type(error).__name__})",
                remedy="export the series again",
            ) from error
    return DicomFile(path, name, size, syntax, media_class, tags, walk.pixel_offset, walk.pixel_length)


def _require_safe_syntax(syntax: str, name: str) -> None:
    if not syntax:
        raise CaseRejected(
            "DATASET_MALFORMED", f"{name}: TransferSyntaxUID (0002,0010) is missing", remedy="export the series again"
        )
    if syntax == DeflatedExplicitVRLittleEndian:
        # One megabyte can inflate to gigabytes before anything can be checked.
        raise CaseRejected(
            "TRANSFER_SYNTAX_UNSUPPORTED",
            f"{name}: TransferSyntaxUID (0002,0010) is deflated",
            "an uncompressed transfer syntax",
            "export as Explicit VR Little Endian",
        )


class _ElementWalk:
    """Called by pydicom before each top-level element; stops at the pixels and refuses impossible headers."""

    def __init__(self, stream: BinaryIO, name: str, size: int) -> None:
        self.stream, self.name, self.size = stream, name, size
        self.last_tag, self.count = -1, 0
        self.pixel_offset, self.pixel_length = -1, 0

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag >> 16 in (0x0000, 0x0002):
            return False
        if tag in PIXEL_TAGS:
            self.pixel_offset, self.pixel_length = self.stream.tell(), length
            return True
        self.count += 1
        if tag <= self.last_tag:
            # pydicom would let the second value win without a word.
            self._malformed(f"tag {tag} is repeated or out of order")
        if length != UNDEFINED_LENGTH and self.stream.tell() + length > self.size:
            self._malformed(f"tag {tag} claims {length} bytes, beyond the end of the file")
        if self.count > MAX_ELEMENTS:
            self._malformed(f"more than {MAX_ELEMENTS} elements")
        self.last_tag = int(tag)
        return False

    def _malformed(self, found: str) -> None:
        raise CaseRejected("DATASET_MALFORMED", f"{self.name}: {found}", "ascending tags", "export the series again")
