"""Cumulative MU start at 0 and never fall (I-26)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_context, with_control_point
from rtplan.domain.verdict import CheckResult


class Meterset:
    """Each beam has at least two control points; cumulative MU start at exactly 0, never fall, and end above 0."""

    kind = "METERSET"

    def check(self, context: PlanContext) -> CheckResult:
        """First beam at fault."""
        for beam in context.plan.beams:
            mu = np.array([p.cumulative_mu for p in beam.control_points])
            sound = len(mu) >= 2 and np.all(np.isfinite(mu)) and mu[0] == 0 and np.all(np.diff(mu) >= 0) and mu[-1] > 0
            if not sound:
                return CheckResult(self.kind, False, f"beam {beam.number}: cumulative MU {[float(m) for m in mu[:8]]}")
        return CheckResult(self.kind, True, "cumulative MU rise from 0 in every beam")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the third control point falls back behind the second."""
        good = example_context()
        point = good.plan.beams[0].control_points[2]
        return good, with_control_point(good, 2, replace(point, cumulative_mu=point.cumulative_mu - 1.0))


PLUGIN = Meterset()
