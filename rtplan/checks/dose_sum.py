"""The plan's dose is the sum of its parts' (I-39, MC-18)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.dose import Dose
from rtplan.domain.example_context import example_context
from rtplan.domain.verdict import CheckResult

TOLERANCE = 1e-3  # of the plan's maximum


class DoseSum:
    """|Σ part doses - plan dose| is at most 0.1 % of the plan's maximum in every voxel; each beam is in one part, and no
    part holds all of several beams."""

    kind = "DOSE_SUM"

    def check(self, context: PlanContext) -> CheckResult:
        """Largest difference over all voxels."""
        total, parts = context.dose, context.part_doses
        numbers = sorted(b.number for b in context.plan.beams)
        whole = len(numbers) > 1 and any(len(p.beam_numbers) == len(numbers) for p in parts)
        if sorted(n for p in parts for n in p.beam_numbers) != numbers or whole:
            return CheckResult(self.kind, False, f"parts {[p.beam_numbers for p in parts]} for the beams {numbers}")
        if any(p.dose.grid != total.grid for p in parts):
            return CheckResult(self.kind, False, "a part's dose lies on another grid")
        difference = total.dose_gy.astype(np.float64)
        for part in parts:
            difference = difference - part.dose.dose_gy
        worst = float(np.abs(difference).max()) / max(float(total.dose_gy.max()), 1e-12)
        return CheckResult(self.kind, worst <= TOLERANCE, f"largest difference {100 * worst:.3f} % of the maximum")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the second part's dose is 1 % too high."""
        good = example_context()
        first, second = good.part_doses
        raised = replace(second, dose=Dose(second.dose.grid, second.dose.dose_gy * np.float32(1.01)))
        return good, replace(good, part_doses=(first, raised))


PLUGIN = DoseSum()
