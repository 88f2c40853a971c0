"""`rtplan segment`: organs of a bare CT, proposed by a model."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtplan.cli.request import Device, ModelId

if TYPE_CHECKING:
    from rtplan.contouring import Proposal

IN_DOUBT = 3


def segment(
    ct_dir: Annotated[
        Path,
        typer.Argument(metavar="CT_DIR", exists=True, file_okay=False, help="Folder with the CT series, nested or not."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", dir_okay=False, help="The RTSTRUCT file to write, ending in .dcm.")],
    model: ModelId = None,
    device: Annotated[Device, typer.Option("--device", help="Where to compute.")] = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print the structures and all findings as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Propose contours of every organ that a model knows. Beside the RTSTRUCT lies a page of pictures, OUT with .html.

    Nothing of it is approved: a person has to look at each contour. No target is drawn.

    Exit code: 0 nothing in doubt, 3 something flagged or held, 4 rejected.
    """
    from rtplan.cli.console import StepDisplay, complain, say, say_json
    from rtplan.cli.request import model_or_default
    from rtplan.contouring import contour_case

    out, page = _places(ct_dir, out, overwrite)
    partials = [path.with_name(f".{path.name}.{uuid.uuid4().hex}") for path in (page, out)]
    model_id = model_or_default(model)
    try:
        with StepDisplay() as display:

            def progress(step: str, fraction: float, message: str = "") -> None:
                display("case", step, fraction, message)

            out.parent.mkdir(parents=True, exist_ok=True)
            proposal = contour_case(
                ct_dir.resolve(), partials[1], partials[0], model_id=model_id, device=device.value, progress=progress
            )
        for partial, path in zip(partials, (page, out), strict=True):
            os.replace(partial, path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    record = proposal_record(proposal, out, page)
    if as_json:
        say_json(record)
    else:
        for organ in record["structures"]:
            sure = "" if organ["confidence"] is None else f"  confidence {organ['confidence']:.2f}"
            say(f"{organ['name']:<16}  {organ['volume_cc']:8.1f} cc  {organ['origin']}{sure}")
        for finding in proposal.findings:
            complain(f"{finding.severity}: {finding.line}")
        say(str(out))
        say(str(page))
    raise typer.Exit(IN_DOUBT if proposal.in_doubt else 0)


def _places(ct_dir: Path, out: Path, overwrite: bool) -> tuple[Path, Path]:
    """Where the RTSTRUCT and its page go. Raises RequestInvalid when something is in the way."""
    from rtplan.errors import RequestInvalid

    out = out.resolve()
    if out.suffix.lower() != ".dcm":
        raise RequestInvalid("OUTPUT_NOT_DICOM", f"{out.name} does not end in .dcm", "", "name it RTSTRUCT.dcm")
    page = out.with_suffix(".html")
    if out.is_relative_to(ct_dir.resolve()):
        raise RequestInvalid("OUTPUT_AMONG_INPUTS", f"{out} lies in the CT folder", "", "choose another with -o")
    for path in (out, page):
        if path.exists() and not overwrite:
            raise RequestInvalid("OUTPUT_EXISTS", f"{path} exists", "", "choose another with -o, or add --overwrite")
    return out, page


def proposal_record(proposal: Proposal, out: Path, page: Path) -> dict[str, Any]:
    """A proposal as it stands in JSON."""
    from dataclasses import asdict

    from rtplan.steps.report.contours import contour_record

    return {
        "out": str(out),
        "page": str(page),
        "model": {"id": proposal.model[0], "version": proposal.model[1]},
        "in_doubt": proposal.in_doubt,
        "held": [f.line for f in proposal.findings if f.severity == "hold"],
        "structures": [contour_record(s, proposal.structures.grid) for s in proposal.structures],
        "findings": [asdict(finding) for finding in proposal.findings],
    }
