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
class PartDose:
    """Dose over the whole course of some beams of a plan, which `beam_numbers` name, calculated by itself."""

    beam_numbers: tuple[int, ...]
    dose: Dose


@dataclass(frozen=True, slots=True, eq=False)
class PlanContext(Delivery):
    """A plan with everything it is judged by. Doses are Gy over the whole course; every beam is in one of `part_doses`."""

    dose: Dose
    part_doses: tuple[PartDose, ...]
    structures: StructureSet
    prescription: Prescription
