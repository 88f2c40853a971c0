"""The plan's dose is the sum of its beams' (I-39, MC-18)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.dose import Dose
from rtplan.domain.example_context import example_context
from rtplan.domain.verdict import CheckResult

TOLERANCE = 1e-3  # of the plan's maximum


class DoseSum:
    """|Σ beam doses - plan dose| is at most 0.1 % of the plan's maximum in every voxel; one dose per beam."""

    kind = "DOSE_SUM"

    def check(self, context: PlanContext) -> CheckResult:
        """Largest difference over all voxels."""
        total, beams = context.dose, context.beam_doses
        if len(beams) != len(context.plan.beams) or any(b.grid != total.grid for b in beams):
            message = f"{len(beams)} beam doses for {len(context.plan.beams)} beams, or on another grid"
            return CheckResult(self.kind, False, message)
        difference = total.dose_gy.astype(np.float64)
        for beam in beams:
            difference = difference - beam.dose_gy
        worst = float(np.abs(difference).max()) / max(float(total.dose_gy.max()), 1e-12)
        return CheckResult(self.kind, worst <= TOLERANCE, f"largest difference {100 * worst:.3f} % of the maximum")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the second beam's dose is 1 % too high."""
        good = example_context()
        first, second = good.beam_doses
        return good, replace(good, beam_doses=(first, Dose(second.grid, second.dose_gy * np.float32(1.01))))


PLUGIN = DoseSum()
