"""Isocentre, beams and beamlets from the targets alone."""

import numpy as np
import pytest

from rtplan.domain.beams import Beam, beam_frame
from rtplan.domain.grid import Grid
from rtplan.errors import CaseRejected
from rtplan.library.machines import load_machine
from rtplan.library.protocols import load_protocol
from rtplan.steps.place_beams import isocentre_mm, place_beamlets

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
