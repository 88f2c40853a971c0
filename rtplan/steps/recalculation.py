"""What a plan from elsewhere must be before its dose is calculated, and what the reviewer of that dose must know."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtplan.checks import run_delivery_checks
from rtplan.checks.jaw import jaws_out_of_range
from rtplan.dicom.read_rtplan import ReadPlan
from rtplan.domain.context import Delivery
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.verdict import CheckResult, Finding
from rtplan.errors import CaseRejected

# What the machine's model cannot hold. Other limits (smallest gap, segment or MU) bind the machine but not its dose.
REFUSED = ("MLC_PAIRS", "MLC_TRAVEL", "METERSET")


def delivery_findings(delivery: Delivery) -> tuple[Finding, ...]:
    """Findings on a plan from elsewhere: what the checks of a delivery find, and every limit of the machine it breaks.

    Raises CaseRejected JAW, MLC_TRAVEL, MLC_PAIRS or METERSET for positions or MU that the machine does not have.
    """
    for beam in delivery.plan.beams:
        for i, point in enumerate(beam.control_points):
            fault = jaws_out_of_range(point.aperture, delivery.machine)
            if fault:
                raise _not_this_machines("JAW", f"beam {beam.number}, control point {i}: {fault}", delivery)
    results = run_delivery_checks(delivery)
    for result in results:
        if result.check_id in REFUSED and not result.passed:
            raise _not_this_machines(result.check_id, result.message, delivery)
    return tuple(finding for result in results for finding in _findings(result))


def _findings(result: CheckResult) -> tuple[Finding, ...]:
    """A check's findings; one that the plan did not pass is a finding itself."""
    failed = () if result.passed else (Finding(result.check_id, "flag", result.message),)
    return (*failed, *result.findings)


def _not_this_machines(code: str, found: str, delivery: Delivery) -> CaseRejected:
    machine_id = delivery.machine.machine_id
    return CaseRejected(
        code, found, f"what {machine_id} can deliver", "check that the plan was made for this machine, or correct its limits"
    )


def isocentre_findings(plan: DeliverablePlan, grid: Grid, body: NDArray[np.bool_]) -> tuple[Finding, ...]:
    """ISOCENTRE_OUTSIDE_BODY for a beam whose isocentre lies in the CT but not in the patient.

    Raises CaseRejected ISOCENTRE_OUTSIDE_CT. `body` (z, y, x) on `grid`, the CT's.
    """
    found = []
    for beam in plan.beams:
        point = beam.beam.isocentre_xyz_mm
        where = np.rint(grid.to_index(np.array(point))).astype(int)
        at = f"beam {beam.number}: isocentre ({', '.join(f'{v:.1f}' for v in point)}) mm"
        if np.any(where < 0) or np.any(where >= grid.shape_zyx):
            low, high = grid.bounds_mm()
            reach = ", ".join(f"{a:.0f} to {b:.0f}" for a, b in zip(low, high, strict=True))
            raise CaseRejected(
                "ISOCENTRE_OUTSIDE_CT", f"{at} lies outside the CT", f"x, y, z in {reach} mm", "choose the plan's own CT"
            )
        if not body[tuple(where)]:
            found.append(Finding("ISOCENTRE_OUTSIDE_BODY", "flag", f"{at} does not lie in the patient"))
    return tuple(found)


def require_same_patient(ct: CtImage, found: ReadPlan) -> None:
    """A plan may be calculated only on its own patient's CT. Raises CaseRejected PATIENT_MISMATCH or FOR_MISMATCH."""
    if found.patient_id != ct.series.patient.patient_id:
        raise CaseRejected(
            "PATIENT_MISMATCH",
            "the plan's PatientID is not the CT's",
            "plan and CT of one patient",
            "choose the matching CT",
        )
    if found.frame_of_reference_uid != ct.series.frame_of_reference_uid:
        raise CaseRejected(
            "FOR_MISMATCH",
            "the plan's frame of reference is not the CT's",
            "plan and CT in one frame of reference",
            "choose the CT that the plan was made on",
        )
