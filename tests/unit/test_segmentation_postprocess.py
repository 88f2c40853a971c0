"""Clean-up on the working grid and outlines on the CT's: sides, parts, slices, volumes, skin."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from segmentation.outline import drawn_external, drawn_organs, with_skin
from segmentation.postprocess import cleaned
from segmentation.preprocess import to_working_grid
from segmentation.shapes import bridged, empty_between

NAMES = ("SpinalCord", "Parotid_L", "Parotid_R", "Larynx", "External")
CORD, LEFT, RIGHT, LARYNX, BODY = range(5)
WORKING = (3.0, 3.9, 3.9)
SHAPE = (40, 50, 60)
Z, Y, X = np.ogrid[:40, :50, :60]

Field = NDArray[np.float32]


def soft(inside: NDArray[np.bool_], value: float = 0.9) -> Field:
    return np.where(np.broadcast_to(inside, SHAPE), value, 0.02).astype(np.float32)


def ball(at: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    return (Z - at[0]) ** 2 + (Y - at[1]) ** 2 + (X - at[2]) ** 2 < radius**2


def cord(*slices: slice, at: tuple[int, int] = (33, 30)) -> NDArray[np.bool_]:
    """Two by two voxels in the given slices."""
    chosen = np.zeros(SHAPE, bool)
    for part in slices:
        chosen[part, at[0] : at[0] + 2, at[1] : at[1] + 2] = True
    return chosen


def patient(**organs: Field) -> Field:
    """An elliptic cylinder as the body, and organs over it."""
    out = np.full((len(NAMES), *SHAPE), 0.01, np.float32)
    out[BODY] = soft((((Y - 25) / 22) ** 2 + ((X - 30) / 27) ** 2 < 1) & (Z >= 0), 0.95)
    for name, probability in organs.items():
        out[NAMES.index(name)] = probability
    return out


def made(result, name: str) -> set[str]:
    return {change.kind for change in result.changes if change.structure == name}


def test_left_part_on_the_right_is_taken_away_and_told():
    """mutant: compare with the wrong sign; drop both parts."""
    both = soft(ball((20, 25, 48), 5)) + soft(ball((20, 25, 12), 4), 0.88)
    result = cleaned(patient(Parotid_L=np.clip(both, 0, 0.95)), NAMES, WORKING)
    assert np.array_equal(result.masks[LEFT], ball((20, 25, 48), 5))
    (change,) = result.changes
    assert change.kind == "wrong_side" and change.at == (20, 25, 12)
    assert change.cc == pytest.approx(ball((20, 25, 12), 4).sum() * 3.0 * 3.9 * 3.9 / 1000)


def test_swapped_glands_are_both_gone_not_renamed():
    result = cleaned(patient(Parotid_L=soft(ball((20, 25, 12), 5)), Parotid_R=soft(ball((20, 25, 48), 5))), NAMES, WORKING)
    assert not result.masks[LEFT].any() and not result.masks[RIGHT].any()
    assert made(result, "Parotid_L") == made(result, "Parotid_R") == {"wrong_side"}
    assert all(change.share == float("inf") for change in result.changes)


def test_body_off_the_middle_of_the_array_has_its_own_middle():
    # mutant: the middle of the array in place of that of the body
    shifted = patient(Parotid_L=soft(ball((20, 25, 24), 3)))
    shifted[BODY] = soft((((Y - 25) / 20) ** 2 + ((X - 16) / 14) ** 2 < 1) & (Z >= 0), 0.95)
    assert np.array_equal(cleaned(shifted, NAMES, WORKING).masks[LEFT], ball((20, 25, 24), 3))


def test_speck_far_away_goes_and_a_near_half_stays():
    halves = ball((20, 12, 30), 5) | ball((20, 21, 30), 4)
    result = cleaned(patient(Larynx=soft(halves | ball((5, 40, 30), 1.5))), NAMES, WORKING)
    assert result.masks[LARYNX][20, 21, 30] and result.masks[LARYNX][20, 12, 30]
    assert not result.masks[LARYNX][:10].any()
    assert made(result, "Larynx") == {"part_removed"}


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_interrupted_cord_is_bridged_and_told(gap):
    """mutants: only the largest part; no bridge."""
    result = cleaned(patient(SpinalCord=soft(cord(slice(2, 15), slice(15 + gap, 38)))), NAMES, WORKING)
    assert empty_between(result.masks[CORD]) == []
    assert np.flatnonzero(result.masks[CORD].any(axis=(1, 2))).tolist() == list(range(2, 38))
    assert np.array_equal(result.masks[CORD][15 : 15 + gap], cord(slice(2, 38))[15 : 15 + gap])
    (change,) = result.changes
    assert change.kind == "bridged" and change.slices == gap


def test_cord_does_not_jump_aside():
    beside = cord(slice(2, 25)) | cord(slice(26, 38), at=(12, 10))
    result = cleaned(patient(SpinalCord=soft(beside)), NAMES, WORKING)
    assert np.array_equal(result.masks[CORD], cord(slice(2, 25)))
    assert made(result, "SpinalCord") == {"part_removed"}


def test_thin_oblique_cord_stays_whole():
    """A thick end, then one voxel a slice, each a step aside: neighbours by a corner. mutant: connectivity by faces."""
    thin = ball((8, 14, 19), 4)
    for z in range(1, 39):
        thin[z, 10 + z // 2, 11 + z] = True
    result = cleaned(patient(SpinalCord=soft(thin)), NAMES, WORKING)
    assert np.array_equal(result.masks[CORD], thin) and result.changes == ()


def test_likelier_organ_wins_and_none_leaves_the_body():
    larynx, gland = ball((20, 25, 40), 6), ball((20, 25, 47), 6)
    result = cleaned(patient(Larynx=soft(larynx, 0.8), Parotid_L=soft(gland, 0.9)), NAMES, WORKING)
    assert not (result.masks[LARYNX] & result.masks[LEFT]).any()
    assert np.array_equal(result.masks[LEFT], gland)
    outside = cleaned(patient(Parotid_L=soft(ball((20, 25, 56), 8))), NAMES, WORKING)
    assert outside.masks[LEFT].any() and not (outside.masks[LEFT] & ~outside.masks[BODY]).any()


def test_hole_is_filled_and_nothing_found_is_empty():
    hollow = ball((20, 25, 30), 7) & ~ball((20, 25, 30), 3)
    result = cleaned(patient(Larynx=soft(hollow)), NAMES, WORKING)
    assert np.array_equal(result.masks[LARYNX], ball((20, 25, 30), 7))
    assert not result.masks[CORD].any()


def test_without_a_body_there_is_no_organ():
    empty = patient(Larynx=soft(ball((20, 25, 30), 5)))
    empty[BODY] = 0.1
    assert not cleaned(empty, NAMES, WORKING).masks.any()


def test_bridge_moves_from_one_shape_to_the_other():
    mask = np.zeros((9, 20, 40), bool)
    mask[0, 5:9, 4:8] = mask[8, 5:9, 28:32] = True
    out = bridged(mask)
    middles = [float(np.argwhere(plane)[:, 1].mean()) for plane in out]
    assert all(2 <= later - earlier <= 4 for earlier, later in pairwise(middles))
    assert all(12 <= plane.sum() <= 20 for plane in out)


GRIDS = [((2.5, 1.0, 1.0), (48, 195, 234)), ((5.0, 0.98, 0.98), (24, 198, 238)), ((3.0, 3.9, 3.9), SHAPE)]


def drawn(probability: Field, shape: tuple[int, ...], spacing: tuple[float, float, float]):
    working = to_working_grid(np.zeros(shape, np.int16), spacing, WORKING)
    assert working.hu.shape == SHAPE
    masks = cleaned(probability, NAMES, WORKING).masks
    masks[BODY] = False
    return drawn_organs(probability, masks, NAMES, working), masks


@pytest.mark.parametrize(("spacing", "shape"), GRIDS)
def test_volume_is_kept_and_the_place_too(spacing, shape):
    """mutants: the level one half after smoothing (a thin cord loses a third); half a voxel in the way back."""
    distance = np.sqrt((Z - 20.3) ** 2 * 9 + ((Y - 24.6) ** 2 + (X - 31.2) ** 2) * 3.9**2)
    larynx = (1 / (1 + np.exp((distance - 19) / 1.5))).astype(np.float32)
    thin = soft(cord(slice(5, 35)))
    found, _ = drawn(patient(Larynx=larynx, SpinalCord=np.minimum(thin, 1 - larynx)), shape, spacing)
    voxel_cc = np.prod(spacing) / 1000
    ball_cc = 4 / 3 * np.pi * 19**3 / 1000
    assert found["Larynx"].mask.sum() * voxel_cc == pytest.approx(ball_cc, rel=0.03)
    centre = (np.argwhere(found["Larynx"].mask).mean(axis=0) - (np.array(shape) - 1) / 2) * spacing
    expected = (np.array([20.3, 24.6, 31.2]) - (np.array(SHAPE) - 1) / 2) * WORKING
    np.testing.assert_allclose(centre, expected, atol=0.6)
    assert found["SpinalCord"].mask.sum() * voxel_cc > 0.6 * cord(slice(5, 35)).sum() * np.prod(WORKING) / 1000


@pytest.mark.parametrize(("spacing", "shape"), GRIDS)
def test_no_slice_is_lost_on_the_cts_grid(spacing, shape):
    """One weak voxel a slice, wandering. mutant: without `_every_slice`."""
    thin = np.full(SHAPE, 0.02, np.float32)
    for z in range(4, 36):
        thin[z, 20 + z // 3, 20 + z // 2] = 0.51
    found, masks = drawn(patient(SpinalCord=thin), shape, spacing)
    has = np.flatnonzero(found["SpinalCord"].mask.any(axis=(1, 2)))
    assert empty_between(found["SpinalCord"].mask) == []
    covered_mm = (has[-1] - has[0] + 1) * spacing[0]
    assert covered_mm >= (masks[CORD].any(axis=(1, 2)).sum() - 1) * WORKING[0]


def test_neighbours_stay_apart_on_the_cts_grid():
    """Each is likely in the other's place too. mutant: the loser of a voxel keeps it."""
    both = ball((20, 25, 30), 9)
    left = np.where(X < 31, soft(both, 0.95), soft(both, 0.6))
    right = np.where(X < 31, soft(both, 0.7), soft(both, 0.9))
    found, _ = drawn(patient(Larynx=left, SpinalCord=right), (48, 195, 234), (2.5, 1.0, 1.0))
    assert not (found["Larynx"].mask & found["SpinalCord"].mask).any()
    assert found["Larynx"].mask.any() and found["SpinalCord"].mask.any()


def test_what_was_removed_does_not_come_back():
    both = np.maximum(soft(ball((20, 25, 48), 5)), soft(ball((20, 25, 12), 4)))
    found, _ = drawn(patient(Parotid_L=both), (48, 195, 234), (2.5, 1.0, 1.0))
    mask, sure = found["Parotid_L"].mask, found["Parotid_L"].confidence
    assert mask.any() and not mask[:, :, :100].any()
    # There the network is sure of a gland that was not drawn: what was drawn is all but certainly not what it meant.
    at = (24, 98, 48)
    assert not mask[at] and sure[at] <= 15
    assert sure[24, 98, 187] >= 85 and sure[0, 0, 0] == 100


def skin_case(radius_mm: float) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """A cylinder of water in 1 mm voxels, on a 12 mm couch that touches its back."""
    y, x = np.mgrid[:200, :240]
    body = (y - 90) ** 2 + (x - 120) ** 2 < radius_mm**2
    couch = (y >= 90 + radius_mm) & (y < 102 + radius_mm) & (np.abs(x - 120) < 115)
    plane = np.where(body, 20, np.where(couch, -200, -1000)).astype(np.int16)
    return np.repeat(plane[None], 20, axis=0), np.repeat(body[None], 20, axis=0)


def test_skin_is_the_cts_to_a_voxel_and_the_couch_stays_out():
    """The network's outline is 2 mm too wide. mutant: the network's outline as it is."""
    hu, truth = skin_case(70)
    _, wide = skin_case(72)
    found = with_skin(wide, hu, (3.0, 1.0, 1.0), WORKING)
    assert (found ^ truth).sum() <= 0.002 * truth.sum() < (wide ^ truth).sum()
    assert not found[:, 165:].any()


def test_where_they_part_by_more_the_networks_outline_stays():
    """mutant: cut at the edge of the band instead."""
    hu, truth = skin_case(70)
    coarse = truth.copy()
    coarse[:, :60] = False  # the network misses 40 mm of the front
    found = with_skin(coarse, hu, (3.0, 1.0, 1.0), WORKING)
    assert not found[:, :60].any()
    assert np.array_equal(found[:, 75:150], truth[:, 75:150])


def test_external_is_drawn_without_the_network_being_sharp():
    hu, truth = skin_case(70)
    working = to_working_grid(hu, (3.0, 1.0, 1.0), WORKING)
    probability = np.clip(to_working_grid(truth, (3.0, 1.0, 1.0), WORKING).hu, 0.02, 0.98)
    found = drawn_external(probability, probability > 0.5, hu, working)
    assert 2 * (found.mask & truth).sum() / (found.mask.sum() + truth.sum()) > 0.998
    assert found.confidence[10, 90, 120] == 98 and found.confidence.min() >= 0
