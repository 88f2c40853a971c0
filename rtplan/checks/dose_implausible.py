"""The dose is one that a plan can have (I-37, MC-17)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.dose import Dose, dose_in_mask
from rtplan.domain.example_context import example_context
from rtplan.domain.verdict import CheckResult

HOT_FRACTION = 1.5  # of the highest prescription
MEDIAN_TOLERANCE = 0.1  # of a target's prescription (I-41)


class DoseImplausible:
    """Dose is finite and not negative, nowhere above 150 % of the highest prescription, and the median dose of the target
    with the highest prescription is within 10 % of it."""

    kind = "DOSE_IMPLAUSIBLE"

    def check(self, context: PlanContext) -> CheckResult:
        """First rule that the dose breaks."""
        dose, targets = context.dose.dose_gy, context.prescription.targets
        if not np.all(np.isfinite(dose)) or float(dose.min()) < 0:
            bad = int(np.sum(~np.isfinite(dose)) + np.sum(dose < 0))
            return CheckResult(self.kind, False, f"{bad} voxels are negative or not finite")
        highest = max(targets, key=lambda t: t.dose_gy)
        hottest = float(dose.max())
        if hottest > HOT_FRACTION * highest.dose_gy:
            message = f"hottest voxel {hottest:.1f} Gy, {100 * hottest / highest.dose_gy:.0f} % of {highest.dose_gy:g} Gy"
            return CheckResult(self.kind, False, message)
        inside = dose_in_mask(context.dose, context.structures[highest.name].mask, context.structures.grid)
        median = float(np.median(inside))
        passed = abs(median - highest.dose_gy) <= MEDIAN_TOLERANCE * highest.dose_gy
        return CheckResult(self.kind, passed, f"maximum {hottest:.1f} Gy; median {median:.1f} Gy of {highest.name}")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: one voxel at 151 % of the prescription."""
        good = example_context()
        hot = good.dose.dose_gy.copy()
        hot[15, 15, 15] = 1.51 * 60.0
        return good, replace(good, dose=Dose(good.dose.grid, hot))


PLUGIN = DoseImplausible()
