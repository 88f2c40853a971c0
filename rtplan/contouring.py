"""From a bare CT to a proposal of contours: the External by the engine, organs by a model, and a page to look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.read_rtstruct import read_rtstruct
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtstruct import write_rtstruct
from rtplan.domain.contours import rasterise
from rtplan.domain.image import CtImage
from rtplan.domain.progress import Progress
from rtplan.domain.structures import Structure, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected, SafetyStop
from rtplan.library.models import as_rtplan_error
from rtplan.pipeline import BACKEND_OF_DEVICE, Steps, configured_model
from rtplan.provenance import code_version
from rtplan.steps.auto_contour import DrawnOrgans, LoadModel, draw_organs, fitted, verified
from rtplan.steps.ingest import body_findings, body_mask
from rtplan.steps.report.contour_page import ContourPage, write_contour_page
from rtplan.steps.target_checks import check_sides
from segmentation.contract import DeviceMissing, ModelRefused, ModelUnverified, OutputInvalid, Segmenter

EXTERNAL = "External"


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Contours that nobody has approved, on the CT that they were drawn on."""

    ct: CtImage
    structures: StructureSet
    findings: tuple[Finding, ...]
    model: tuple[str, str]

    @property
    def in_doubt(self) -> bool:
        """Whether a finding holds the contours, or flags more than that a machine drew them."""
        return any(f.severity == "hold" or (f.severity == "flag" and f.code != "AUTO_CONTOURS") for f in self.findings)


def contour_case(
    ct_dir: Path,
    rtstruct: Path,
    page: Path,
    *,
    model_id: str,
    device: str,
    progress: Progress,
    load_model: LoadModel = configured_model,
) -> Proposal:
    """Contour every organ that a model knows on a CT; write an RTSTRUCT and an HTML page. Nothing is written on error.

    Raises CaseRejected for a bad CT, MODEL_REFUSED, or AUTO_NOTHING_FOUND when no organ is found: never a structure set
    without organs. LibraryInvalid MODEL_UNKNOWN and MODEL_UNVERIFIED come before the CT is read; BackendMissing,
    SafetyStop MODEL_OUTPUT_INVALID and WRITTEN_STRUCTURE.
    """
    steps = Steps(progress)
    segmenter = verified(load_model(model_id))
    ct = steps.run("ingest", lambda: read_ct(ct_dir))
    drawn = steps.run("contour", lambda: _drawn(ct, segmenter, BACKEND_OF_DEVICE[device]))
    proposal = steps.run("check", lambda: _proposal(ct, drawn, segmenter))
    steps.run("write", lambda: _write(proposal, rtstruct, page))
    return proposal


def _drawn(ct: CtImage, segmenter: Segmenter, device: str) -> DrawnOrgans:
    """Every organ of the model. The body is the engine's, as for a plan without an External."""
    names = [name for name in segmenter.labels if name != EXTERNAL]
    try:
        return draw_organs(ct, segmenter, names, device=device, needed=())
    except (ModelRefused, ModelUnverified, DeviceMissing, OutputInvalid) as error:
        raise as_rtplan_error(error, segmenter.kind) from error


def _proposal(ct: CtImage, drawn: DrawnOrgans, segmenter: Segmenter) -> Proposal:
    """The organs inside the body, with all findings. Raises CaseRejected BODY_NOT_FOUND, AUTO_NOTHING_FOUND."""
    body = body_mask(ct)
    organs, findings = fitted(drawn, body, ct.grid, ())
    if not organs:
        raise CaseRejected(
            "AUTO_NOTHING_FOUND",
            f"the model {segmenter.kind} found none of its organs on this CT: " + "; ".join(f.line for f in findings),
            f"one of {', '.join(drawn.asked)}",
            "name a model for this part of the body, or contour by hand",
        )
    structures = (Structure(EXTERNAL, "EXTERNAL", body, "", "engine"), *organs)
    every = (*ct.findings, *body_findings(ct, body), *findings, *check_sides(structures, ct.grid))
    return Proposal(ct, StructureSet(ct.grid, structures), tuple(dict.fromkeys(every)), (segmenter.kind, segmenter.version))


def _write(proposal: Proposal, rtstruct: Path, page: Path) -> None:
    """Write both files and read the contours back. Raises SafetyStop WRITTEN_STRUCTURE when a voxel differs."""
    ids = new_output_ids(datetime.now(UTC))
    write_rtstruct(rtstruct, proposal.structures, proposal.ct, ids, proposal.findings)
    masks = {roi.name: rasterise(roi.contours, proposal.ct.grid) for roi in read_rtstruct(rtstruct, proposal.ct).rois}
    for structure in proposal.structures:
        if structure.name not in masks or not np.array_equal(masks[structure.name], structure.mask):
            raise SafetyStop("WRITTEN_STRUCTURE", f"{structure.name} is not as it was written", "the contours as drawn")
    content = ContourPage(ids.created, proposal.ct, proposal.structures, proposal.findings, proposal.model, code_version())
    write_contour_page(content, page)
