"""Isocentre, beams and beamlets from the targets alone."""

from dataclasses import replace

import numpy as np
import pytest
import site_cases

from rtplan.domain.beams import Beam, beam_frame
from rtplan.domain.grid import Grid
from rtplan.domain.prescription import Arc
from rtplan.errors import CaseRejected, PlanningFailed
from rtplan.library.machines import load_machine
from rtplan.library.protocols import load_protocol, with_technique
from rtplan.steps.place_beams import (
    arc_angles_deg,
    isocentre_mm,
    place_arcs,
    place_beamlets,
    place_beams,
    static_angles_deg,
    wrapped_deg,
)
from rtplan.steps.tangents import outward_xy

GRID = Grid((40, 60, 60), (3.0, 3.0, 3.0), (-90.0, -90.0, -60.0))
MACHINE, PROTOCOL = load_machine("generic_6mv"), load_protocol("tg119_c_shape")


def ball(centre_xyz_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    z, y, x = np.meshgrid(GRID.z_mm(), GRID.y_mm(), GRID.x_mm(), indexing="ij")
    return (x - centre_xyz_mm[0]) ** 2 + (y - centre_xyz_mm[1]) ** 2 + (z - centre_xyz_mm[2]) ** 2 <= radius_mm**2


def test_isocentre_is_the_middle_of_the_targets():
    # mutant: swap x and z
    target = ball((10.0, -20.0, 5.0), 20.0)
    assert np.abs(np.array(isocentre_mm(target, np.ones_like(target), GRID)) - [10.0, -20.0, 5.0]).max() <= 1.5


def test_an_isocentre_in_air_is_rejected():
    target = ball((-60.0, 0.0, 0.0), 10.0) | ball((60.0, 0.0, 0.0), 10.0)
    with pytest.raises(CaseRejected) as caught:
        isocentre_mm(target, target, GRID)
    assert caught.value.code == "ISO"


@pytest.mark.parametrize("gantry_deg", [0.0, 90.0, 215.0])
def test_beamlets_cover_the_target_and_the_margin_and_little_more(gantry_deg):
    # mutant: project onto the axis' plane without magnification; mutant: margin left out
    target = ball((15.0, 5.0, -10.0), 25.0)
    beam = Beam("b", gantry_deg, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    beamlets = place_beamlets((beam,), target, GRID, MACHINE, PROTOCOL)
    x, y, _ = beam_frame(beam).to_bev(GRID.to_point_mm(np.argwhere(target).astype(float)))
    inside = (
        (beamlets.x1_mm[:, None] <= x) & (x < beamlets.x2_mm[:, None])
        & (beamlets.y1_mm[:, None] <= y) & (y < beamlets.y2_mm[:, None])
    )  # fmt: skip
    assert inside.any(axis=0).all()
    reach = PROTOCOL.target_margin_mm
    assert beamlets.x1_mm.min() <= x.min() - reach and beamlets.x2_mm.max() >= x.max() + reach
    assert beamlets.y1_mm.min() <= y.min() - reach and beamlets.y2_mm.max() >= y.max() + reach
    assert beamlets.x1_mm.min() >= x.min() - reach - 2 * PROTOCOL.beamlet_mm - 2
    area = ((beamlets.x2_mm - beamlets.x1_mm) * (beamlets.y2_mm - beamlets.y1_mm)).sum()
    assert area < 1.35 * np.pi * (25.0 + 1.5 + reach) ** 2


def test_rows_are_contiguous_and_lie_in_leaf_pairs():
    # mutant: drop the beamlets between two parts of a row
    target = ball((-30.0, 0.0, 0.0), 12.0) | ball((30.0, 0.0, 0.0), 12.0)
    beam = Beam("b", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    beamlets = place_beamlets((beam,), target, GRID, MACHINE, PROTOCOL)
    bounds = MACHINE.mlc.leaf_boundaries_mm
    for pair in np.unique(beamlets.leaf_pair):
        own = beamlets.leaf_pair == pair
        assert np.all(beamlets.y1_mm[own] == bounds[pair]) and np.all(beamlets.y2_mm[own] == bounds[pair + 1])
        np.testing.assert_allclose(beamlets.x1_mm[own][1:], beamlets.x2_mm[own][:-1])


def test_a_target_beyond_the_collimator_is_rejected():
    grid = Grid((40, 60, 60), (12.0, 3.0, 3.0), (-90.0, -90.0, -240.0))
    with pytest.raises(CaseRejected) as caught:
        place_beamlets(
            (Beam("b", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0),), np.ones(grid.shape_zyx, bool), grid, MACHINE, PROTOCOL
        )
    assert caught.value.code == "TARGET_TOO_LARGE"


def test_a_target_that_no_segment_can_treat_is_refused_and_one_beam_that_can_is_enough():
    # mutant: the smallest opening of all beams; mutant: area in mm²
    flat = np.zeros(GRID.shape_zyx, bool)
    flat[19:21, 30, 26:34] = True  # 24 mm wide, 3 mm deep, 6 mm long
    beams = [Beam("b", angle, 0.0, 0.0, (1.5, 1.5, 0.0), 1000.0) for angle in (90.0, 0.0)]
    bare = replace(PROTOCOL, target_margin_mm=0.0)
    with pytest.raises(PlanningFailed) as caught:
        place_beamlets((beams[0],), flat, GRID, MACHINE, bare)
    assert caught.value.code == "FIELD_TOO_SMALL"
    assert len(place_beamlets(tuple(beams), flat, GRID, MACHINE, bare)) > 0


@pytest.mark.parametrize(
    ("site", "angles_deg"),
    [("bone_8_1", (0, 180)), ("whole_brain_30_10", (95, 265)), ("tg119_c_shape", tuple(range(0, 360, 40)))],
)
def test_arrangements_name_their_angles(site, angles_deg):
    # mutant: laterals tilted to the front
    assert static_angles_deg(load_protocol(site)) == angles_deg


def test_opposed_laterals_look_from_behind():
    for angle in static_angles_deg(load_protocol("whole_brain_30_10")):
        source = beam_frame(Beam("b", angle, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)).source_xyz_mm
        assert source[1] > 50.0 and abs(source[0]) > 990.0


def test_an_arc_is_cut_into_equal_steps_with_both_ends():
    # mutant: CC turned upwards; mutant: the last angle left out
    arc = Arc(178.0, 182.0, "CC", 345.0)
    angles = arc_angles_deg(arc, 2.0)
    assert (angles[0], angles[-1], len(angles)) == (178.0, 182.0, 179)
    np.testing.assert_allclose(np.mod(-np.diff(angles), 360.0), 2.0)
    assert not np.any(np.abs(angles - 180.0) < 1.0)
    # mutant: rounding that leaves 360 itself, which no gantry has
    for spacing in (4.0, 178.0 / 45, 7.7):
        assert (
            arc_angles_deg(arc, spacing).max() < 360.0 and arc_angles_deg(Arc(182.0, 178.0, "CW", 0.0), spacing).min() >= 0.0
        )
    assert wrapped_deg(np.array([-1e-14, 360.0 - 1e-12])).tolist() == [0.0, 0.0]
    uneven = arc_angles_deg(Arc(350.0, 15.0, "CW", 0.0), 4.0)
    np.testing.assert_allclose(np.mod(np.diff(uneven), 360.0), 25.0 / 7)
    assert uneven.max() < 360.0


def test_arcs_become_beams_around_one_isocentre_for_the_targets_side():
    # mutant: one collimator angle for all arcs
    prescription, structures = site_cases.prescribed("lung", "right", protocol_id="lung_60_30")
    first, second = place_arcs(prescription, structures, MACHINE, spacing_deg=4.0, intervals_per_beam=1)
    assert (first.angles_deg[0], first.angles_deg[-1], first.start.gantry_angle_deg) == (14.0, 182.0, 14.0)
    assert len(first.middles) == len(first.angles_deg) - 1
    beams = (first.start, *first.middles, second.start, *second.middles)
    assert {b.collimator_angle_deg for b in first.middles} == {345.0} and second.start.collimator_angle_deg == 10.0
    assert len({b.isocentre_xyz_mm for b in beams}) == 1 and first.start.isocentre_xyz_mm[0] < -70.0
    assert len({b.name for b in beams}) == len(beams)


def test_beams_of_an_arc_stand_at_the_middles_of_its_intervals():
    # mutants: middles on the control angles; CC turned upwards
    prescription, structures = site_cases.prescribed("lung", "right", protocol_id="lung_60_30")
    for arc in place_arcs(prescription, structures, MACHINE, spacing_deg=12.0, intervals_per_beam=3):
        sign = 1.0 if arc.arc.direction == "CW" else -1.0
        step = np.mod(sign * np.diff(arc.angles_deg), 360.0)
        np.testing.assert_allclose(step, step[0])
        assert len(step) == 3 * len(arc.middles) and step[0] <= 4.0
        middles = np.array([b.gantry_angle_deg for b in arc.middles])
        np.testing.assert_allclose(np.mod(sign * (middles - arc.angles_deg[:-1:3]), 360.0), 1.5 * step[0])
        assert middles.min() >= 0.0 and middles.max() < 360.0


def test_beams_that_the_protocol_lacks_are_not_invented():
    prescription, structures = site_cases.prescribed("spine", protocol_id="bone_8_1")
    with pytest.raises(PlanningFailed) as caught:
        place_arcs(prescription, structures, MACHINE, spacing_deg=4.0, intervals_per_beam=1)
    assert caught.value.code == "BEAMS_MISSING"
    arrangement = replace(load_protocol("lung_60_30").beams, gantry_angles_deg=())
    only_arcs = replace(prescription, protocol=replace(prescription.protocol, beams=arrangement))
    with pytest.raises(PlanningFailed) as caught:
        place_beams(only_arcs, structures, MACHINE)
    assert caught.value.code == "BEAMS_MISSING"
    lung, chest = site_cases.prescribed("lung", "left", protocol_id="lung_60_30")
    with pytest.raises(PlanningFailed) as caught:  # static fields in place of arcs would be another plan than was asked for
        place_beams(replace(lung, protocol=with_technique(lung.protocol, "vmat")), chest, MACHINE)
    assert caught.value.code == "BEAMS_MISSING"


@pytest.mark.parametrize("side", ["left", "right"])
def test_tangents_share_their_posterior_edge_and_spare_what_has_goals(side):
    # mutant: margin left out behind the target; mutant: the half space behind instead of in front; mutant: no mirror
    prescription, structures = site_cases.prescribed("breast", side, protocol_id="breast_40_15")
    medial, lateral = place_beams(prescription, structures, MACHINE)
    assert (lateral.gantry_angle_deg - medial.gantry_angle_deg) % 360.0 == 180.0
    assert 290 <= (medial.gantry_angle_deg if side == "left" else 360 - medial.gantry_angle_deg) <= 310
    outward = outward_xy(medial.gantry_angle_deg)
    iso = np.array(medial.isocentre_xyz_mm)
    grid = structures.grid
    target = grid.to_point_mm(np.argwhere(structures["PTV_4005"].mask).astype(float)) - iso
    assert 6.0 <= (target[:, :2] @ outward).min() <= 8.0
    for organ, most in (
        (f"Lung_{side[0].upper()}", 0.15),
        ("Heart", 0.02),
        (f"Breast_{'R' if side == 'left' else 'L'}", 0.08),
    ):
        points = grid.to_point_mm(np.argwhere(structures[organ].mask).astype(float)) - iso
        assert ((points[:, :2] @ outward) > 0).mean() < most
    assert structures.external.mask[tuple(np.rint(grid.to_index(iso)).astype(int))]


def test_tangents_of_both_sides_are_mirror_images():
    angles = []
    for side in ("left", "right"):
        medial, _ = place_beams(*site_cases.prescribed("breast", side, protocol_id="breast_26_5"), MACHINE)
        angles.append(medial.gantry_angle_deg)
    assert sum(angles) == pytest.approx(360.0, abs=2.0)  # the heart lies on one side only
