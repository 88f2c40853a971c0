"""Jaws are within their limits, do not cross, and fit the leaves (I-30, MC-05)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_context, with_first_segment
from rtplan.domain.machine import Machine
from rtplan.domain.openings import POSITION_TOLERANCE_MM, equal_apertures, open_pairs
from rtplan.domain.plan import Aperture
from rtplan.domain.verdict import CheckResult


class Jaw:
    """X1 < X2 and Y1 < Y2 within their ranges; no opening beyond the outermost leaves, where nothing would shield; and
    in a beam whose apertures change, the jaws leave every opening of the leaves free.

    A beam of one aperture may be shaped by its jaws, as open calibration fields are.
    """

    kind = "JAW"

    def check(self, context: PlanContext) -> CheckResult:
        """First control point at fault."""
        for beam in context.plan.beams:
            first = beam.control_points[0].aperture
            shaped = not all(equal_apertures(first, p.aperture) for p in beam.control_points)
            for i, point in enumerate(beam.control_points):
                fault = jaws_out_of_range(point.aperture, context.machine) or _closed(point.aperture)
                fault = fault or _unshielded(point.aperture, context.machine)
                if not fault and shaped:
                    fault = _cut(point.aperture, context.machine)
                if fault:
                    return CheckResult(self.kind, False, f"beam {beam.number}, control point {i}: {fault}")
        return CheckResult(self.kind, True, "all jaws within limits and clear of the openings")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the X1 jaw stands 10 mm inside the opening."""
        good = example_context()
        return good, with_first_segment(good, replace(good.plan.beams[0].control_points[0].aperture, jaw_x1_mm=-10.0))


def jaws_out_of_range(aperture: Aperture, machine: Machine) -> str:
    """The first jaw that stands where the machine cannot put it, in words; empty when there is none."""
    jaws = machine.jaws
    for name, position, (low, high) in (
        ("X1", aperture.jaw_x1_mm, jaws.x1_range_mm),
        ("X2", aperture.jaw_x2_mm, jaws.x2_range_mm),
        ("Y1", aperture.jaw_y1_mm, jaws.y1_range_mm),
        ("Y2", aperture.jaw_y2_mm, jaws.y2_range_mm),
    ):
        if not low - POSITION_TOLERANCE_MM <= position <= high + POSITION_TOLERANCE_MM:
            return f"jaw {name} at {position:.2f} mm, allowed {low:g} to {high:g} mm"
    return ""


def _closed(aperture: Aperture) -> str:
    is_open = aperture.jaw_x1_mm < aperture.jaw_x2_mm and aperture.jaw_y1_mm < aperture.jaw_y2_mm
    return "" if is_open else "jaws closed or crossed"


def _unshielded(aperture: Aperture, machine: Machine) -> str:
    bounds = machine.mlc.leaf_boundaries_mm
    beyond = max(bounds[0] - aperture.jaw_y1_mm, aperture.jaw_y2_mm - bounds[-1])
    return f"Y jaws open {beyond:.1f} mm beyond the outermost leaf" if beyond > POSITION_TOLERANCE_MM else ""


def _cut(aperture: Aperture, machine: Machine) -> str:
    is_open = open_pairs(aperture, machine.mlc)
    if not is_open.any():
        return ""
    bounds = machine.mlc.leaf_boundaries_mm
    rows = np.flatnonzero(is_open)
    inside = (
        aperture.jaw_x1_mm - aperture.leaf_x1_mm[is_open].min(),
        aperture.leaf_x2_mm[is_open].max() - aperture.jaw_x2_mm,
        aperture.jaw_y1_mm - bounds[rows[0]],
        bounds[rows[-1] + 1] - aperture.jaw_y2_mm,
    )
    deepest = int(np.argmax(inside))
    if inside[deepest] <= POSITION_TOLERANCE_MM:
        return ""
    return f"jaw {('X1', 'X2', 'Y1', 'Y2')[deepest]} stands {inside[deepest]:.1f} mm inside the leaves' opening"


PLUGIN = Jaw()
