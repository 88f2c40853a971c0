"""All that a plan check may look at."""

from __future__ import annotations

from dataclasses import dataclass

from rtplan.domain.dose import Dose
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import Machine
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.prescription import Prescription
from rtplan.domain.structures import StructureSet


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """What a machine is to deliver, and into what: all that is known of a plan from elsewhere before its dose is."""

    plan: DeliverablePlan
    machine: Machine
    density: DensityImage


@dataclass(frozen=True, slots=True, eq=False)
class PlanContext(Delivery):
    """A plan with everything it is judged by. Doses are Gy over the whole course; `beam_doses` has one per plan beam."""

    dose: Dose
    beam_doses: tuple[Dose, ...]
    structures: StructureSet
    prescription: Prescription
