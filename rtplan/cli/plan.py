"""`rtplan plan`: one patient from CT and structures to a plan proposal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtplan.cli.request import Device


def plan(
    ct_dir: Annotated[
        Path,
        typer.Argument(metavar="CT_DIR", exists=True, file_okay=False, help="Folder with the CT series, nested or not."),
    ],
    structures: Annotated[Path, typer.Option("--structures", exists=True, dir_okay=False, help="The RTSTRUCT file.")],
    protocol: Annotated[str, typer.Option("--protocol", help="See: rtplan protocols list.")],
    machine: Annotated[str, typer.Option("--machine", help="See: rtplan machines list.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the plan; it must be empty or new.")],
    device: Annotated[Device, typer.Option("--device", help="Where to compute.")] = Device.AUTO,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="An existing Dask scheduler, tcp://host:port.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Plan one patient. OUT holds RTSTRUCT, RTPLAN, RTDOSE and a report, or nothing but verdict.json."""
    from rtplan.cli.console import StepDisplay, say_outcome
    from rtplan.cli.request import prepare_folder
    from rtplan.domain.case import Order
    from rtplan.service import cluster
    from rtplan.service.job import Job, settle, tidied

    out = prepare_folder(out, overwrite=overwrite, inputs=(ct_dir,))
    order = Order(str(ct_dir.resolve()), str(structures.resolve()), protocol, machine, device.value)
    job = Job("case", order, str(out))
    with tidied(out), StepDisplay() as display, cluster.cluster(scheduler) as workers:
        ((_, outcome),) = workers.run([job], on_progress=display)
    settle(job, outcome)
    say_outcome(outcome, str(out), as_json=as_json)
    raise typer.Exit(outcome.exit_code)
