"""The dose of a plan from elsewhere on its CT, for `rtplan dose`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.read_rtplan import read_rtplan
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtdose import write_rtdose
from rtplan.domain.context import Delivery
from rtplan.domain.dose import Dose
from rtplan.domain.progress import Progress
from rtplan.domain.verdict import Finding
from rtplan.library.calibrations import load_calibration
from rtplan.library.machines import list_machines, load_machine
from rtplan.pipeline import CALIBRATION, ENGINE, Steps, backend_of
from rtplan.steps.final_dose import plan_dose
from rtplan.steps.ingest import (
    body_findings,
    body_mask,
    calibration_finding,
    densities,
    density_findings,
    dose_grid,
    resample_density,
)
from rtplan.steps.recalculation import delivery_findings, isocentre_findings, require_same_patient

GRID_MM = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class Recalculation:
    """Dose of a plan from elsewhere, Gy over the whole course, and what its reviewer must know."""

    dose: Dose
    findings: tuple[Finding, ...]


def recalculate(ct_dir: Path, plan_path: Path, out_path: Path, *, device: str, progress: Progress) -> Recalculation:
    """Dose of an existing RTPLAN on a CT, written as RTDOSE. The machine is the one that the plan names.

    Raises CaseRejected for what cannot be reproduced, such as a plan of another patient or frame of reference, one with an
    isocentre outside the CT, or one with positions that its machine does not have.
    """
    steps = Steps(progress)
    backend = backend_of(device)
    ct = steps.run("ingest", lambda: read_ct(ct_dir))
    machines = {name: load_machine(name) for name in list_machines()}
    found = steps.run("read plan", lambda: read_rtplan(plan_path, machines))
    require_same_patient(ct, found)
    calibration, machine = load_calibration(CALIBRATION), found.machine
    body = body_mask(ct)
    density = densities(ct, body, calibration)
    findings = (
        *ct.findings,
        *found.findings,
        *body_findings(ct, body),
        *density_findings(ct, body, calibration),
        calibration_finding(ct, calibration),
        *isocentre_findings(found.plan, ct.grid, body),
        *delivery_findings(Delivery(found.plan, machine, density)),
    )
    density = resample_density(density, dose_grid(ct, body, GRID_MM))
    total = steps.run(
        "final_dose",
        lambda: plan_dose(density, found.plan, machine, quality="final", backend=backend, engine=ENGINE),
    )
    ids = replace(new_output_ids(datetime.now(UTC)), plan_uid=found.sop_instance_uid)
    write_rtdose(out_path, total, ct, ids, findings)
    return Recalculation(total, tuple(dict.fromkeys(findings)))
