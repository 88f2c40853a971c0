"""A small sound arc on the example machine: the good example of the checks of arcs, from which bad ones are broken."""

from __future__ import annotations

from dataclasses import replace

from rtplan.domain.beams import Beam
from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context
from rtplan.domain.plan import ControlPoint, PlanBeam, arc_beam

STEP_DEG = 4.0


def example_arc(number: int = 1) -> PlanBeam:
    """From 350 degrees through 0 to 30 in steps of 4, 2 MU each; an opening of 40 mm that moves by 2 mm a step."""
    beam = Beam(f"Arc {number}", 350.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    points = tuple(
        ControlPoint(2.0 * i, (350.0 + STEP_DEG * i) % 360.0, example_aperture(-20.0 + 2 * i, 20.0 + 2 * i))
        for i in range(11)
    )
    return arc_beam(number, beam, "CW", points)


def example_arc_context() -> PlanContext:
    """The example plan with its first beam exchanged for the arc."""
    good = example_context()
    return replace(good, plan=replace(good.plan, beams=(example_arc(), good.plan.beams[1])))


def with_arc_point(context: PlanContext, index: int, point: ControlPoint) -> PlanContext:
    """The context with one control point of its arc exchanged."""
    arc = context.plan.beams[0]
    points = tuple(point if i == index else old for i, old in enumerate(arc.control_points))
    return replace(context, plan=replace(context.plan, beams=(replace(arc, control_points=points), *context.plan.beams[1:])))
