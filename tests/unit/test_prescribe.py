"""What a protocol makes of one patient's contours: names, targets, helpers, goals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from small_protocol import PROTOCOL, goal
from small_rtstruct import GRID, small_ct

from rtplan.domain.prescription import HelperRule, PrescriptionLevel
from rtplan.domain.structures import Contour, ContourSet, RoiContours, Structure, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected
from rtplan.library.names import fma_code, known_names, tg263_name
from rtplan.steps.prescribe import prescribe
from rtplan.steps.segment import structures_from_contours

CT = small_ct()
CORNERS = tuple[float, float, float, float]


def roi(number: int, name: str, corners: CORNERS, slices: Iterable[int] = range(4, 10), kind: str = "ORGAN") -> RoiContours:
    x0, y0, x1, y1 = corners
    points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)
    return RoiContours(number, name, kind, tuple(Contour(float(GRID.z_mm()[k]), points) for k in slices))


def mask(corners: CORNERS, slices: Iterable[int] = range(4, 10)) -> NDArray[np.bool_]:
    found = np.zeros(GRID.shape_zyx, bool)
    x, y = GRID.x_mm(), GRID.y_mm()
    x0, y0, x1, y1 = corners
    inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))
    found[list(slices)] = inside
    return found


BODY_MASK = mask((-50, -50, 50, 50), range(14))
BODY = roi(1, "BODY", (-50, -50, 50, 50), range(14), "EXTERNAL")
TARGET = roi(2, "PTV70", (-10, -10, 10, 10), kind="PTV")
LOW = roi(3, "PTV56", (10, -10, 30, 10), kind="PTV")


def structures(*rois: RoiContours, protocol=PROTOCOL, body: NDArray[np.bool_] = BODY_MASK) -> StructureSet:
    return structures_from_contours(ContourSet("1.2", "1.3", rois, "0" * 64), CT, body, protocol)


def codes(findings: Iterable[Finding]) -> set[str]:
    return {f.code for f in findings}


def rejection(*rois: RoiContours, protocol=PROTOCOL) -> CaseRejected:
    with pytest.raises(CaseRejected) as caught:
        structures(*rois, protocol=protocol)
    return caught.value


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("LeftParotid", "Parotid_L"),
        ("Parotid L", "Parotid_L"),
        ("parotis links", "Parotid_L"),
        ("LPAROTID", "Parotid_L"),
        ("RightParotid", "Parotid_R"),
        ("Parotid", None),  # which of the two?
        ("Mandible", "Bone_Mandible"),
        ("cord", "SpinalCord"),
        ("Spinal_Cord", "SpinalCord"),
        ("BODY", "External"),
        ("Oesophagus", "Esophagus"),
        ("Ösophagus", "Esophagus"),
        ("BRAIN STEM", "Brainstem"),
        ("Larynx", "Larynx"),
        ("Lens_R", "Lens_R"),
        ("Lungs", "Lungs"),
        ("lt lung", "Lung_L"),
        ("Optic Nerve Left", "OpticNrv_L"),
        ("Femoral Head Rt", "Femur_Head_R"),
        ("SpinalCord_PRV05", "SpinalCord_PRV05"),
        ("Cord PRV 5mm", "SpinalCord_PRV05"),
        ("PRV05", None),
        ("PTV_7000", None),
        ("", None),
        ("L", None),
    ],
)
def test_clinic_names_become_tg263_names(raw: str, expected: str | None):
    assert tg263_name(raw) == expected


def test_every_tg263_name_is_short_unique_and_means_itself():
    names = known_names()
    assert len(names) > 90
    assert len({n.lower() for n in names}) == len(names)
    for name in names:
        assert tg263_name(name) == name
        assert tg263_name(name.upper()) == name
        assert len(name) <= 16


def test_sides_are_never_confused():
    for name in known_names():
        if name.endswith("_L"):
            base = name.removesuffix("_L")
            for text in (f"Left {base}", f"{base} LT", f"l_{base}"):
                assert tg263_name(text) == name


def test_codes_are_those_of_the_list():
    assert fma_code("Parotid_L") == 59798
    assert fma_code("SpinalCord") == 7647
    assert fma_code("Bag_Bowel") is None


# --- structures -------------------------------------------------------------------------------------------------------


def test_regions_get_the_names_of_protocol_and_tg263():
    found = structures(BODY, TARGET, roi(4, "my cord", (-5, 20, 5, 30)), roi(5, "Mandible", (-5, -40, 5, -30)))
    assert found.names == ("External", "PTV_7000", "SpinalCord", "Bone_Mandible")
    assert [s.source_name for s in found] == ["BODY", "PTV70", "my cord", "Mandible"]
    assert [s.kind for s in found] == ["EXTERNAL", "PTV", "ORGAN", "ORGAN"]
    assert np.array_equal(found["PTV_7000"].mask, mask((-10, -10, 10, 10)))
    assert codes(found.findings) == {"LEVEL_SKIPPED", "SS_RENAMED"}


def test_names_of_the_protocol_are_given_to_nothing_else():
    # An organ called PTV_5600 must not become the target of the optional level.
    strict = replace(PROTOCOL, levels=(PROTOCOL.levels[0], replace(PROTOCOL.levels[1], names=("Low",))))
    found = structures(BODY, TARGET, replace(LOW, name="PTV_5600"), roi(5, "zRing_1", (-5, 20, 5, 30)), protocol=strict)
    assert found.names == ("External", "PTV_7000", "PTV_5600_2", "zRing_1_2")
    assert {"LEVEL_SKIPPED", "TARGET_UNUSED"} <= codes(found.findings)


def test_without_an_external_the_body_found_on_the_ct_is_used_and_said():
    found = structures(TARGET)
    assert np.array_equal(found.external.mask, BODY_MASK)
    assert found.external.origin == "engine"
    assert "EXTERNAL_FOUND" in codes(found.findings)
    assert structures(BODY, TARGET).external.origin == "physician"


def test_an_external_that_misses_some_of_the_body_is_flagged():
    assert "EXTERNAL_DIFFERS" in codes(
        structures(roi(1, "BODY", (-50, -50, 50, 41), range(14), "EXTERNAL"), TARGET).findings
    )


def test_a_target_that_spills_by_a_voxel_is_cut_at_the_body_and_flagged():
    found = structures(BODY, roi(2, "PTV70", (30, -10, 52, 10), kind="PTV"))
    assert np.array_equal(found["PTV_7000"].mask, mask((30, -10, 50, 10)))
    assert "TARGET_CUT_AT_BODY" in codes(found.findings)


def test_a_target_that_leaves_the_body_by_more_is_refused():
    assert rejection(BODY, roi(2, "PTV70", (30, -10, 56, 10), kind="PTV")).code == "SS_TARGET_OUTSIDE_BODY"


def test_contours_that_cancel_on_a_slice_of_a_target_are_refused():
    doubled = replace(TARGET, contours=(*TARGET.contours, TARGET.contours[2]))
    error = rejection(BODY, doubled)
    assert error.code == "SS_TARGET_EMPTY"
    assert "z = -2 mm" in error.found


@pytest.mark.parametrize(
    ("right_mm", "severity"), [(50.0, None), (53.0, None), (56.0, "flag"), (66.0, "hold"), (78.0, "hold")]
)
def test_an_organ_outside_the_body_is_told_of_by_how_much_of_it_is(right_mm, severity):
    """An organ 20 mm wide whose right edge comes out of a body that ends at 50 mm; a voxel of 2 mm beyond is the grain of
    the grid. mutants: the voxel not allowed for; flag and hold exchanged; the share of the body instead of the organ's"""
    protocol = replace(PROTOCOL, goals=(goal("Parotid_L", "Mean[Gy]", 26.0),))
    organ = roi(3, "Parotid_L", (right_mm - 20.0, -10, right_mm, 10))
    prescription, _ = prescribe(structures(BODY, TARGET, organ, protocol=protocol), protocol)
    found = [f for f in prescription.findings if f.code == "ORGAN_OUTSIDE_BODY"]
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    assert all(f.structure == "Parotid_L" and f.at_zyx and not BODY_MASK[f.at_zyx] for f in found)


def test_sides_that_are_swapped_are_held():
    left, right = roi(4, "Parotid_L", (-40, 0, -30, 10)), roi(5, "Parotid_R", (30, 0, 40, 10))
    assert "LATERALITY_CONFLICT" in codes(structures(BODY, TARGET, left, right).findings)
    true_left, true_right = replace(left, name="Parotid_R"), replace(right, name="Parotid_L")
    assert "LATERALITY_CONFLICT" not in codes(structures(BODY, TARGET, true_left, true_right).findings)


def test_targets_that_a_physician_rarely_means_are_held():
    speck = roi(2, "PTV70", (0, 0, 4, 4), [7], "PTV")
    assert "TARGET_IMPLAUSIBLE" in codes(structures(BODY, speck).findings)
    parts = tuple(c for x in (-30, -10, 10) for c in roi(2, "PTV70", (x, 0, x + 10, 10)).contours)
    assert "TARGET_PARTS" in codes(structures(BODY, replace(TARGET, contours=parts)).findings)
    stray = (*TARGET.contours, *roi(2, "PTV70", (30, 30, 32, 32), [6]).contours)
    assert "TARGET_STRAY_VOXELS" in codes(structures(BODY, replace(TARGET, contours=stray)).findings)
    assert codes(structures(BODY, TARGET).findings) == {"LEVEL_SKIPPED"}


def test_a_bolus_is_held():
    assert "BOLUS_IGNORED" in codes(structures(BODY, TARGET, roi(7, "Bolus", (-10, -58, 10, -52), kind="BOLUS")).findings)


def test_one_region_for_two_levels_is_refused():
    both = (PROTOCOL.levels[0], PrescriptionLevel("PTV_5600", 56.0, ("PTV.*",), optional=True))
    assert rejection(BODY, TARGET, protocol=replace(PROTOCOL, levels=both)).code == "SS_NAME_AMBIGUOUS"


def test_names_of_a_level_match_whole_and_without_regard_to_case():
    assert "PTV_7000" in structures(BODY, replace(TARGET, name=" ptv_70 "))
    assert rejection(BODY, replace(TARGET, name="PTV70 old")).code == "SS_TARGET_MISSING"


# --- prescription -----------------------------------------------------------------------------------------------------


def test_a_lower_target_holds_the_higher_ones_where_the_protocol_nests_them():
    # mutant: nest from low to high
    rx, final = prescribe(structures(BODY, TARGET, LOW), PROTOCOL)
    assert [(t.name, t.dose_gy) for t in rx.targets] == [("PTV_7000", 70.0), ("PTV_5600", 56.0)]
    assert np.array_equal(final["PTV_5600"].mask, mask((-10, -10, 30, 10)))
    assert np.array_equal(final["PTV_7000"].mask, mask((-10, -10, 10, 10)))
    _, apart = prescribe(structures(BODY, TARGET, LOW), replace(PROTOCOL, nested_targets=False))
    assert np.array_equal(apart["PTV_5600"].mask, mask((10, -10, 30, 10)))


def test_targets_stay_below_the_skin_by_the_crop():
    near_skin = roi(2, "PTV70", (30, -10, 50, 10), kind="PTV")
    rx, final = prescribe(structures(BODY, near_skin), PROTOCOL)  # 4 mm are two voxels
    assert np.array_equal(final["PTV_7000"].mask, mask((30, -10, 46, 10)))
    assert "TARGET_CROPPED" in codes(rx.findings)
    _, whole = prescribe(structures(BODY, near_skin), replace(PROTOCOL, target_skin_crop_mm=0.0))
    assert np.array_equal(whole["PTV_7000"].mask, mask((30, -10, 50, 10)))


def test_a_target_that_is_all_skin_is_refused():
    skin = structures(BODY, roi(2, "PTV70", (48, -10, 50, 10), kind="PTV"))
    with pytest.raises(CaseRejected, match="SS_TARGET_EMPTY"):
        prescribe(skin, PROTOCOL)


def test_helpers_are_made_as_their_rules_say_and_stay_inside_the_body():
    cord = roi(4, "my cord", (-5, 38, 5, 50), range(14))
    _, final = prescribe(structures(BODY, TARGET, LOW, cord), PROTOCOL)
    union = mask((-10, -10, 30, 10))
    assert np.array_equal(final["zPTV_All"].mask, union)
    assert np.array_equal(final["PTV!_5600"].mask[6], mask((14, -10, 30, 10))[6])
    # The cord begins at row 49 and the body ends with row 54: two rows are 4 mm, three would be 6.
    assert np.flatnonzero(final["SpinalCord_PRV05"].mask[6].any(axis=1)).tolist() == list(range(47, 55))
    ring = final["zRing_1"].mask
    assert not (ring & union).any()
    x = GRID.x_mm()[np.flatnonzero(ring[6, 30])]
    assert x.tolist() == [-21.0, -19.0, -17.0, -15.0, 35.0, 37.0, 39.0, 41.0]  # beyond 4 mm, up to 12 mm from -9 and 29
    assert all(not (s.mask & ~final.external.mask).any() for s in final if s.origin == "engine")


def test_a_helper_is_made_of_what_the_patient_has_and_says_what_is_missing():
    rx, final = prescribe(structures(BODY, TARGET), PROTOCOL)
    assert np.array_equal(final["zPTV_All"].mask, final["PTV_7000"].mask)
    assert "PTV!_5600" not in final and "SpinalCord_PRV05" not in final
    messages = [f.message for f in rx.findings]
    assert "zPTV_All is made without PTV_5600" in messages
    assert "SpinalCord_PRV05 is not made: SpinalCord not contoured" in messages


def test_an_empty_helper_is_not_made():
    nothing = replace(
        PROTOCOL,
        helpers=(HelperRule("zNone", "subtract", ("PTV_7000",), ("External",)),),
        goals=(goal("zNone", "Mean[Gy]", 1),),
    )
    rx, final = prescribe(structures(BODY, TARGET), nothing)
    assert "zNone" not in final
    assert rx.goals == ()
    assert "HELPER_EMPTY" in codes(rx.findings)


def test_goals_on_what_is_not_contoured_are_left_out_and_named():
    rx, _ = prescribe(structures(BODY, TARGET, roi(4, "cord", (-5, 20, 5, 30))), PROTOCOL)
    assert [g.structure for g in rx.goals] == ["SpinalCord", "zRing_1"]
    messages = [f.message for f in rx.findings]
    assert "Larynx is not contoured: goal Mean[Gy] <= 45 not evaluated" in messages


def test_a_level_without_its_target_is_refused_here_too():
    without = StructureSet(GRID, (Structure("External", "EXTERNAL", BODY_MASK),))
    with pytest.raises(CaseRejected, match="SS_TARGET_MISSING"):
        prescribe(without, PROTOCOL)
