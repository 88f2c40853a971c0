"""A gantry that may touch patient or table is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_plan

from rtplan.domain.grid import Grid
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.structures import Structure, StructureSet
from rtplan.steps.clearance import clearance_findings

GRID = Grid((20, 30, 50), (10.0, 10.0, 10.0), (-245.0, -145.0, -95.0))


def patient(half_width_mm: float = 180.0) -> StructureSet:
    z, y, x = np.meshgrid(GRID.z_mm(), GRID.y_mm(), GRID.x_mm(), indexing="ij")
    mask = (np.abs(x) < half_width_mm) & (np.abs(y) < 110.0) & (np.abs(z) < 80.0)
    return StructureSet(GRID, (Structure("External", "EXTERNAL", mask),))


def plan(gantry_deg: float, iso: tuple[float, float, float]) -> DeliverablePlan:
    made = small_plan.plan((small_plan.static_beam(1, gantry_deg, (10.0,)),))
    beams = tuple(replace(b, beam=replace(b.beam, isocentre_xyz_mm=iso)) for b in made.beams)
    return replace(made, beams=beams)


@pytest.mark.parametrize("gantry_deg", [0.0, 90.0, 120.0, 180.0, 240.0, 300.0])
def test_a_central_isocentre_is_clear_all_around(gantry_deg):
    # mutant: the face of the head at 300 mm
    assert clearance_findings(plan(gantry_deg, (0.0, 0.0, 0.0)), patient()) == ()


@pytest.mark.parametrize(
    ("gantry_deg", "iso", "what"),
    [
        (240.0, (140.0, -40.0, 0.0), "table"),  # turned under a table that stands far to that side
        (120.0, (-140.0, -40.0, 0.0), "table"),
        (300.0, (230.0, 60.0, 0.0), "body"),
    ],
)
def test_an_isocentre_off_to_one_side_brings_the_head_near(gantry_deg, iso, what):
    # mutant: left and right exchanged; mutant: the table left out
    (finding,) = clearance_findings(plan(gantry_deg, iso), patient())
    assert (finding.code, finding.severity) == ("COLLISION_RISK", "hold")
    assert what in finding.message and f"{gantry_deg:g} deg" in finding.message
    opposite = (-iso[0], *iso[1:])
    assert clearance_findings(plan(gantry_deg, opposite), patient()) == ()


def test_every_control_point_of_a_turning_beam_is_looked_at():
    # mutant: only the beam's own angle
    still = plan(60.0, (140.0, -40.0, 0.0))
    assert clearance_findings(still, patient()) == ()
    points = [replace(p, gantry_angle_deg=a) for p, a in zip(still.beams[0].control_points, (60.0, 240.0), strict=True)]
    turning = replace(still, beams=(replace(still.beams[0], control_points=tuple(points)),))
    assert [f.code for f in clearance_findings(turning, patient())] == ["COLLISION_RISK"]
