"""The outline of a target in the beam's eye view lies where the source sees the target."""

from __future__ import annotations

import numpy as np
import pytest
from small_report import report_data

from rtplan.domain.beams import Beam
from rtplan.domain.grid import Grid
from rtplan.steps.report.beams_eye import beams_eye_png
from rtplan.steps.report.projection import shadow

GRID = Grid((81, 121, 121), (2.5, 2.0, 2.0), (-120.0, -120.0, -100.0))
Z, Y, X = np.meshgrid(GRID.z_mm(), GRID.y_mm(), GRID.x_mm(), indexing="ij")


def beam(gantry_deg: float, collimator_deg: float = 0.0) -> Beam:
    return Beam("B", gantry_deg, collimator_deg, 0.0, (0.0, 0.0, 0.0), 1000.0)


def centre_and_radius(mask: np.ndarray, the_beam: Beam) -> tuple[float, float, float]:
    centres, covered = shadow(mask, GRID, the_beam, 120.0)
    y, x = (centres[i] for i in np.nonzero(covered))
    pixel = centres[1] - centres[0]
    return float(x.mean()), float(y.mean()), float(np.sqrt(covered.sum() * pixel**2 / np.pi))


@pytest.mark.parametrize(
    ("gantry_deg", "collimator_deg", "expected_xy_mm"),
    [
        (0.0, 0.0, (33.3, 11.1)),  # from in front: patient's left and head are +X and +Y, 100 mm nearer to the source
        (180.0, 0.0, (-27.3, 9.1)),  # from behind, 100 mm further away
        (0.0, 90.0, (11.1, -33.3)),  # the collimator turned
        (90.0, 0.0, (-103.1, 10.3)),  # from the left: the front is at -X
    ],
)
def test_a_ball_stands_where_the_source_sees_it(gantry_deg, collimator_deg, expected_xy_mm):
    # mutants: no magnification; X and Y swapped; the collimator forgotten
    ball = (X - 30) ** 2 + (Y + 100) ** 2 + (Z - 10) ** 2 < 15.0**2
    x, y, radius = centre_and_radius(ball, beam(gantry_deg, collimator_deg))
    assert (x, y) == pytest.approx(expected_xy_mm, abs=1.5)
    magnified = np.hypot(*expected_xy_mm) / np.hypot(10.0, 100.0 if gantry_deg == 90.0 else 30.0)
    assert radius == pytest.approx(15.0 * magnified, abs=2.0)


def test_a_tunnel_along_the_beam_stays_open_and_a_solid_has_no_holes():
    # mutants: fill all holes; the outermost voxels only, unclosed at a finer pixel
    tube = ((X**2 + Z**2) < 40.0**2) & ((X**2 + Z**2) > 15.0**2) & (np.abs(Y) < 10)
    centres, covered = shadow(tube, GRID, beam(0.0), 60.0)
    middle = int(np.argmin(np.abs(centres)))
    assert not covered[middle, middle]
    r = np.hypot(*np.meshgrid(centres, centres))
    assert covered[(r > 20.0) & (r < 36.0)].all()
    assert not covered[r > 46.0].any()


def test_a_target_of_one_voxel_has_an_outline():
    # mutant: the inside instead of the surface
    one = np.zeros(GRID.shape_zyx, dtype=bool)
    one[40, 60, 60] = True
    assert shadow(one, GRID, beam(0.0), 60.0)[1].sum() == 1


def test_targets_are_outlined_as_every_picture_sees_them(monkeypatch: pytest.MonkeyPatch):
    # mutant: the arc's first angle for all of its stills
    seen: list[tuple[str, float]] = []

    def recorded(mask, grid, the_beam, extent_mm):
        seen.append((the_beam.name, the_beam.gantry_angle_deg))
        return shadow(mask, grid, the_beam, extent_mm)

    monkeypatch.setattr("rtplan.steps.report.beams_eye.shadow", recorded)
    beams_eye_png(report_data())
    fixed = [("B1 G0", 0.0), ("B2 G120", 120.0), ("B3 G240", 240.0)]
    stills = [("A4", angle) for angle in (350.0, 355.0, 0.0, 5.0, 10.0)]
    assert seen == [entry for entry in (*fixed, *stills) for _ in ("PTV_70", "PTV_56")]
