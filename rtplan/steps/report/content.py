"""All figures and texts of a report as plain values: the JSON file is this, and the HTML page is drawn from it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from rtplan.domain.dose import Dvh
from rtplan.domain.ledger import STAGES
from rtplan.domain.plan import PlanBeam
from rtplan.domain.verification import TargetSummary
from rtplan.steps.delivery_time import BeamTime, delivery_time
from rtplan.steps.report.contours import contour_records, finding_record, in_order
from rtplan.steps.report.data import ReportData
from rtplan.steps.report.goals import goal_records

SCHEMA = "rtplan.report/1"
NOTICE = "AUTO-GENERATED - NOT APPROVED - recalculate & QA before use"


def content(data: ReportData) -> dict[str, Any]:
    """The report as nested dicts and lists of text, finite numbers, booleans and None (see docs/report.md)."""
    verification, series = data.verification, data.ct.series
    judged = [g for g in verification.goals if g.met is not None]
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "created": data.created.isoformat(timespec="seconds"),
        "outcome": verification.outcome,
        "goals_met": sum(bool(g.met) for g in judged),
        "goals_judged": len(judged),
        "goals_total": len(verification.goals),
        "held": [f.line for f in data.findings if f.severity == "hold"],
        "patient": {
            "id": series.patient.patient_id,
            "name": series.patient.name,
            "birth_date": series.patient.birth_date,
            "sex": series.patient.sex,
            "position": data.ct.patient_position,
            "study_instance_uid": series.study_instance_uid,
            "series_instance_uid": series.series_instance_uid,
            "study_date": series.study_date,
        },
        "protocol": _protocol(data),
        "machine": _machine(data),
        "goals": goal_records(verification.goals, data.certificates, data.ledger, data.structures),
        "ledger": {
            "shift_mm": data.ledger.shift_mm,
            "stages": sorted({s.stage for row in data.ledger.rows for s in row.stages}, key=STAGES.index),
        },
        "targets": [_target(t) for t in verification.targets],
        "contours": contour_records(data.structures),
        "structures": [_structure(d, data) for d in verification.dvhs],
        "hottest": {
            "dose_gy": verification.hottest.dose_gy,
            "point_xyz_mm": list(verification.hottest.point_xyz_mm),
            "structures": list(verification.hottest.structures),
        },
        "plan": _plan(data),
        "beams": [
            _beam(b, time) for b, time in zip(data.plan.beams, delivery_time(data.plan, data.machine).beams, strict=True)
        ],
        "findings": [finding_record(f, data.ct.grid) for f in in_order(data.findings)],
        "checks": [
            {"id": c.check_id, "passed": c.passed, "message": c.message}
            for c in sorted(verification.checks, key=lambda c: c.passed)
        ],
        "assumptions": [*_assumptions(data), *data.assumptions],
        "dose": _dose(data),
        "solver": {
            "objective_value": _finite(data.solver.objective_value),
            "relative_gap": _finite(data.solver.relative_gap),
            "iterations": data.solver.iterations,
            "converged": data.solver.converged,
        },
        "timings_s": [{"step": step, "seconds": round(seconds, 3)} for step, seconds in data.timings_s],
        "provenance": dict(data.provenance),
    }


def _finite(value: float | None) -> float | None:
    """The value, or None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)


def _protocol(data: ReportData) -> dict[str, Any]:
    """The protocol and what it prescribes for this patient."""
    protocol = data.prescription.protocol
    rule = protocol.normalisation
    return {
        "id": protocol.protocol_id,
        "version": protocol.version,
        "title": protocol.title,
        "status": protocol.status,
        "sources": list(protocol.sources),
        "fractions": protocol.fractions,
        "targets": [
            {"name": t.name, "dose_gy": t.dose_gy, "dose_per_fraction_gy": t.dose_gy / protocol.fractions}
            for t in data.prescription.targets
        ],
        "normalisation": None if rule is None else f"{rule.metric} of {rule.structure} = {rule.value:g}",
        "normalisation_factor": data.normalisation_factor,
    }


def _machine(data: ReportData) -> dict[str, Any]:
    """The machine and its status in words."""
    machine = data.machine
    return {
        "id": machine.machine_id,
        "version": machine.version,
        "title": machine.title,
        "status": machine.status,
        "energy": machine.beam.energy_id,
        "sources": list(machine.sources),
    }


def _target(target: TargetSummary) -> dict[str, Any]:
    """Figures of one target."""
    return {
        "name": target.name,
        "prescribed_gy": target.prescribed_gy,
        "volume_cc": target.volume_cc,
        "d99_gy": target.d99_gy,
        "d98_gy": target.d98_gy,
        "d95_gy": target.d95_gy,
        "d50_gy": target.d50_gy,
        "d2_gy": target.d2_gy,
        "d1_gy": target.d1_gy,
        "mean_gy": target.mean_gy,
        "max_gy": target.max_gy,
        "v95_percent": target.v95_percent,
        "v107_percent": target.v107_percent,
        "homogeneity_index": _finite(target.homogeneity_index),
        "conformity_index": _finite(target.conformity_index),
    }


def _structure(dvh: Dvh, data: ReportData) -> dict[str, Any]:
    """One structure's dose statistics and histogram."""
    structure = data.structures[dvh.structure]
    return {
        "name": dvh.structure,
        "kind": structure.kind,
        "source_name": structure.source_name,
        "origin": structure.origin,
        "volume_cc": dvh.volume_cc,
        "min_gy": dvh.min_gy,
        "mean_gy": dvh.mean_gy,
        "max_gy": dvh.max_gy,
        "in_dose_grid_percent": _in_dose_grid_percent(dvh.structure, data),
        "dvh": {
            "dose_gy": [round(float(v), 4) for v in dvh.dose_gy],
            "volume_percent": [round(float(v), 4) for v in dvh.volume_percent],
        },
    }


def _in_dose_grid_percent(name: str, data: ReportData) -> float:
    """How much of a structure has a dose at all: outside the dose grid it counts as zero."""
    mask, grid = data.structures[name].mask, data.structures.grid
    low, high = data.dose.grid.bounds_mm()
    inside = [
        (centres > low[2 - axis]) & (centres < high[2 - axis])
        for axis, centres in enumerate((grid.z_mm(), grid.y_mm(), grid.x_mm()))
    ]
    return 100.0 * int(mask[np.ix_(*inside)].sum()) / int(mask.sum())


def _plan(data: ReportData) -> dict[str, Any]:
    """Totals of the plan."""
    plan = data.plan
    per_fraction_gy = data.prescription.targets[0].dose_gy / plan.fractions
    return {
        "fractions": plan.fractions,
        "beams": len(plan.beams),
        "mu_per_fraction": plan.mu,
        # How much the modulation costs: an open 10x10 beam gives about 1 cGy for 1 MU.
        "mu_per_prescribed_cgy": plan.mu / (100.0 * per_fraction_gy),
        "arcs": sum(b.is_arc for b in plan.beams),
        "segments": sum(_segments(b) for b in plan.beams),
        "control_points": sum(len(b.control_points) for b in plan.beams),
        "delivery_s": round(delivery_time(plan, data.machine).total_s, 1),
    }


def _segments(beam: PlanBeam) -> int:
    """Spans between control points in which radiation is given with the gantry at rest; an arc has none."""
    if beam.is_arc:
        return 0
    points = beam.control_points
    return sum(b.cumulative_mu > a.cumulative_mu for a, b in itertools.pairwise(points))


def _beam(beam: PlanBeam, time: BeamTime) -> dict[str, Any]:
    """One beam: angles, MU, seconds, and the largest jaw opening of its control points."""
    apertures = [p.aperture for p in beam.control_points]
    x1, x2 = min(a.jaw_x1_mm for a in apertures), max(a.jaw_x2_mm for a in apertures)
    y1, y2 = min(a.jaw_y1_mm for a in apertures), max(a.jaw_y2_mm for a in apertures)
    return {
        "number": beam.number,
        "name": beam.beam.name,
        "gantry_angle_deg": beam.beam.gantry_angle_deg,
        "gantry_end_deg": beam.control_points[-1].gantry_angle_deg,
        "rotation": beam.rotation,
        "arc_deg": float(np.abs(beam.turns_deg).sum()),
        "collimator_angle_deg": beam.beam.collimator_angle_deg,
        "couch_angle_deg": beam.beam.couch_angle_deg,
        "isocentre_xyz_mm": list(beam.beam.isocentre_xyz_mm),
        "mu": beam.mu,
        "segments": _segments(beam),
        "control_points": len(beam.control_points),
        "delivery_s": round(time.total_s, 1),
        "jaws_mm": {"x1": x1, "x2": x2, "y1": y1, "y2": y2},
        "field_cm": [(x2 - x1) / 10.0, (y2 - y1) / 10.0],
    }


def _dose(data: ReportData) -> dict[str, Any]:
    """How the dose was calculated and on which grid."""
    summary, grid = data.dose_summary, data.dose.grid
    return {
        "engine": summary.engine,
        "quality": summary.quality,
        "cones": summary.cones,
        "backend": summary.backend,
        "reported_as": "absorbed dose to medium, whole course",
        "max_gy": float(data.dose.dose_gy.max()),
        "grid_spacing_xyz_mm": [grid.spacing_zyx_mm[2], grid.spacing_zyx_mm[1], grid.spacing_zyx_mm[0]],
        "grid_size_xyz": [grid.shape_zyx[2], grid.shape_zyx[1], grid.shape_zyx[0]],
    }


def _assumptions(data: ReportData) -> list[str]:
    """What every plan of rtplan takes for granted, in the words of this case."""
    status = data.machine.status
    unverified = sum(g.goal.status == "unverified" for g in data.verification.goals)
    sentences = [
        f"Machine {data.machine.machine_id} is {status}: dose and MU hold for its beam model, not for any real accelerator.",
        "Dose is absorbed dose to medium. A system that reports dose to water differs most in bone.",
        "Nothing outside the External structure attenuates or receives dose: couch, mask and bolus are not modelled.",
        f"The patient lies head first supine ({data.ct.patient_position}); couch angles are in the beams table.",
        "Contours are taken as they were given; target margins are those of the protocol.",
        "Previous irradiation is not known to the engine and not taken into account.",
        f"Shifts of {data.ledger.shift_mm:g} mm move the patient through the dose as it stands: what densities moved along "
        "would change is left out, and tissue that moves to where air was has the dose of air, too low near the skin.",
    ]
    drawn = [s.name for s in data.structures if s.origin == "model"]
    if drawn:
        sentences.append(f"Nobody has reviewed what a model drew: {', '.join(drawn)}.")
    if unverified:
        sentences.append(
            f"{unverified} of {len(data.verification.goals)} goals are unverified: their limits need a physicist's word."
        )
    return sentences
