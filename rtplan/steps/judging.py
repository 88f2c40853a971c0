"""Doses on the grid that a plan is judged on: of fluence, of a plan on the way, and of the finished one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rtplan.domain.beams import FluenceMap
from rtplan.domain.dose import Dose
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import Machine
from rtplan.domain.plan import DeliverablePlan
from rtplan.registry import shelf
from rtplan.steps.final_dose import plan_dose
from rtplan.steps.fluence import ARC_STEP_DEG, PLANNING_STEP_DEG


@dataclass(frozen=True, slots=True, eq=False)
class JudgingDose:
    """Doses over the whole course on the density's grid, Gy to medium."""

    density: DensityImage
    machine: Machine
    backend: str
    engine: str

    def of(self, plan: DeliverablePlan, quality: str = "final", arc_step_deg: float = ARC_STEP_DEG) -> Dose:
        """Dose of a plan in one calculation."""
        return plan_dose(
            self.density,
            plan,
            self.machine,
            quality=quality,
            backend=self.backend,
            engine=self.engine,
            arc_step_deg=arc_step_deg,
        )

    def measured(self, plan: DeliverablePlan) -> Dose:
        """Dose that is close enough to plan with; the maps of arcs are `PLANNING_STEP_DEG` apart."""
        return self.of(plan, "standard", PLANNING_STEP_DEG)

    def of_fluence(self, fluence: Sequence[FluenceMap], fractions: int) -> Dose:
        """Dose of fluence maps, MU per fraction, close enough to plan with: no leaves, jaws or transmission."""
        calculate = shelf("rtplan.engines")[self.engine].dose
        per_fraction = calculate(self.density, fluence, self.machine.beam, quality="standard", backend=self.backend)
        return Dose(self.density.grid, per_fraction * np.float32(fractions))
