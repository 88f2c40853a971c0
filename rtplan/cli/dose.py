"""`rtplan dose`: recalculates the dose of an existing plan."""

from __future__ import annotations

import os
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rtplan.cli.request import Device


def dose(
    ct_dir: Annotated[
        Path, typer.Argument(metavar="CT_DIR", exists=True, file_okay=False, help="Folder with the CT series of the plan.")
    ],
    plan: Annotated[
        Path, typer.Option("--plan", exists=True, dir_okay=False, help="The RTPLAN file; its machine must be known.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", dir_okay=False, help="The RTDOSE file to write.")],
    device: Annotated[Device, typer.Option("--device", help="Where to compute.")] = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file and all findings as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Recalculate the dose of a plan from its control points and MU, also of a plan from elsewhere.

    What a reviewer must know of it stands on stderr and in the file's ImageComments.
    """
    from rtplan.cli.console import StepDisplay, complain, say, say_json
    from rtplan.errors import RequestInvalid
    from rtplan.recalculation import recalculate

    out = out.resolve()
    if out.exists() and not overwrite:
        raise RequestInvalid("OUTPUT_EXISTS", f"{out} exists", "", "choose another with -o, or add --overwrite")
    if out.is_relative_to(ct_dir.resolve()):
        raise RequestInvalid("OUTPUT_AMONG_INPUTS", f"{out} lies in the CT folder", "", "choose another with -o")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with StepDisplay() as display:

            def progress(step: str, fraction: float, message: str = "") -> None:
                display("case", step, fraction, message)

            done = recalculate(ct_dir.resolve(), plan.resolve(), partial, device=device.value, progress=progress)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    if as_json:
        say_json({"out": str(out), "findings": [asdict(finding) for finding in done.findings]})
        return
    say(str(out))
    for finding in done.findings:
        complain(f"{finding.severity}: {finding.code}: {finding.message}")
