"""Each doubt about a contour fires on its bad case and stays quiet on the drawn patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from doubt_bodies import (
    NAMES,
    changed,
    codes,
    columns,
    envelopes,
    judged,
    mask_of,
    moved,
    patient,
    slices,
    sure,
    turned,
)
from scipy import ndimage

from segmentation.doubt.body import body_of
from segmentation.doubt.measures import shapes_of
from segmentation.doubt.sides import reversal_doubts


def test_a_sure_network_and_organs_where_they_belong_raise_no_doubt():
    # mutant: flag_excess compared with >= 0 in plausibility_doubts
    assert codes(patient()) == set()


def test_every_structure_found_has_a_confidence_between_0_and_1():
    confidence = judged(patient()).confidence
    assert set(confidence) == set(NAMES)
    assert all(0.5 < value < 1 for value in confidence.values())


def test_a_doubt_points_at_a_voxel_of_the_ct_and_says_figure_and_range():
    big = changed("Parotid_L", ndimage.binary_dilation(mask_of("Parotid_L"), iterations=4))
    found = [d for d in judged(big).doubts if d.code == "UNUSUAL_VOLUME"]
    assert [d.structure for d in found] == ["Parotid_L"]
    assert found[0].at is not None and big.masks[NAMES.index("Parotid_L")][found[0].at]
    low, high = envelopes().structures["Parotid_L"]["volume_cc"].usual
    assert f"usually {low:.1f} to {high:.0f} cm³" in found[0].message


def test_members_that_disagree_lower_the_confidence_and_are_told():
    # mutant: expected_dice always 0.98 in agreement_of
    p, i = patient(), NAMES.index("Larynx")
    probability = p.probability.copy()
    probability[i] = np.where(p.masks[i], 0.55, 0.3)
    unsure = replace(p, probability=probability)
    assert "LOW_CONFIDENCE" in codes(unsure, "Larynx")
    assert judged(unsure).confidence["Larynx"] < judged(p).confidence["Larynx"] - 0.2


@pytest.mark.parametrize("name", ["Brainstem", "Larynx", "Parotid_R"])
def test_an_organ_far_from_its_neighbours_is_in_an_unusual_position(name: str):
    # mutant: drop up_mm from MEASURES
    assert "UNUSUAL_POSITION" in codes(changed(name, moved(mask_of(name), (-22, 0, 0))), name)


def test_a_flat_organ_is_of_unusual_shape():
    flat = np.zeros_like(mask_of("Bone_Mandible"))
    middle = int(np.argwhere(mask_of("Bone_Mandible"))[:, 0].mean())
    flat[middle - 1 : middle + 1] = ndimage.binary_dilation(mask_of("Bone_Mandible"), iterations=3)[middle - 1 : middle + 1]
    assert codes(changed("Bone_Mandible", flat), "Bone_Mandible") & {"UNUSUAL_SHAPE", "UNUSUAL_VOLUME"}


def test_an_organ_in_air_is_of_unusual_density_and_outside_the_body():
    # mutant: compare outside with body.mask instead of its complement
    found = codes(changed("Parotid_L", moved(mask_of("Parotid_L"), (0, -25, 0))), "Parotid_L")
    assert {"UNUSUAL_DENSITY", "ORGAN_OUTSIDE_BODY"} <= found


def test_a_pair_of_unlike_volumes_is_told_of_the_smaller():
    # mutant: _PAIR_LIMIT 100
    small = changed("Parotid_R", ndimage.binary_erosion(mask_of("Parotid_R"), iterations=2))
    assert "PAIR_ASYMMETRIC" in codes(small, "Parotid_R")
    assert "PAIR_ASYMMETRIC" not in codes(small, "Parotid_L")


def test_left_and_right_swapped_is_a_hold_on_both():
    masks = patient().masks.copy()
    left, right = NAMES.index("Parotid_L"), NAMES.index("Parotid_R")
    masks[[left, right]] = masks[[right, left]]
    holds = {(d.structure, d.severity) for d in judged(sure(patient().hu, masks)).doubts if d.code == "SIDES_SWAPPED"}
    assert holds == {("Parotid_L", "hold"), ("Parotid_R", "hold")}


def test_one_organ_on_the_wrong_side_is_a_hold():
    # mutant: swap the sign in _over_middle_mm
    wrong = changed("Parotid_L", mask_of("Parotid_R"))
    assert "WRONG_SIDE" in codes(wrong, "Parotid_L")
    assert "WRONG_SIDE" not in codes(wrong, "Parotid_R")


def test_organs_in_reversed_order_tell_the_direction_without_the_ct():
    # mutant: vote with > instead of <
    for axis, code in ((0, "HEAD_FOOT_REVERSED"), (1, "FRONT_BACK_REVERSED")):
        for evidence, expected in ((patient(), False), (turned(axis), True)):
            shapes = shapes_of(evidence, body_of(evidence.hu, evidence.spacing_zyx_mm))
            found = {d.code for d in reversal_doubts(shapes, envelopes().offsets_zyx_mm)}
            assert (code in found) is expected


def test_a_missing_slice_and_a_torn_organ():
    # mutant: look for empty slices in the whole scan
    torn = mask_of("SpinalCord").copy()
    middle = int(np.argwhere(torn)[:, 0].mean())
    torn[middle : middle + 2] = False
    found = judged(changed("SpinalCord", torn)).doubts
    assert {"SLICES_MISSING", "ORGAN_IN_PIECES"} <= {d.code for d in found if d.structure == "SpinalCord"}
    assert next(d for d in found if d.code == "SLICES_MISSING").at[0] == middle


def test_two_larynges_are_two_pieces():
    two = mask_of("Larynx") | moved(mask_of("Larynx"), (0, 0, 12))
    assert "ORGAN_IN_PIECES" in codes(changed("Larynx", two & ~moved(mask_of("Larynx"), (0, 0, 5))), "Larynx")


def test_organs_that_lie_in_each_other():
    # mutant: measure the overlap against the larger
    both = mask_of("Larynx") | mask_of("Esophagus")
    assert "ORGANS_OVERLAP" in codes(changed("Larynx", both), "Esophagus")


def test_a_parotid_cut_by_the_end_of_the_scan_is_told_and_a_cord_is_not():
    # mutant: drop OPEN_ENDED in cut_doubts
    at = int(np.argwhere(mask_of("Parotid_L"))[:, 0].mean())
    above = slices(at, None)
    cut = {d.structure for d in judged(above).doubts if d.code == "ORGAN_CUT_BY_SCAN"}
    assert {"Parotid_L", "Parotid_R"} <= cut
    assert not cut & {"SpinalCord", "Esophagus", "External"}


def test_a_body_cut_at_its_side_is_told():
    # mutant: look at the first column only
    cut = columns(75)
    assert "BODY_CUT_AT_SIDE" in codes(cut, None)
    assert "BODY_CUT_AT_SIDE" not in codes(patient(), None)


def test_an_external_that_takes_in_the_couch():
    # mutant: count voxels in front of the back
    leaky = mask_of("External").copy()
    leaky[:, 66:71, 20:95] = True
    assert "LEAK_INTO_COUCH" in codes(changed("External", leaky), "External")


def test_an_external_that_leaves_out_half_the_patient_is_held():
    half = mask_of("External").copy()
    half[:, :, 56:] = False
    found = {d.code: d.severity for d in judged(changed("External", half)).doubts if d.structure == "External"}
    assert found["EXTERNAL_INCOMPLETE"] == "hold"


def test_an_organ_not_found_is_held_where_the_scan_covers_its_place():
    # mutant: no ORGAN_NOT_FOUND when neighbours are known
    empty = changed("Larynx", np.zeros_like(mask_of("Larynx")))
    found = [d for d in judged(empty).doubts if d.structure == "Larynx"]
    assert [(d.code, d.severity) for d in found] == [("ORGAN_NOT_FOUND", "hold")]
    assert found[0].at is not None and ndimage.binary_dilation(mask_of("Larynx"), iterations=5)[found[0].at]


def test_an_organ_beyond_the_scan_is_only_flagged():
    at = int(np.argwhere(mask_of("Larynx"))[:, 0].max()) + 6
    above = slices(at, None)
    found = {d.structure: (d.code, d.severity) for d in judged(above).doubts if d.code.startswith("ORGAN_OUTSIDE_S")}
    assert found["Larynx"] == ("ORGAN_OUTSIDE_SCAN", "flag")
