"""`rtplan batch`: many patients from a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtplan.cli.request import AutoContours, Device, ModelId, TechniqueOption

if TYPE_CHECKING:
    from rtplan.service.batch import RowOutcome


def batch(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST.csv",
            exists=True,
            dir_okay=False,
            help="CSV: ct, structures, protocol, machine; model is optional.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the plans; it must be empty or new.")],
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Cases at a time; the cores are shared out.")] = 1,
    model: ModelId = None,
    auto_contours: AutoContours = True,
    technique: TechniqueOption = None,
    device: Annotated[Device, typer.Option("--device", help="Where to compute.")] = Device.AUTO,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="An existing Dask scheduler, tcp://host:port.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """Plan many patients; paths are relative to the manifest. One outcome a row goes to OUT/outcomes.csv and .json.

    A row may name its own model in the column `model`; "none" there contours nothing.

    Exit code: 1 if any case failed, else 4 if any was rejected, else 3 if any goal was missed, else 0.
    """
    from rtplan.cli.console import StepDisplay, say, say_json
    from rtplan.cli.request import model_or_default, prepare_folder
    from rtplan.domain.outcome import worst_exit_code
    from rtplan.service import cluster
    from rtplan.service.batch import run_batch
    from rtplan.service.job import tidied
    from rtplan.service.manifest import read_manifest

    rows = read_manifest(manifest)
    out = prepare_folder(out, overwrite=False)
    jobs = min(jobs, len(rows))
    with tidied(out), StepDisplay(name_cases=True) as display, cluster.cluster(scheduler, workers=jobs) as workers:
        ended = run_batch(
            rows,
            folder=manifest.resolve().parent,
            out_dir=out,
            device=device.value,
            model_id=model_or_default(model) if auto_contours else None,
            technique=None if technique is None else technique.value,
            workers=workers,
            on_progress=display,
            on_outcome=lambda row: None if as_json else display.result(row.row.name, _line(row)),
        )
    if as_json:
        say_json([row.record() for row in ended])
    else:
        planned = sum(row.outcome.planned for row in ended)
        say(f"{planned} of {len(ended)} cases planned; outcomes in {out / 'outcomes.csv'}")
    raise typer.Exit(worst_exit_code(tuple(row.outcome for row in ended)))


def _line(ended: RowOutcome) -> str:
    outcome = ended.outcome
    if outcome.planned:
        return f"{ended.row.name} {outcome.outcome}: {outcome.goals_met} of {outcome.goals_total} in {outcome.seconds:.0f} s"
    return f"{ended.row.name} {outcome.outcome}: {outcome.message}"
