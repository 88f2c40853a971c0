"""`rtplan demo`: plans the phantoms of the checkout, to see the engine at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Folder in sample_data, structure set, protocol. The head and neck comes with targets alone: its organs are the model's.
DEMO_CASES = (
    ("head_neck", "RS_targets.dcm", "head_neck_70_63_56"),
    ("tg119_c_shape", "RS.dcm", "tg119_c_shape"),
)
DEMO_MACHINE = "generic_6mv"


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the plans.")] = Path("demo_out"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier demo.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """Plan the head-and-neck phantom and the TG-119 C-shape, one after the other on all cores. Exit codes as for batch.

    The head and neck comes with targets alone; its organs are contoured by the model that ships.
    """
    from rtplan.cli.console import StepDisplay, outcome_record, say, say_json, say_outcome
    from rtplan.cli.request import model_or_default, prepare_folder
    from rtplan.domain.case import Order
    from rtplan.domain.outcome import worst_exit_code
    from rtplan.service import cluster
    from rtplan.service.job import Job, settle, tidied

    phantoms = _sample_data()
    jobs = []
    for name, structures, protocol in DEMO_CASES:
        folder = prepare_folder(out / name, overwrite=overwrite)
        case = phantoms / name
        order = Order(str(case / "CT"), str(case / structures), protocol, DEMO_MACHINE, "auto", model_or_default(None))
        jobs.append(Job(name, order, str(folder)))
    outcomes = {}
    with tidied(out), StepDisplay(name_cases=True) as display, cluster.cluster(None) as workers:
        for job, outcome in workers.run(jobs, on_progress=display):
            settle(job, outcome)
            outcomes[job.name] = outcome
    if as_json:
        say_json({name: outcome_record(outcome) for name, outcome in outcomes.items()})
    else:
        for job in jobs:
            say(f"{job.name}:")
            say_outcome(outcomes[job.name], job.out_dir, as_json=False)
    raise typer.Exit(worst_exit_code(tuple(outcomes.values())))


def _sample_data() -> Path:
    import rtplan
    from rtplan.errors import RequestInvalid

    folder = Path(rtplan.__file__).resolve().parent.parent / "sample_data"
    if not (folder / DEMO_CASES[0][0]).is_dir():
        raise RequestInvalid(
            "SAMPLE_DATA_MISSING", f"no phantoms in {folder}", "a checkout of the project", "run the demo from a checkout"
        )
    return folder
