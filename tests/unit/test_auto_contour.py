"""A model adds the organs that a plan needs and the physician did not draw, and every doubt of it reaches a person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_organs import VERSION, PaintedModel
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from small_protocol import PROTOCOL, goal
from small_rtstruct import GRID, rectangle, small_ct

from rtplan.domain.grid import Grid
from rtplan.domain.prescription import OrganRule
from rtplan.domain.structures import Contour, ContourSet, DrawnBy, RoiContours, Structure, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected, LibraryInvalid, SafetyStop
from rtplan.steps import auto_contour
from rtplan.steps.auto_contour import NOTHING_DRAWN, DrawnOrgans, as_written, draw_organs, middle, missing_organs
from rtplan.steps.segment import lacking_organs, needed_organs, structures_from_contours
from segmentation.contract import Doubt, ModelRefused, ModelUnverified, OutputInvalid
from segmentation.shapes import dice

CT = small_ct()
BODY = np.zeros(GRID.shape_zyx, bool)
BODY[:, 5:55, 7:57] = True
NEEDED = ("SpinalCord", "Larynx")


def box(x: slice, y: slice = slice(20, 30), z: slice = slice(2, 12)) -> np.ndarray:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[z, y, x] = True
    return mask


def region(number: int, name: str, kind: str, x0: float, y0: float, size: float = 12.0) -> RoiContours:
    points = np.array(rectangle(x0, y0, x0 + size, y0 + size))
    return RoiContours(number, name, kind, tuple(Contour(float(z), points) for z in GRID.z_mm()[4:10]))


TARGET = region(1, "PTV70", "PTV", -11, -11)


def drawing(*rois: RoiContours) -> ContourSet:
    return ContourSet("1.2", "1.3", (TARGET, *rois), "0" * 64)


def asked(model: PaintedModel, lacking=NEEDED, required=()) -> DrawnOrgans:
    return missing_organs(CT, lacking, required, model_id="painted", load_model=model.load, device="cpu")


def structures(contours: ContourSet, drawn: DrawnOrgans = NOTHING_DRAWN, protocol=PROTOCOL) -> StructureSet:
    return structures_from_contours(contours, CT, BODY, protocol, drawn)


def found(findings, code: str) -> Finding:
    (one,) = [f for f in findings if f.code == code]
    return one


def test_a_plan_needs_the_organs_of_its_goals_and_helpers():
    # mutant: every organ that the protocol knows; mutant: helpers not followed to what they are made of
    assert needed_organs(PROTOCOL) == ("SpinalCord", "Larynx")
    on_helper = replace(PROTOCOL, goals=(goal("SpinalCord_PRV05", "Max[Gy]", 50.0),))
    assert needed_organs(on_helper) == ("SpinalCord",)
    required = replace(PROTOCOL, organs=(*PROTOCOL.organs, OrganRule("Heart", (), required=True)))
    assert needed_organs(required) == ("SpinalCord", "Heart", "Larynx")


@pytest.mark.parametrize("name", ["my cord", "SpinalCord", "spinal cord"])
def test_what_the_physician_drew_under_any_known_name_does_not_lack(name: str):
    # mutant: only the protocol's own names; mutant: only TG-263 names
    assert lacking_organs(drawing(region(2, name, "ORGAN", 20, 20)), PROTOCOL) == ("Larynx",)
    assert lacking_organs(drawing(RoiContours(2, name, "ORGAN", ())), PROTOCOL) == NEEDED


def test_a_missing_organ_is_drawn_and_says_by_whom():
    model = PaintedModel({"SpinalCord": box(slice(20, 30)), "Larynx": box(slice(40, 44)), "Brainstem": box(slice(1, 3))})
    result = structures(drawing(), asked(model))
    assert set(result.names) == {"External", "PTV_7000", "SpinalCord", "Larynx"}
    cord = result["SpinalCord"]
    assert (cord.origin, cord.kind, cord.drawn_by) == ("model", "ORGAN", DrawnBy("painted", VERSION, 0.83))
    assert np.array_equal(cord.mask, box(slice(20, 30)))
    said = found(result.findings, "AUTO_CONTOURS")
    assert said.severity == "flag"
    assert "SpinalCord" in said.message
    assert VERSION in said.message


def test_the_model_sees_the_ct_as_it_lies_in_the_patient():
    model = PaintedModel({"SpinalCord": box(slice(20, 30))})
    asked(model)
    ((volume, device),) = model.runs
    assert device == "cpu"
    assert np.array_equal(volume.hu, CT.hu)
    corner = volume.affine_lps_mm @ (3, 2, 1, 1)
    assert corner[:3] == pytest.approx((GRID.x_mm()[1], GRID.y_mm()[2], GRID.z_mm()[3]))


def test_the_physicians_organ_always_wins():
    # mutant: draw what the set holds as well; mutant: let the model's come first
    model = PaintedModel(
        {"SpinalCord": box(slice(20, 30)), "Larynx": box(slice(40, 44))},
        doubts=(Doubt("SHAPE", "SpinalCord", "hold", "odd"),),
    )
    contours = drawing(region(2, "my cord", "ORGAN", 20, 20), region(3, "Larynx", "ORGAN", -40, 20))
    drawn = draw_organs(CT, model, NEEDED, device="cpu", needed=NEEDED)
    result = structures(contours, drawn)
    assert [s.origin for s in result if s.name in NEEDED] == ["physician", "physician"]
    assert np.array_equal(result["SpinalCord"].mask, structures(contours)["SpinalCord"].mask)
    assert "SHAPE" not in {f.code for f in result.findings}


def test_no_model_is_loaded_when_nothing_lacks_and_none_run_when_it_knows_nothing_of_it():
    # mutant: load the model for its labels in any case
    model = PaintedModel()
    assert asked(model, lacking=()) is NOTHING_DRAWN
    assert missing_organs(CT, NEEDED, (), model_id=None, load_model=model.load, device="cpu") is NOTHING_DRAWN
    assert model.loaded == 0
    assert asked(model, lacking=("Lips", "OpticChiasm")) is NOTHING_DRAWN
    assert (model.loaded, model.runs) == (1, [])


@pytest.mark.parametrize(
    ("severity", "needed", "expected"),
    [
        ("flag", NEEDED, "hold"),
        ("hold", NEEDED, "hold"),
        ("info", NEEDED, "info"),
        ("flag", (), "flag"),
        ("hold", (), "hold"),
    ],
)
def test_a_doubt_about_an_organ_that_the_plan_needs_holds_the_case(severity, needed, expected):
    # mutant: severity taken as it comes
    model = PaintedModel(
        {"SpinalCord": box(slice(20, 30)), "Larynx": box(slice(40, 44))},
        doubts=(Doubt("SHAPE", "SpinalCord", severity, "ends in mid-air", (3, 4, 5)),),
    )
    finding = found(draw_organs(CT, model, NEEDED, device="cpu", needed=needed).findings, "SHAPE")
    assert (finding.severity, finding.structure, finding.at_zyx) == (expected, "SpinalCord", (3, 4, 5))
    assert finding.message == "SpinalCord: ends in mid-air"


def test_doubts_about_the_whole_ct_stay_and_those_about_other_organs_go():
    model = PaintedModel(
        {"SpinalCord": box(slice(20, 30))},
        doubts=(Doubt("PRONE", None, "hold", "face down", (99, 0, 0)), Doubt("SHAPE", "Brainstem", "hold", "odd")),
    )
    findings = asked(model, lacking=("SpinalCord",)).findings
    prone = found(findings, "PRONE")
    assert (prone.severity, prone.structure, prone.at_zyx) == ("hold", "", None)  # the CT has no slice 99
    assert {f.code for f in findings} == {"PRONE", "AUTO_CONTOURS"}


@pytest.mark.parametrize("masks", [{}, {"Larynx": np.zeros(GRID.shape_zyx, bool)}], ids=["absent", "empty"])
def test_an_organ_that_the_model_did_not_find_holds_the_case(masks):
    # mutant: an empty mask taken for a structure
    drawn = asked(PaintedModel({"SpinalCord": box(slice(20, 30)), **masks}))
    assert [s.name for s in drawn.structures] == ["SpinalCord"]
    lost = found(drawn.findings, "AUTO_NOT_FOUND")
    assert (lost.severity, lost.structure) == ("hold", "Larynx")


def test_what_the_model_says_itself_of_a_lost_organ_is_not_said_twice_but_information_is_no_doubt():
    own = PaintedModel({"SpinalCord": box(slice(20, 30))}, doubts=(Doubt("ORGAN_EMPTY", "Larynx", "flag", "nothing left"),))
    assert {f.code for f in asked(own).findings} == {"ORGAN_EMPTY", "AUTO_CONTOURS"}
    quiet = replace(own, doubts=(Doubt("NOTE", "Larynx", "info", "small"),))
    assert found(asked(quiet).findings, "AUTO_NOT_FOUND").severity == "hold"


@pytest.mark.parametrize("mask", [np.ones((3, 3, 3), bool), np.ones(GRID.shape_zyx, np.uint8)], ids=["shape", "type"])
def test_a_mask_that_does_not_fit_the_ct_stops_the_case(mask):
    with pytest.raises(SafetyStop, match="MODEL_OUTPUT_INVALID"):
        asked(PaintedModel({"SpinalCord": mask}))


def test_output_that_is_no_segmentation_stops_the_case():
    with pytest.raises(SafetyStop, match="MODEL_OUTPUT_INVALID"):
        asked(PaintedModel(error=OutputInvalid("the network's output is not finite")))


def test_unverified_files_are_refused_before_the_model_runs():
    # mutant: verify after the run
    model = PaintedModel({"SpinalCord": box(slice(20, 30))}, unverified=ModelUnverified("weights have another hash"))
    with pytest.raises(LibraryInvalid, match="MODEL_UNVERIFIED"):
        asked(model)
    assert model.runs == []


def test_a_model_that_refuses_leaves_the_organs_out_and_holds_the_case():
    drawn = asked(PaintedModel(error=ModelRefused("this is a pelvis")))
    refusal = found(drawn.findings, "MODEL_REFUSED")
    assert refusal.severity == "hold"
    assert "SpinalCord, Larynx" in refusal.message
    assert "pelvis" in refusal.message
    result = structures(drawing(), drawn)
    assert set(result.names) == {"External", "PTV_7000"}
    assert refusal in result.findings


def test_without_a_required_organ_there_is_no_case():
    # mutant: go on with a hold whatever the protocol requires
    with pytest.raises(CaseRejected, match=r"SS_ORGAN_MISSING.*SpinalCord.*pelvis"):
        asked(PaintedModel(error=ModelRefused("this is a pelvis")), required=("SpinalCord",))
    protocol = replace(PROTOCOL, organs=(OrganRule("SpinalCord", ("cord",), required=True),))
    with pytest.raises(CaseRejected, match="SS_ORGAN_MISSING"):
        structures(drawing(), asked(PaintedModel({"Larynx": box(slice(40, 44))})), protocol)
    drawn = asked(PaintedModel({"SpinalCord": box(slice(20, 30)), "Larynx": box(slice(40, 44))}))
    assert structures(drawing(), drawn, protocol)["SpinalCord"].origin == "model"


@pytest.mark.parametrize(("first", "severity"), [(6, "info"), (2, "hold")])
def test_what_a_model_draws_outside_the_body_is_cut_off_and_said(first: int, severity: str):
    # mutant: leave it there, where nothing has a density
    model = PaintedModel({"SpinalCord": box(slice(first, 36)), "Larynx": box(slice(40, 44))})
    result = structures(drawing(), asked(model))
    assert np.array_equal(result["SpinalCord"].mask, box(slice(7, 36)))
    spill = found(result.findings, "AUTO_OUTSIDE_BODY")
    assert (spill.severity, spill.structure) == (severity, "SpinalCord")
    assert box(slice(first, 7))[spill.at_zyx]


def test_an_organ_all_outside_the_body_is_none():
    result = structures(drawing(), asked(PaintedModel({"SpinalCord": box(slice(0, 5)), "Larynx": box(slice(40, 44))})))
    assert "SpinalCord" not in result
    assert found(result.findings, "AUTO_OUTSIDE_BODY").severity == "hold"


def test_an_organ_drawn_by_a_person_under_an_unreadable_name_is_noticed():
    # mutant: compare nothing; mutant: compare with targets
    given = region(2, "Zxq 7", "ORGAN", -20, -20, 20.0)
    known = structures(drawing(given))["Zxq_7"].mask
    result = structures(drawing(given), asked(PaintedModel({"SpinalCord": known, "Larynx": box(slice(40, 44))})))
    double = found(result.findings, "AUTO_DOUBLE")
    assert (double.severity, double.structure) == ("hold", "SpinalCord")
    assert "Zxq 7" in double.message
    assert known[double.at_zyx]


def test_a_region_that_may_be_the_organ_holds_the_case_although_a_model_drew_it():
    # mutant: what the model drew taken for the answer
    model = PaintedModel({"SpinalCord": box(slice(20, 30)), "Larynx": box(slice(40, 44))})
    contours = drawing(region(2, "SpinalCord old", "ORGAN", -30, 20))
    result = structures(contours, asked(model, lacking_organs(contours, PROTOCOL)))
    assert result["SpinalCord"].origin == "model"
    confirm = found(result.findings, "NAME_TO_CONFIRM")
    assert confirm.severity == "hold"
    assert "what a model drew is used" in confirm.message


def test_sides_are_checked_between_physician_and_model():
    protocol = replace(PROTOCOL, goals=(goal("Parotid_L", "Mean[Gy]", 26.0),))
    contours = drawing(region(2, "Parotid_R", "ORGAN", 20, 20))
    drawn = asked(PaintedModel({"Parotid_L": box(slice(10, 16))}), lacking=lacking_organs(contours, protocol))
    assert found(structures(contours, drawn, protocol).findings, "LATERALITY_CONFLICT").severity == "hold"


def test_no_target_is_ever_invented():
    # mutant: targets among the needed organs
    protocol = replace(PROTOCOL, goals=(*PROTOCOL.goals, goal("PTV_5600", "Mean[Gy]", 60.0)))
    model = PaintedModel({"Larynx": box(slice(40, 44))}, labels=("PTV_5600", "PTV_7000", "zPTV_All", "Larynx", "External"))
    lacking = lacking_organs(drawing(), protocol)
    assert lacking == NEEDED
    result = structures(drawing(), asked(model, lacking), protocol)
    assert {s.name for s in result if s.origin == "model"} == {"Larynx"}
    with pytest.raises(CaseRejected, match="SS_TARGET_MISSING"):
        structures(ContourSet("1.2", "1.3", (), "0" * 64), asked(model, lacking), protocol)


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(bool, (3, 7, 9)))
def test_contours_give_back_the_mask_that_is_planned_on(mask):
    grid = Grid((3, 7, 9), (3.0, 0.97, 1.17), (-123.4567, 77.77, -501.5))
    assert np.array_equal(as_written("Larynx", mask, grid), mask)


def test_contours_that_lose_something_stop_the_case(monkeypatch):
    whole = auto_contour.outlines
    monkeypatch.setattr(auto_contour, "outlines", lambda mask, grid: whole(mask, grid)[1:])
    with pytest.raises(SafetyStop, match="CONTOUR_ROUND_TRIP"):
        as_written("Larynx", box(slice(20, 30)), GRID)


def test_dice_and_middle():
    a, b = box(slice(20, 30)), box(slice(25, 35))
    assert dice(a, b) == pytest.approx(0.5)
    assert dice(~(a | ~a), ~(a | ~a)) == 1.0
    ring = box(slice(20, 31), slice(20, 31)) & ~box(slice(22, 29), slice(22, 29))
    assert ring[middle(ring)]


def test_a_structure_knows_its_model_exactly_when_one_drew_it():
    with pytest.raises(ValueError, match="Larynx"):
        Structure("Larynx", "ORGAN", BODY, "", "model")
    with pytest.raises(ValueError, match="Larynx"):
        Structure("Larynx", "ORGAN", BODY, "Larynx", "physician", DrawnBy("m", "1", 0.5))
