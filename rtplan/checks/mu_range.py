"""MU are what the machine can give (I-25, MC-06)."""

from __future__ import annotations

import math
from dataclasses import replace

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_context, with_beam
from rtplan.domain.openings import static_segments
from rtplan.domain.plan import Segment, step_and_shoot_beam
from rtplan.domain.verdict import CheckResult

_ROUNDING_MU = 1e-3


class MuRange:
    """Every beam has finite MU above 0 and up to the machine's limit; every static segment at least its smallest MU."""

    kind = "MU_RANGE"

    def check(self, context: PlanContext) -> CheckResult:
        """First beam at fault."""
        machine = context.machine
        for beam in context.plan.beams:
            where = f"beam {beam.number}"
            if not math.isfinite(beam.mu) or not 0 < beam.mu <= machine.max_beam_mu + _ROUNDING_MU:
                return CheckResult(self.kind, False, f"{where}: {beam.mu:g} MU, allowed up to {machine.max_beam_mu:g}")
            for i, (_, mu) in enumerate(static_segments(beam)):
                if not mu >= machine.min_segment_mu - _ROUNDING_MU:
                    message = f"{where}, segment {i + 1}: {mu:.3f} MU, at least {machine.min_segment_mu:g}"
                    return CheckResult(self.kind, False, message)
        if not context.plan.beams:
            return CheckResult(self.kind, False, "the plan has no beams")
        return CheckResult(self.kind, True, f"{context.plan.mu:.1f} MU per fraction in {len(context.plan.beams)} beams")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: a segment of half the machine's smallest MU."""
        good = example_context()
        beam = good.plan.beams[0]
        segments = tuple(Segment(0, aperture, mu) for aperture, mu in static_segments(beam))
        weak = (segments[0], replace(segments[1], mu=1.0))
        return good, with_beam(good, 0, step_and_shoot_beam(beam.number, beam.beam, weak))


PLUGIN = MuRange()
