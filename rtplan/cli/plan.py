"""`rtplan plan`: one patient from CT and structures to a plan proposal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtplan.cli.request import AutoContours, Device, ModelId, TechniqueOption


def plan(
    ct_dir: Annotated[
        Path,
        typer.Argument(metavar="CT_DIR", exists=True, file_okay=False, help="Folder with the CT series, nested or not."),
    ],
    protocol: Annotated[str, typer.Option("--protocol", help="See: rtplan protocols list.")],
    machine: Annotated[str, typer.Option("--machine", help="See: rtplan machines list.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the plan; it must be empty or new.")],
    structures: Annotated[
        Path | None,
        typer.Option("--structures", exists=True, dir_okay=False, help="The RTSTRUCT with the targets, and organs."),
    ] = None,
    model: ModelId = None,
    auto_contours: AutoContours = True,
    technique: TechniqueOption = None,
    device: Annotated[Device, typer.Option("--device", help="Where to compute.")] = Device.AUTO,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="An existing Dask scheduler, tcp://host:port.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Plan one patient. OUT holds RTSTRUCT, RTPLAN, RTDOSE and a report, or nothing but verdict.json.

    Organs that the protocol uses and the structure set lacks are contoured by a model; the report says which.
    """
    from rtplan.cli.console import StepDisplay, say_outcome
    from rtplan.cli.request import model_or_default, prepare_folder
    from rtplan.domain.case import Order
    from rtplan.service import cluster
    from rtplan.service.job import Job, settle, tidied

    out = prepare_folder(out, overwrite=overwrite, inputs=(ct_dir,))
    order = Order(
        str(ct_dir.resolve()),
        None if structures is None else str(structures.resolve()),
        protocol,
        machine,
        device.value,
        model_or_default(model) if auto_contours else None,
        None if technique is None else technique.value,
    )
    job = Job("case", order, str(out))
    with tidied(out), StepDisplay() as display, cluster.cluster(scheduler) as workers:
        ((_, outcome),) = workers.run([job], on_progress=display)
    settle(job, outcome)
    say_outcome(outcome, str(out), as_json=as_json)
    raise typer.Exit(outcome.exit_code)
