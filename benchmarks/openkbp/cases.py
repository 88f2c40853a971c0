"""Patients of the OpenKBP format (okbp-npz-1) as cases: their order, the tools that come with the data, and DICOM files."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from rtplan.domain.case import Order
from rtplan.errors import LibraryInvalid
from rtplan.library.machines import load_machine
from rtplan.library.protocols import SITES, load_protocol
from rtplan.provenance import code_version, sha256_of_bytes, sha256_of_file

MACHINE = "generic_6mv"
PROTOCOL = "head_neck_70_63_56"
TECHNIQUES = ("imrt", "vmat")
ARRAYS = ("ct", "dose", "mask", "bit_names", "spacing", "origin", "crop", "body_z", "flags", "patient_id")
ROOT = Path(__file__).parents[2]
SOURCES = ("rtplan", "kernels")
SUFFIXES = (".py", ".yaml", ".npz", ".cu", ".h")
HASHED_ELSEWHERE = ("rtplan/library/sites", "rtplan/library/machines")  # one protocol and one machine count, not all
_TECHNIQUE = re.compile(r"^technique: *\w+", re.MULTILINE)
_NAME = re.compile(r"pt_(\d+)")


@dataclass(frozen=True, slots=True)
class Tools:
    """The data set's own scripts, which are no part of this project."""

    criteria: ModuleType
    converter: ModuleType
    sha256: str  # of the criteria: other ones, other verdicts


@dataclass(frozen=True, slots=True)
class Made:
    """What a record was made by. `sources` is a hash over the code, which also tells edits that no commit holds."""

    code: str
    sources: str
    technique: str
    protocol: str
    machine: str
    device: str
    criteria: str


def patient_files(folder: Path, count: int | None) -> list[Path]:
    """The first `count` patients of a folder (all with None), by the number N of pt_N.npz.

    Raises SystemExit for a folder without any, or for files that are not of the format: none is left out quietly.
    """
    files = list(folder.glob("*.npz"))
    strange = [path.name for path in files if not _NAME.fullmatch(path.stem)]
    if strange:
        raise SystemExit(f"{folder}: {strange[:3]} are not named pt_N.npz")
    files = sorted(files, key=lambda path: int(path.stem[3:]))[:count]
    if not files:
        raise SystemExit(f"{folder}: no pt_N.npz")
    for path in files:
        with np.load(path) as npz:
            lacking = [name for name in ARRAYS if name not in npz.files]
        if lacking:
            raise SystemExit(f"{path}: lacks {', '.join(lacking)}")
    return files


def load_tools(patients: Path, given: Path | None) -> Tools:
    """The scripts from `given`, or from where they lie beside the data. Raises SystemExit where they are absent."""
    folder = given if given is not None else (patients / "../../../tools").resolve()
    lacking = [n for n in ("openkbp_criteria.py", "openkbp_to_dicom.py") if not (folder / n).is_file()]
    if lacking:
        raise SystemExit(f"{folder}: no {' or '.join(lacking)}; name the folder that holds them with --tools")
    criteria = folder / "openkbp_criteria.py"
    return Tools(_module(criteria), _module(folder / "openkbp_to_dicom.py"), sha256_of_file(criteria))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def protocol_file(technique: str, folder: Path) -> Path:
    """The shipped protocol as a file in `folder` that asks for this technique, whichever is its own.

    Raises SystemExit where the protocol has no such technique: the first is what a protocol means that names none.
    """
    text = (SITES / f"{PROTOCOL}.yaml").read_text(encoding="utf-8")
    asked, named = _TECHNIQUE.subn(f"technique: {technique}", text)
    if not named and technique != TECHNIQUES[0]:
        raise SystemExit(f"--technique {technique}: the protocol {PROTOCOL} names no technique and has fixed beams")
    path = folder / f"{PROTOCOL}.yaml"
    path.write_text(asked, encoding="utf-8")
    return path


def made_by(technique: str, device: str, protocol: Path, tools: Tools) -> Made:
    """What records of this run are made by. Raises SystemExit for a protocol without beams for its technique."""
    try:
        protocol_sha256 = load_protocol(str(protocol)).sha256
    except LibraryInvalid as error:
        raise SystemExit(error.line()) from error
    machine = load_machine(MACHINE)
    return Made(
        code=code_version(),
        sources=sources_sha256(ROOT),
        technique=technique,
        protocol=protocol_sha256,
        machine=f"{machine.sha256} {machine.beam.sha256}",
        device=device,
        criteria=tools.sha256,
    )


def sources_sha256(root: Path) -> str:
    """One hash over the files that plan: code, tables, calibrations, names; not protocols and machines."""
    left_out = tuple(root / folder for folder in HASHED_ELSEWHERE)
    files = sorted(
        path
        for package in SOURCES
        for path in (root / package).rglob("*")
        if path.suffix in SUFFIXES and not any(path.is_relative_to(folder) for folder in left_out)
    )
    lines = [f"{sha256_of_file(path)}  {path.relative_to(root).as_posix()}" for path in files]
    return sha256_of_bytes("\n".join(lines).encode())


def dicom_case(path: Path, folder: Path, tools: Tools, *, protocol: Path, device: str) -> Order:
    """The patient as a CT series and an RTSTRUCT with nested targets and all organs, written below `folder`."""
    tools.converter.convert(str(path), str(folder), want_struct=True, want_dose=False, nested=True)
    return Order(
        ct_dir=str(folder / "CT"),
        structures_path=str(folder / "RS.dcm"),
        protocol_id=str(protocol),
        machine_id=MACHINE,
        device=device,
    )
