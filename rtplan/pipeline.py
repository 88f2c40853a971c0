"""The spine: from a CT series and contours to a DICOM-RT plan proposal, one call per step.

Read this file to understand rtplan; look at a shelf (engines, objectives, checks, channels, library) to add to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from kernels.backend import get_backend
from kernels.contract import BackendUnavailable
from rtplan import arc_planning, conformal_planning, planning
from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.read_rtstruct import read_rtstruct
from rtplan.dicom.uids import OutputIds, new_output_ids
from rtplan.dicom.write_rtdose import write_rtdose
from rtplan.dicom.write_rtplan import write_rtplan
from rtplan.dicom.write_rtstruct import write_rtstruct
from rtplan.domain.beams import Beam
from rtplan.domain.case import Order
from rtplan.domain.context import PartDose, PlanContext
from rtplan.domain.dose import Dose
from rtplan.domain.goals import Certificate, Goal
from rtplan.domain.image import CtImage, DensityImage, HuCalibration
from rtplan.domain.ledger import Stage
from rtplan.domain.machine import Machine
from rtplan.domain.outcome import CaseOutcome
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.prescription import Prescription, Protocol, Technique
from rtplan.domain.progress import Progress
from rtplan.domain.structures import ContourSet, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import BackendMissing, CaseRejected, SafetyStop
from rtplan.library.calibrations import load_calibration
from rtplan.library.machines import load_machine
from rtplan.library.models import load_segmenter
from rtplan.library.protocols import load_protocol, with_technique
from rtplan.library.water import KERNEL_TABLE
from rtplan.provenance import code_version, sha256_of_bytes, sha256_of_file
from rtplan.registry import shelf
from rtplan.settings import load_settings
from rtplan.steps.auto_contour import NOTHING_DRAWN, DrawnOrgans, LoadModel, missing_organs
from rtplan.steps.clearance import clearance_findings
from rtplan.steps.final_dose import normalisation_factor, part_doses, scaled_dose, scaled_plan
from rtplan.steps.ingest import (
    body_findings,
    body_mask,
    calibration_finding,
    densities,
    density_findings,
    resample_density,
)
from rtplan.steps.judging import JudgingDose
from rtplan.steps.ledger import ledger
from rtplan.steps.place_beams import place_beamlets, place_beams, target_union, unused_beams
from rtplan.steps.prescribe import prescribe
from rtplan.steps.report import DoseSummary, ReportData, SolverSummary, write_report
from rtplan.steps.reread import confirm_written
from rtplan.steps.samples import samples_in
from rtplan.steps.segment import lacking_organs, structures_from_contours
from rtplan.steps.verify import verify
from rtplan.steps.voxels import planning_grid, voxel_sets, voxels_of_interest
from segmentation.contract import Segmenter

CALIBRATION = "generic_120kvp"
ENGINE = "collapsed_cone"
CHANNEL = "folder"
BACKEND_OF_DEVICE = {"auto": "cpu", "cpu": "cpu", "gpu": "cuda", "cuda": "cuda"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What the order names, read and checked."""

    ct: CtImage
    contours: ContourSet
    protocol: Protocol
    machine: Machine
    calibration: HuCalibration


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """The patient as the planner sees it: densities and structures on the CT's grid, and what is prescribed."""

    structures: StructureSet
    prescription: Prescription
    density: DensityImage
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A deliverable plan with its final dose, calculated of all beams at once and in parts.

    `before` is the dose before the normalisation, `factor` what that multiplied every MU by.
    """

    plan: DeliverablePlan
    dose: Dose
    part_doses: tuple[PartDose, ...]
    before: Dose
    factor: float


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a technique makes of a patient: the finished plan, the beams it began with, and what its reviewer must know.

    `stages` are doses on the way to the final one.
    """

    planned: Planned
    beams: tuple[Beam, ...]
    findings: tuple[Finding, ...]
    solver: SolverSummary
    certificates: tuple[Certificate, ...] = ()
    stages: Mapping[Stage, Dose] = field(default_factory=dict)


class Steps:
    """Runs steps and remembers how long each took; one instance per case."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.timings_s: list[tuple[str, float]] = []

    def run(self, name: str, step: Callable[[], T]) -> T:
        """Run one step under its name."""
        self.progress(name, 0.0)
        started = time.monotonic()
        result = step()
        self.timings_s.append((name, time.monotonic() - started))
        self.progress(name, 1.0, f"{self.timings_s[-1][1]:.1f} s")
        return result


def configured_model(model_id: str) -> Segmenter:
    """A segmentation model that ships or that the settings name. Reads no model file and does not import torch."""
    return load_segmenter(model_id, load_settings().models)


def plan_case(order: Order, out_dir: Path, *, progress: Progress, load_model: LoadModel = configured_model) -> CaseOutcome:
    """Plan one case into `out_dir`. Raises RtplanError: CaseRejected, LibraryInvalid, PlanningFailed, SafetyStop, ..."""
    steps, started = Steps(progress), time.monotonic()
    backend = backend_of(order.device)
    inputs = steps.run("ingest", lambda: read_inputs(order))
    drawn = steps.run("contour", lambda: contoured(order, inputs, backend, load_model))
    patient = steps.run("prescribe", lambda: prepare(inputs, drawn))
    made = TECHNIQUES[inputs.protocol.technique](inputs, patient, backend, steps)
    planned = made.planned
    book = steps.run("ledger", lambda: ledger(patient.prescription, patient.structures, made.stages, planned.dose))
    context = PlanContext(
        planned.plan,
        inputs.machine,
        patient.density,
        planned.dose,
        planned.part_doses,
        patient.structures,
        patient.prescription,
    )
    verification = steps.run("verify", lambda: verify(context))
    failed = [c for c in verification.checks if not c.passed]
    if failed:
        raise SafetyStop(failed[0].check_id, "; ".join(c.message for c in failed), "a plan that passes every check")
    data = ReportData(
        created=datetime.now(UTC),
        ct=inputs.ct,
        structures=patient.structures,
        prescription=patient.prescription,
        machine=inputs.machine,
        plan=planned.plan,
        dose=planned.dose,
        verification=verification,
        findings=(
            *patient.findings,
            *made.findings,
            *unused_beams(made.beams, planned.plan),
            *clearance_findings(planned.plan, patient.structures),
            *(finding for check in verification.checks for finding in check.findings),
        ),
        assumptions=assumptions(inputs),
        timings_s=tuple(steps.timings_s),
        solver=made.solver,
        dose_summary=DoseSummary(ENGINE, "final", shelf("rtplan.engines")[ENGINE].cones("final"), backend),
        provenance=provenance(inputs, drawn),
        ledger=book,
        normalisation_factor=planned.factor,
        certificates=made.certificates,
    )
    files = steps.run("deliver", lambda: deliver(data, context, out_dir))
    judged = [g for g in verification.goals if g.met is not None]
    missed = tuple(goal_text(g.goal, g.value) for g in judged if not g.met and g.value is not None)
    return CaseOutcome(
        outcome=verification.outcome,
        code="PLANNED",
        message=f"{len(judged) - len(missed)} of {len(judged)} goals met, {planned.plan.mu:.0f} MU",
        files=files,
        goals_met=len(judged) - len(missed),
        goals_total=len(judged),
        missed=missed,
        held=tuple(f.line for f in data.findings if f.severity == "hold"),
        seconds=time.monotonic() - started,
    )


def modulated(inputs: Inputs, patient: Patient, backend: str, steps: Steps) -> Made:
    """Intensity-modulated fields: ideal fluence, segments optimised on the full dose, and what was out of reach."""
    progress = steps.progress
    beams = place_beams(patient.prescription, patient.structures, inputs.machine)
    grid_mm = inputs.protocol.optimisation_grid_mm
    model = steps.run("influence", lambda: planning_model(inputs, patient, beams, grid_mm, backend, progress))
    judge = judging_dose(inputs, patient, backend)
    fluence, problem = steps.run("optimise", lambda: planning.ideal_fluence(model, progress))
    plan, dose = steps.run("sequence", lambda: planning.deliverable(model, fluence, problem, judge, progress))
    planned = steps.run("final_dose", lambda: normalised(inputs, patient, judge, plan, dose, progress))
    bounds = steps.run("certify", lambda: planning.certificates(model, problem, fluence, planned.dose, progress))
    maps = planning.fluence_maps(fluence.beamlets, fluence.weights_mu)
    ideal = steps.run("ideal_dose", lambda: judge.of_fluence(maps, model.fractions))
    stages: dict[Stage, Dose] = {"ideal_fluence": ideal, "sequenced": planned.before}
    solver = SolverSummary(fluence.objective_value, fluence.relative_gap, fluence.iterations, fluence.converged)
    return Made(planned, beams, planning.not_optimised(model), solver, bounds, stages)


def rotational(inputs: Inputs, patient: Patient, backend: str, steps: Steps) -> Made:
    """Arcs: ideal fluence of beams along them, apertures in motion optimised on the full dose."""
    progress = steps.progress
    arcs, beams = arc_planning.arcs_of(patient.prescription, patient.structures, inputs.machine)
    grid_mm = arc_planning.GRID_FACTOR * inputs.protocol.optimisation_grid_mm
    model = steps.run("influence", lambda: planning_model(inputs, patient, beams, grid_mm, backend, progress))
    judge = judging_dose(inputs, patient, backend)
    fluence, problem = steps.run("optimise", lambda: arc_planning.ideal_fluence(model, progress))
    plan = steps.run("sequence", lambda: arc_planning.deliverable(model, arcs, fluence, problem, judge.measured, progress))
    planned = steps.run("final_dose", lambda: normalised(inputs, patient, judge, plan, judge.of(plan), progress))
    mu, dose = planned.plan.mu, planned.dose
    bounds = steps.run("certify", lambda: arc_planning.certificates(model, arcs, problem, fluence, mu, dose, progress))
    maps = arc_planning.fluence_maps(fluence)
    ideal = steps.run("ideal_dose", lambda: judge.of_fluence(maps, model.fractions))
    stages: dict[Stage, Dose] = {"ideal_fluence": ideal, "sequenced": planned.before}
    solver = SolverSummary(fluence.objective_value, fluence.relative_gap, fluence.iterations, fluence.converged)
    starts = tuple(arc.start for arc in arcs)
    return Made(planned, starts, planning.not_optimised(model), solver, bounds, stages)


def conformal(inputs: Inputs, patient: Patient, backend: str, steps: Steps) -> Made:
    """Fields on the target's outline with segments that even out the dose, normalised by the protocol's rule."""
    made = steps.run(
        "conformal",
        lambda: conformal_planning.conformal_plan(
            patient.density,
            patient.structures,
            patient.prescription,
            inputs.machine,
            backend=backend,
            engine=ENGINE,
            progress=steps.progress,
        ),
    )
    judge = judging_dose(inputs, patient, backend)
    planned = steps.run(
        "final_dose", lambda: normalised(inputs, patient, judge, made.plan, judge.of(made.plan), steps.progress)
    )
    solver = SolverSummary(made.objective_value, math.inf, made.iterations, made.converged)
    return Made(planned, made.beams, made.findings, solver)


TECHNIQUES: dict[Technique, Callable[[Inputs, Patient, str, Steps], Made]] = {
    "imrt": modulated,
    "vmat": rotational,
    "conformal": conformal,
}


def backend_of(device: str) -> str:
    """Kernel backend of a device, once it has shown that it can run here. `auto` is the CPU. Raises BackendMissing."""
    name = BACKEND_OF_DEVICE.get(device)
    if name is None:
        known = ", ".join(BACKEND_OF_DEVICE)
        raise BackendMissing("BACKEND_MISSING", f"device {device!r} was asked for", known, "choose one of these")
    try:
        return get_backend(name).name
    except BackendUnavailable as error:
        raise BackendMissing(
            "BACKEND_MISSING",
            f"device {device!r} was asked for: {error}",
            "a device of this computer",
            "choose --device cpu",
        ) from error


def read_inputs(order: Order) -> Inputs:
    """Read and check what the order names. The library comes first: a typing mistake should not cost a CT's reading."""
    protocol, machine = load_protocol(order.protocol_id), load_machine(order.machine_id)
    if order.technique is not None:
        protocol = with_technique(protocol, order.technique)
    if order.structures_path is None:
        raise CaseRejected(
            "SS_MISSING",
            "no structure set was named",
            "an RTSTRUCT with the targets, which a physician draws and no model invents",
            "give it with --structures; `rtplan segment` proposes organs to begin with",
        )
    ct = read_ct(Path(order.ct_dir))
    return Inputs(ct, read_rtstruct(Path(order.structures_path), ct), protocol, machine, load_calibration(CALIBRATION))


def contoured(order: Order, inputs: Inputs, device: str, load_model: LoadModel = configured_model) -> DrawnOrgans:
    """The organs that the protocol uses and the structure set lacks, by the order's model where that knows them."""
    lacking = lacking_organs(inputs.contours, inputs.protocol)
    required = [organ.name for organ in inputs.protocol.organs if organ.required]
    return missing_organs(inputs.ct, lacking, required, model_id=order.model_id, load_model=load_model, device=device)


def prepare(inputs: Inputs, drawn: DrawnOrgans = NOTHING_DRAWN) -> Patient:
    """Body, structures, prescription and densities of the patient. `drawn` are the organs that a model added."""
    ct = inputs.ct
    body = body_mask(ct)
    contours = structures_from_contours(inputs.contours, ct, body, inputs.protocol, drawn)
    prescription, structures = prescribe(contours, inputs.protocol)
    external = structures.external.mask
    findings = (
        *ct.findings,
        *inputs.contours.findings,
        *body_findings(ct, body),
        *density_findings(ct, external, inputs.calibration),
        *structures.findings,
        *prescription.findings,
        calibration_finding(ct, inputs.calibration),
    )
    unique = tuple(dict.fromkeys(findings))
    return Patient(structures, prescription, densities(ct, external, inputs.calibration), unique)


def planning_model(
    inputs: Inputs, patient: Patient, beams: tuple[Beam, ...], grid_mm: float, backend: str, progress: Progress
) -> planning.PlanningModel:
    """Beamlets of the beams, and the influence operator on an optimisation grid of `grid_mm`."""
    protocol, structures = inputs.protocol, patient.structures
    target = target_union(patient.prescription, structures)
    beamlets = place_beamlets(beams, target, structures.grid, inputs.machine, protocol)
    targets = tuple(t.name for t in patient.prescription.targets)
    grid = planning_grid(structures, targets, grid_mm)
    density = resample_density(patient.density, grid)
    voxels = voxels_of_interest(structures, grid)
    operator = shelf("rtplan.engines")[ENGINE].influence(
        density, beamlets, inputs.machine.beam, voxels, backend=backend, progress=progress
    )
    names = {g.structure for g in patient.prescription.goals} | set(targets)
    return planning.PlanningModel(
        density=density,
        operator=operator,
        prescription=patient.prescription,
        structures=structures,
        sets=voxel_sets(structures, names, grid, voxels),
        samples={name: samples_in(structures, name, grid, voxels) for name in sorted(names)},
        machine=inputs.machine,
        backend=backend,
        engine=ENGINE,
    )


def judging_dose(inputs: Inputs, patient: Patient, backend: str) -> JudgingDose:
    """The protocol's dose grid over all that a goal names."""
    goals = tuple(g.structure for g in patient.prescription.goals if g.structure in patient.structures)
    targets = tuple(t.name for t in patient.prescription.targets)
    grid = planning_grid(patient.structures, targets + goals, inputs.protocol.dose_grid_mm)
    return JudgingDose(resample_density(patient.density, grid), inputs.machine, backend, ENGINE)


def normalised(
    inputs: Inputs, patient: Patient, judge: JudgingDose, plan: DeliverablePlan, dose: Dose, progress: Progress
) -> Planned:
    """The plan normalised by the protocol's rule, and its dose; `dose` is that before, in final quality."""
    before, factor = dose, 1.0
    if inputs.protocol.normalisation is not None:
        factor = normalisation_factor(inputs.protocol.normalisation, dose, patient.structures, patient.prescription)
        plan, dose = scaled_plan(plan, factor), scaled_dose(dose, factor)
        strong = planning.with_least_mu(plan, inputs.machine)
        if strong is not plan:
            # Something fell below what the machine can give: it is raised to that, and the dose is what it then is.
            plan, dose = strong, judge.of(strong)
    parts = part_doses(
        judge.density, plan, judge.machine, quality="final", backend=judge.backend, engine=ENGINE, progress=progress
    )
    return Planned(plan, dose, parts, before, factor)


def deliver(data: ReportData, context: PlanContext, out_dir: Path) -> tuple[str, ...]:
    """Write all files, read them back, and hand them to the channel together; returns their names. Raises SafetyStop."""
    ids: OutputIds = new_output_ids(data.created)
    with TemporaryDirectory(prefix="rtplan-") as folder:
        made = Path(folder)
        write_rtstruct(made / "RTSTRUCT.dcm", data.structures, data.ct, ids, data.findings)
        write_rtplan(made / "RTPLAN.dcm", data.plan, data.prescription, data.machine, data.ct, ids, data.findings)
        write_rtdose(made / "RTDOSE.dcm", data.dose, data.ct, ids, data.findings)
        confirm_written(made / "RTSTRUCT.dcm", made / "RTPLAN.dcm", made / "RTDOSE.dcm", context, data.ct)
        html, js = write_report(data, made)
        files = [made / "RTSTRUCT.dcm", made / "RTPLAN.dcm", made / "RTDOSE.dcm", js, html]
        names: tuple[str, ...] = shelf("rtplan.channels")[CHANNEL].deliver(files, out_dir)
        return names


def provenance(inputs: Inputs, drawn: DrawnOrgans) -> tuple[tuple[str, str], ...]:
    """What the plan was made from and by, as (name, SHA-256 or version)."""
    model = () if drawn.model is None else ((f"model {drawn.model[0]}", drawn.model[1]),)
    return (
        ("code", code_version()),
        ("ct", inputs.ct.sha256),
        ("structures", inputs.contours.sha256),
        *model,
        (f"protocol {inputs.protocol.protocol_id} {inputs.protocol.version}", inputs.protocol.sha256),
        (f"machine {inputs.machine.machine_id} {inputs.machine.version}", inputs.machine.sha256),
        (f"beam {inputs.machine.beam.energy_id}", inputs.machine.beam.sha256),
        ("kernels", sha256_of_file(KERNEL_TABLE)),
        (f"calibration {inputs.calibration.calibration_id}", sha256_of_bytes(repr(inputs.calibration).encode())),
    )


def assumptions(inputs: Inputs) -> tuple[str, ...]:
    """What was taken for granted, in sentences for the reviewer."""
    return (
        f"Densities by the calibration {inputs.calibration.calibration_id} ({inputs.calibration.status}).",
        "No second dose engine has checked this plan.",
    )


def goal_text(goal: Goal, value: float) -> str:
    """A missed goal in one line: "Parotid_L Mean[Gy] 27.3, limit <= 26"."""
    return f"{goal.structure} {goal.metric.text} {value:.4g}, limit {goal.sense} {goal.limit:g}"
