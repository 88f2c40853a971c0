"""Neighbouring leaves of opposite banks do not pass each other where the machine forbids it (I-29)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_first_segment
from rtplan.domain.openings import POSITION_TOLERANCE_MM
from rtplan.domain.plan import Aperture
from rtplan.domain.verdict import CheckResult


class Interdigitation:
    """Where interdigitation is forbidden, a leaf keeps the smallest gap from the opposite leaves of its neighbours too."""

    kind = "INTERDIGITATION"

    def check(self, context: PlanContext) -> CheckResult:
        """Smallest distance of diagonally opposing leaves over all control points."""
        mlc = context.machine.mlc
        if mlc.interdigitation:
            return CheckResult(self.kind, True, "the machine allows interdigitation")
        smallest, where = np.inf, "no control points"
        for beam in context.plan.beams:
            for i, point in enumerate(beam.control_points):
                x1, x2 = point.aperture.leaf_x1_mm, point.aperture.leaf_x2_mm
                distance = float(min((x2[1:] - x1[:-1]).min(), (x2[:-1] - x1[1:]).min()))
                if distance < smallest:
                    smallest, where = distance, f"beam {beam.number}, control point {i}"
        passed = bool(smallest >= mlc.min_gap_mm - POSITION_TOLERANCE_MM)
        message = f"smallest distance of diagonal leaves {smallest:.2f} mm ({where}); at least {mlc.min_gap_mm:g} mm"
        return CheckResult(self.kind, passed, message)

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Good: closed pairs stand within their neighbours' opening. Bad: one pair is open beside the others' opening."""
        base = example_context()
        rigid = replace(base, machine=replace(base.machine, mlc=replace(base.machine.mlc, interdigitation=False)))
        beams = tuple(
            replace(b, control_points=tuple(replace(p, aperture=_kept_close(p.aperture)) for p in b.control_points))
            for b in rigid.plan.beams
        )
        good = replace(rigid, plan=replace(rigid.plan, beams=beams))
        aperture = _kept_close(example_aperture(-20.0, 0.0))
        x1, x2 = aperture.leaf_x1_mm.copy(), aperture.leaf_x2_mm.copy()
        x1[5], x2[5] = 5.0, 20.0
        return good, with_first_segment(good, replace(aperture, leaf_x1_mm=x1, leaf_x2_mm=x2))


def _kept_close(aperture: Aperture) -> Aperture:
    x1, x2 = aperture.leaf_x1_mm.copy(), aperture.leaf_x2_mm.copy()
    outer = [0, 1, 12, 13]
    x1[outer], x2[outer] = x2[2] - 0.5, x2[2]
    return replace(aperture, leaf_x1_mm=x1, leaf_x2_mm=x2)


PLUGIN = Interdigitation()
