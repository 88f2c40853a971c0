"""Leaves of one bank stay within reach of their carriage (I-29)."""

from __future__ import annotations

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_first_segment
from rtplan.domain.openings import POSITION_TOLERANCE_MM
from rtplan.domain.verdict import CheckResult


class MlcSpan:
    """The positions within one bank differ by no more than the machine's span, at each control point."""

    kind = "MLC_SPAN"

    def check(self, context: PlanContext) -> CheckResult:
        """Largest span over all control points and both banks."""
        largest, where = -np.inf, "no control points"
        for beam in context.plan.beams:
            for i, point in enumerate(beam.control_points):
                for bank, tips in (("X1", point.aperture.leaf_x1_mm), ("X2", point.aperture.leaf_x2_mm)):
                    if float(np.ptp(tips)) > largest:
                        largest, where = float(np.ptp(tips)), f"beam {beam.number}, control point {i}, bank {bank}"
        allowed = context.machine.mlc.max_span_mm
        passed = bool(largest <= allowed + POSITION_TOLERANCE_MM)
        return CheckResult(self.kind, passed, f"largest span {largest:.1f} mm ({where}); at most {allowed:g} mm")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: open pairs at -120 mm while closed ones stand at 45 mm."""
        good = example_context()
        return good, with_first_segment(good, example_aperture(-120.0, 20.0))


PLUGIN = MlcSpan()
