"""The page that goes with proposed contours: who drew what, what is doubtful, and each organ in three planes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rtplan.domain.image import CtImage
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.steps.report.contours import contour_records, finding_record, in_order
from rtplan.steps.report.page import data_uri, rendered

NOTICE = "AUTO-GENERATED CONTOURS - NOT APPROVED - a person has to look at every one before use"


@dataclass(frozen=True, slots=True, eq=False)
class ContourPage:
    """Contours that nobody has approved, with all findings; `model` is the id and version of the model that drew."""

    created: datetime
    ct: CtImage
    structures: StructureSet
    findings: tuple[Finding, ...]
    model: tuple[str, str]
    code: str


def write_contour_page(data: ContourPage, path: Path) -> None:
    """Write the page, one self-contained file. Raises OSError when it cannot be written."""
    # Drawing libraries are slow to import, and a command that only prints help must not wait for them.
    from rtplan.steps.report.contour_pictures import finding_pictures, organ_png

    findings = in_order(data.findings)
    pictures = [data_uri("image/png", png) if png else "" for png in finding_pictures(data.ct, data.structures, findings)]
    plain = _content(data, findings)
    names = [c["name"] for c in plain["contours"] if c["volume_cc"] > 0]
    organs = {name: data_uri("image/png", organ_png(data.ct, data.structures, name)) for name in names}
    path.write_text(rendered("contours.html", r=plain, pictures=pictures, organs=organs), encoding="utf-8")


def _content(data: ContourPage, findings: list[Finding]) -> dict[str, Any]:
    """What the page says, as plain values."""
    patient = data.ct.series.patient
    return {
        "notice": NOTICE,
        "created": data.created.isoformat(timespec="seconds"),
        "patient": {"id": patient.patient_id, "name": patient.name, "birth_date": patient.birth_date, "sex": patient.sex},
        "model": {"id": data.model[0], "version": data.model[1]},
        "code": data.code,
        "ct_sha256": data.ct.sha256,
        "contours": contour_records(data.structures),
        "findings": [finding_record(f, data.ct.grid) for f in findings],
    }
