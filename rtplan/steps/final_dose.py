"""Dose of a deliverable plan from its control points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PartDose
from rtplan.domain.dose import Dose, dose_in_mask
from rtplan.domain.goals import evaluate_metric, parse_metric
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import Machine
from rtplan.domain.plan import ControlPoint, DeliverablePlan, PlanBeam
from rtplan.domain.prescription import Normalisation, Prescription
from rtplan.domain.progress import Progress, silent
from rtplan.domain.structures import StructureSet
from rtplan.errors import PlanningFailed
from rtplan.registry import shelf
from rtplan.steps.fluence import ARC_STEP_DEG, plan_fluence

LEAST_MU_MARGIN = 1.05  # over the machine's smallest MU, so that the normalisation seldom undercuts it


def plan_dose(
    density: DensityImage,
    plan: DeliverablePlan,
    machine: Machine,
    *,
    quality: str,
    backend: str,
    engine: str = "collapsed_cone",
    arc_step_deg: float = ARC_STEP_DEG,
) -> Dose:
    """Dose of all beams over the whole course on the density's grid, Gy to medium, in one calculation."""
    calculate = shelf("rtplan.engines")[engine].dose
    maps = plan_fluence(plan, machine, arc_step_deg=arc_step_deg)
    per_fraction = calculate(density, maps, machine.beam, quality=quality, backend=backend)
    return Dose(density.grid, per_fraction * np.float32(plan.fractions))


def part_doses(
    density: DensityImage,
    plan: DeliverablePlan,
    machine: Machine,
    *,
    quality: str,
    backend: str,
    engine: str = "collapsed_cone",
    progress: Progress = silent,
) -> tuple[PartDose, ...]:
    """Dose of every second beam and of the others over the whole course on the density's grid, Gy to medium.

    What the plan's dose is held against: two calculations find what one of all beams may lose or count twice, and cost two
    instead of one for each beam. A plan of one beam has one part.
    """
    doses: list[PartDose] = []
    for beams in (plan.beams[0::2], plan.beams[1::2]):
        progress("final_dose", len(doses) / 2, f"{len(beams)} of {len(plan.beams)} beams")
        if beams:
            part = replace(plan, beams=beams)
            dose = plan_dose(density, part, machine, quality=quality, backend=backend, engine=engine)
            doses.append(PartDose(tuple(b.number for b in beams), dose))
    return tuple(doses)


def normalisation_factor(rule: Normalisation, dose: Dose, structures: StructureSet, prescription: Prescription) -> float:
    """What the dose and all MU are multiplied by so that the rule's metric takes its value.

    Only metrics in Gy scale with the dose. Raises PlanningFailed NORMALISATION when the metric is not positive.
    """
    structure = structures[rule.structure]
    voxels = dose_in_mask(dose, structure.mask, structures.grid)
    value = evaluate_metric(
        parse_metric(rule.metric), voxels, structures.grid.voxel_cc, prescription.prescribed_gy(rule.structure)
    )
    if not value > 0.0:
        raise PlanningFailed("NORMALISATION", f"{rule.metric} of {rule.structure} is {value:g} Gy", "a positive dose")
    return rule.value / value


def scaled_plan(plan: DeliverablePlan, factor: float) -> DeliverablePlan:
    """The plan with every MU multiplied by `factor`."""

    def scaled(beam: PlanBeam) -> PlanBeam:
        points = tuple(ControlPoint(c.cumulative_mu * factor, c.gantry_angle_deg, c.aperture) for c in beam.control_points)
        return replace(beam, control_points=points)

    return replace(plan, beams=tuple(scaled(b) for b in plan.beams))


def scaled_dose(dose: Dose, factor: float) -> Dose:
    """The dose multiplied by `factor`."""
    return Dose(dose.grid, dose.dose_gy * np.float32(factor))
