"""The gantry stands where the beam says, or turns as the machine can (I-31)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_arc import STEP_DEG, example_arc_context, with_arc_point
from rtplan.domain.example_context import example_context, with_control_point
from rtplan.domain.machine import Machine
from rtplan.domain.motion import ANGLE_TOLERANCE_DEG, gantry_paths_deg
from rtplan.domain.plan import PlanBeam
from rtplan.domain.verdict import CheckResult


class GantryPath:
    """Gantry, collimator and couch angles are finite and in [0, 360), and no stop of the gantry is in the way.

    The gantry does not move within a fixed beam. That of an arc turns on between any two control points, in the arc's
    direction, by no more than the machine's spacing, and by less than a full turn in all.
    """

    kind = "GANTRY_PATH"

    def check(self, context: Delivery) -> CheckResult:
        """First beam at fault."""
        for beam in context.plan.beams:
            fault = _angles(beam) or (_arc(beam, context.machine) if beam.is_arc else _fixed(beam))
            if not fault and not gantry_paths_deg(beam, context.machine):
                low, high = context.machine.gantry_range_deg
                fault = f"the gantry would pass its stop; it turns from {low:g} to {high:g} deg"
            if fault:
                return CheckResult(self.kind, False, f"beam {beam.number}{fault if fault[0] == ',' else f': {fault}'}")
        return CheckResult(self.kind, True, "angles in range, gantry still within fixed beams, onwards within arcs")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the gantry turns by 180 degrees within a fixed beam."""
        good = example_context()
        point = good.plan.beams[0].control_points[1]
        return good, with_control_point(good, 1, replace(point, gantry_angle_deg=180.0))

    def arc_examples(self) -> tuple[PlanContext, tuple[PlanContext, ...]]:
        """Good: an arc. Bad: a step back, a stand-still, the wrong direction, a machine without arcs."""
        good = example_arc_context()
        arc = good.plan.beams[0]
        fifth = arc.control_points[5]
        back = with_arc_point(good, 5, replace(fifth, gantry_angle_deg=(fifth.gantry_angle_deg - 5.0) % 360.0))
        still = good
        for i, later in enumerate(arc.control_points[5:], start=5):
            still = with_arc_point(still, i, replace(later, gantry_angle_deg=(later.gantry_angle_deg - STEP_DEG) % 360.0))
        turned = replace(good, plan=replace(good.plan, beams=(replace(arc, rotation="CC"), *good.plan.beams[1:])))
        return good, (back, still, turned, replace(good, machine=replace(good.machine, arc=None)))


def _angles(plan_beam: PlanBeam) -> str:
    beam = plan_beam.beam
    angles = [(name, getattr(beam, f"{name}_angle_deg")) for name in ("gantry", "collimator", "couch")]
    angles += [(f"control point {i}, gantry", p.gantry_angle_deg) for i, p in enumerate(plan_beam.control_points)]
    for name, angle in angles:
        if not math.isfinite(angle) or not 0 <= angle < 360:
            return f"{name} at {angle} deg, not in [0, 360)"
    return ""


def _fixed(plan_beam: PlanBeam) -> str:
    for i, point in enumerate(plan_beam.control_points):
        if point.gantry_angle_deg != plan_beam.beam.gantry_angle_deg:
            found = f"gantry at {point.gantry_angle_deg} deg, the beam at {plan_beam.beam.gantry_angle_deg} deg"
            return f", control point {i}: {found}"
    return ""


def _arc(plan_beam: PlanBeam, machine: Machine) -> str:
    if machine.arc is None:
        return f"{machine.machine_id} delivers no arcs"
    first = plan_beam.control_points[0].gantry_angle_deg
    if first != plan_beam.beam.gantry_angle_deg:
        return f"the arc begins at {first} deg, the beam stands at {plan_beam.beam.gantry_angle_deg} deg"
    turns = np.abs(plan_beam.turns_deg)
    largest = machine.arc.max_spacing_deg
    wrong = np.flatnonzero((turns == 0.0) | (turns > largest + ANGLE_TOLERANCE_DEG))
    if wrong.size:
        i = int(wrong[0])
        return f", control points {i} to {i + 1}: {turns[i]:g} deg {plan_beam.rotation}, more than 0 and at most {largest:g}"
    whole = float(turns.sum())
    return f"{whole:g} deg {plan_beam.rotation} in all, a full turn" if whole > 360.0 - ANGLE_TOLERANCE_DEG else ""


PLUGIN = GantryPath()
