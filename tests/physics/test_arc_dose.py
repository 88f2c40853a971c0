"""The dose of an arc: as round as its patient, and that of the fixed beams it is made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from water_beam import beam_model

from rtplan.domain.beams import Beam
from rtplan.domain.example_context import example_aperture, example_machine
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.plan import Aperture, ControlPoint, DeliverablePlan, PlanBeam, arc_beam
from rtplan.engines import collapsed_cone
from rtplan.steps.final_dose import part_doses, plan_dose
from rtplan.steps.fluence import beam_fluence

MACHINE = replace(example_machine(), beam=beam_model())
SPACING_MM = 5.0
BEAM = Beam("arc", 180.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)


def cylinder(radius_mm: float = 80.0) -> DensityImage:
    """Water along z around the isocentre; voxels at its surface are filled by their share."""
    n, nz = 36, 12
    middle = -(n - 1) / 2 * SPACING_MM
    grid = Grid((nz, n, n), (SPACING_MM,) * 3, (middle, middle, -(nz - 1) / 2 * SPACING_MM))
    fine = (np.arange(-2, 3) / 5) * SPACING_MM
    inside = np.zeros((n, n))
    for dx in fine:
        for dy in fine:
            inside += np.hypot(grid.x_mm()[None] + dx, grid.y_mm()[:, None] + dy) < radius_mm
    water = np.ascontiguousarray(np.broadcast_to(inside / fine.size**2, grid.shape_zyx).astype(np.float32))
    return DensityImage(grid, water, water)


def arc(apertures: list[Aperture], angles: np.ndarray, mu: np.ndarray, rotation: str = "CW", number: int = 1) -> PlanBeam:
    points = tuple(ControlPoint(float(m), float(a), o) for m, a, o in zip(mu, angles % 360.0, apertures, strict=True))
    return arc_beam(number, replace(BEAM, gantry_angle_deg=float(angles[0] % 360.0)), rotation, points)


def dose_of(*beams: PlanBeam) -> np.ndarray:
    plan = DeliverablePlan("example", "t", 1, beams)
    return plan_dose(cylinder(), plan, MACHINE, quality="quick", backend="cpu").dose_gy


@pytest.fixture(scope="module")
def open_turn() -> np.ndarray:
    """Dose of equal open apertures over a full turn."""
    angles = 180.0 + 4.0 * np.arange(91)
    return dose_of(arc([example_aperture(-20.0, 20.0)] * 91, angles, 2.0 * np.arange(91)))


def test_a_turn_of_equal_apertures_gives_a_round_dose(open_turn):
    # mutants: the first interval left out; every map at its interval's beginning and the last one missing
    grid = cylinder().grid
    radius = np.hypot(grid.x_mm()[None], grid.y_mm()[:, None])
    angle = np.arctan2(grid.y_mm()[:, None], grid.x_mm()[None])
    middle = open_turn[5:7].mean(axis=0)
    for low in (0.0, 10.0, 30.0, 50.0):
        ring = (radius >= low) & (radius < low + 10.0)
        values = middle[ring]
        # The first harmonics of the angle: what a missing sector or a turned arc would leave behind.
        for order in (1, 2, 3):
            uneven = abs(np.mean(values * np.exp(1j * order * angle[ring]))) / values.mean()
            assert uneven < 4e-3, (low, order, uneven)


def test_the_turn_is_the_same_whichever_way_and_wherever_it_begins(open_turn):
    back = arc([example_aperture(-20.0, 20.0)] * 91, 180.0 - 4.0 * np.arange(91), 2.0 * np.arange(91), "CC")
    assert np.abs(dose_of(back) - open_turn).max() < 1e-4 * open_turn.max()
    later = arc([example_aperture(-20.0, 20.0)] * 91, 40.0 + 4.0 * np.arange(91), 2.0 * np.arange(91))
    assert np.abs(dose_of(later) - open_turn).max() < 1e-4 * open_turn.max()


def wandering(n: int) -> list[Aperture]:
    return [example_aperture(-20.0 + 12.0 * np.sin(0.5 * i), 8.0 + 10.0 * np.cos(0.3 * i)) for i in range(n)]


def test_an_arc_is_the_sum_of_many_fixed_beams():
    # Five fixed beams an interval, each with the aperture and the angle of its moment: no code of arcs in the reference.
    # mutants: leaves or MU of an interval at its beginning; the angle at its end; CC turned as CW
    angles, mu, apertures = 60.0 - 2.0 * np.arange(16), np.cumsum(np.arange(16.0) % 3 + 1) - 1.0, wandering(16)
    parts = 5
    beams = []
    for i in range(15):
        for k in (np.arange(parts) + 0.5) / parts:
            a, b = apertures[i], apertures[i + 1]
            x1, x2 = (p + k * (q - p) for p, q in ((a.leaf_x1_mm, b.leaf_x1_mm), (a.leaf_x2_mm, b.leaf_x2_mm)))
            beam = replace(BEAM, gantry_angle_deg=float(angles[i] + k * (angles[i + 1] - angles[i])))
            at = replace(a, leaf_x1_mm=x1, leaf_x2_mm=x2)
            given = float(mu[i + 1] - mu[i]) / parts
            points = (ControlPoint(0.0, beam.gantry_angle_deg, at), ControlPoint(given, beam.gantry_angle_deg, at))
            beams.append(PlanBeam(len(beams) + 1, beam, points))
    reference = dose_of(*beams)
    found = dose_of(arc(apertures, angles, mu, "CC"))
    off = (found - reference) / reference.max()
    assert np.sqrt(np.mean(off**2)) < 1e-3
    assert np.abs(off).max() < 1.5e-2
    assert found.sum() == pytest.approx(reference.sum(), rel=1e-3)


def test_finer_steps_converge():
    # mutant: steps rounded down, so that an interval of 5 degrees is two maps
    arc_ = arc(wandering(10), 30.0 + 5.0 * np.arange(10), 3.0 * np.arange(10))
    doses = {}
    for step in (5.0, 2.5, 1.0, 0.25):
        fields = beam_fluence(arc_, MACHINE, arc_step_deg=step)
        doses[step] = collapsed_cone.dose(cylinder(), fields, MACHINE.beam, quality="quick", backend="cpu")
    rms = [float(np.sqrt(np.mean((doses[s] - doses[0.25]) ** 2))) / doses[0.25].max() for s in (5.0, 2.5, 1.0)]
    assert rms[0] > 2.0 * rms[1] > 4.0 * rms[2]


def test_parts_of_arcs_and_fields_add_up_to_the_plan():
    # mutants: parts of maps instead of beams; kernels shared by how many angles are calculated together
    one = arc(wandering(12), 20.0 + 4.0 * np.arange(12), 3.0 * np.arange(12))
    two = arc(wandering(12), 300.0 - 4.0 * np.arange(12), 3.0 * np.arange(12), "CC", 2)
    still = replace(BEAM, gantry_angle_deg=90.0)
    fixed = PlanBeam(3, still, tuple(ControlPoint(m, 90.0, example_aperture(-15.0, 15.0)) for m in (0.0, 40.0)))
    plan = DeliverablePlan("example", "t", 2, (one, two, fixed))
    whole = plan_dose(cylinder(), plan, MACHINE, quality="quick", backend="cpu").dose_gy
    parts = part_doses(cylinder(), plan, MACHINE, quality="quick", backend="cpu")
    assert [p.beam_numbers for p in parts] == [(1, 3), (2,)]
    assert np.abs(sum(p.dose.dose_gy for p in parts) - whole).max() < 1e-4 * whole.max()
