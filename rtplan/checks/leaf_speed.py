"""Leaves and jaws that move while MU are given keep up with the dose rate (MC-04)."""

from __future__ import annotations

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_control_point
from rtplan.domain.plan import ControlPoint
from rtplan.domain.verdict import CheckResult


class LeafSpeed:
    """In every interval with MU, leaf motion / (MU / highest dose rate) stays within the machine's leaf speed.

    Intervals without MU take as long as the leaves need.
    """

    kind = "LEAF_SPEED"

    def check(self, context: PlanContext) -> CheckResult:
        """Fastest leaf over all intervals with MU."""
        machine = context.machine
        fastest, where = 0.0, "no leaf moves while MU are given"
        for beam in context.plan.beams:
            for i, (start, end) in enumerate(zip(beam.control_points[:-1], beam.control_points[1:], strict=True)):
                seconds = (end.cumulative_mu - start.cumulative_mu) / (machine.max_dose_rate_mu_min / 60.0)
                motion_mm = max(
                    float(np.abs(end.aperture.leaf_x1_mm - start.aperture.leaf_x1_mm).max()),
                    float(np.abs(end.aperture.leaf_x2_mm - start.aperture.leaf_x2_mm).max()),
                )
                if seconds > 0 and motion_mm / seconds > fastest:
                    fastest, where = motion_mm / seconds, f"beam {beam.number}, control points {i} to {i + 1}"
        allowed = machine.mlc.max_leaf_speed_mm_s
        return CheckResult(
            self.kind, fastest <= allowed * (1 + 1e-6), f"{fastest:.1f} mm/s ({where}); at most {allowed:g} mm/s"
        )

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: leaves travel 30 mm within 1 MU, that is 0.1 s."""
        good = example_context()
        return good, with_control_point(good, 2, ControlPoint(61.0, 0.0, example_aperture(10.0, 20.0)))


PLUGIN = LeafSpeed()
