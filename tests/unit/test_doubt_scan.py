"""A CT that the model was not made for is held, whatever the network says of it; the drawn patient is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from doubt_bodies import child, codes, judged, nothing_found, patient, pelvis, slices, thorax, turned, working

from sample_data.phantom import Phantom
from sample_data.tg119 import c_shape, multi_target
from segmentation.evidence import Evidence


def test_a_head_and_neck_is_no_stranger():
    assert codes(patient(), None) == set()


@pytest.mark.parametrize("draw", [c_shape, multi_target])
def test_a_water_phantom_is_told_as_one(draw):
    # mutant: UNIFORM_HU 0 and NO_BONE_SHARE 0
    phantom: Phantom = draw()
    assert "LOOKS_LIKE_PHANTOM" in codes(nothing_found(working(phantom.hu, phantom)), None)


@pytest.mark.parametrize("draw", [pelvis, thorax])
def test_another_part_of_the_body_is_told(draw):
    # mutant: drop area_narrow_cm2 from RULES
    found = judged(nothing_found(draw())).doubts
    assert {(d.code, d.severity) for d in found if d.structure is None} == {
        ("OTHER_BODY_REGION", "hold"),
        ("LITTLE_RECOGNISED", "hold"),
    }


def test_a_thorax_is_told_by_its_lungs_however_slim():
    # mutant: drop lung_slices_share and air_share from RULES
    slim = thorax()[:, ::2, ::2]
    assert "OTHER_BODY_REGION" in codes(nothing_found(slim), None)


def test_front_and_back_reversed_is_told_by_the_airway():
    # mutant: turn the sign of the rule
    assert "FRONT_BACK_REVERSED" in codes(nothing_found(turned(1).hu), None)


def test_head_and_foot_reversed_is_told_by_the_lungs():
    # mutant: LUNGS_HIGH_SHARE 2
    assert any("lungs" in text for text in _reversed_head_to_foot(nothing_found(turned(0).hu)))


def test_head_and_foot_reversed_is_told_by_the_bone_where_no_lung_is_seen():
    # mutant: drop bone_above_below from RULES
    assert any("bone" in text for text in _reversed_head_to_foot(nothing_found(turned(0).hu[:70])))


def _reversed_head_to_foot(evidence: Evidence) -> list[str]:
    return [d.message for d in judged(evidence).doubts if d.code == "HEAD_FOOT_REVERSED"]


def test_a_patient_of_child_size_is_told():
    # mutant: drop area_cm2 from RULES
    assert "SMALL_PATIENT" in codes(child(), None)


@pytest.mark.parametrize("shift_hu", [-150.0, 150.0])
def test_numbers_that_are_no_hounsfield_units_are_told(shift_hu: float):
    p = patient()
    shifted = replace(p, hu=np.where(p.hu > -500, p.hu + np.float32(shift_hu), p.hu))
    assert "NOT_CT_LIKE" in codes(shifted, None)


def test_five_slices_are_too_few():
    # mutant: MIN_SLICES 1 and MIN_LENGTH_MM 1
    few = slices(50, 55)
    assert "SCAN_TOO_SHORT" in codes(few, None)


def test_air_alone_holds_no_patient():
    assert codes(nothing_found(np.full((20, 30, 40), -1000.0, np.float32)), None) >= {"NO_PATIENT", "LITTLE_RECOGNISED"}


def test_much_metal_is_told_and_where():
    # mutant: METAL_CC 1000
    p = patient()
    hu = p.hu.copy()
    hu[58:66, 16:24, 50:62] = 3000.0
    found = [d for d in judged(replace(p, hu=hu)).doubts if d.code == "HEAVY_METAL"]
    assert [d.severity for d in found] == ["flag"]
    assert hu[found[0].at] == 3000.0
