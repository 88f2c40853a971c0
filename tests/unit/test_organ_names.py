"""What a structure set's names become in a case: used when certain, said aloud when not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_protocol import PROTOCOL
from small_rtstruct import GRID, small_ct

from rtplan.domain.prescription import HelperRule, OrganRule
from rtplan.domain.structures import Contour, ContourSet, RoiContours, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected
from rtplan.steps.segment import needed_organs, structures_from_contours

BODY_MASK = np.ones(GRID.shape_zyx, bool)


def box(number: int, name: str, kind: str, x_mm: tuple[float, float], y_mm: float, slices: slice) -> RoiContours:
    corners = np.array([(x_mm[0], -y_mm), (x_mm[1], -y_mm), (x_mm[1], y_mm), (x_mm[0], y_mm)])
    return RoiContours(number, name, kind, tuple(Contour(float(z), corners) for z in GRID.z_mm()[slices]))


def roi(number: int, name: str, kind: str = "ORGAN") -> RoiContours:
    x0 = -40.0 + 8 * number
    return box(number, name, kind, (x0, x0 + 6), 5.0, slice(4, 10))


def structures(*names: str, protocol=PROTOCOL) -> StructureSet:
    drawn = [roi(1, "PTV70", "PTV"), *(roi(k, name) for k, name in enumerate(names, 2))]
    return structures_from_contours(ContourSet("1.2", "1.3", tuple(drawn), "0" * 64), small_ct(), BODY_MASK, protocol)


def to_confirm(found: StructureSet) -> list[Finding]:
    return [f for f in found.findings if f.code == "NAME_TO_CONFIRM"]


def source_of(found: StructureSet, name: str) -> str | None:
    return next((s.source_name for s in found if s.name == name), None)


@pytest.mark.parametrize("left", ["Parotis li", "腮腺左", "הפרוטיד השמאלי", "Parotide sx", "Parotid_L_final"])
def test_a_certain_name_is_used_in_any_language(left: str):
    found = structures(left, "Rückenmark")
    assert source_of(found, "Parotid_L") == left
    assert source_of(found, "SpinalCord") == "Rückenmark"
    assert to_confirm(found) == []


@pytest.mark.parametrize("unsure", ["Parotide D", "Parotid_R_old", "Parottid_R"])
def test_what_may_be_an_organ_of_the_protocol_is_held_and_not_used(unsure: str):
    # mutant: use match_name(...).name without its confidence
    found = structures("Parotid_L", unsure)
    assert source_of(found, "Parotid_R") is None
    [finding] = to_confirm(found)
    assert finding.severity == "hold"
    assert unsure in finding.message and "Parotid_R" in finding.message and "confirm" in finding.message


def test_a_paired_organ_without_its_side_is_held_when_a_side_is_lacking():
    [finding] = to_confirm(structures("Parotid_L", "Parotis"))
    assert finding.severity == "hold" and "Parotid_R" in finding.message
    assert to_confirm(structures("Parotid_L", "Parotid_R", "Parotis")) == []


def test_the_organ_written_out_wins_over_one_with_additions_and_both_are_named():
    # mutant: a certain name with additions counts as much as one without
    found = structures("Parotid_L_new", "Parotid_L")
    assert source_of(found, "Parotid_L") == "Parotid_L"
    [finding] = to_confirm(found)
    assert finding.severity == "flag"
    assert finding.message.startswith("Parotid_L_new may be Parotid_L too")


def test_two_regions_that_mean_one_organ_alike_are_refused():
    with pytest.raises(CaseRejected, match="SS_NAME_AMBIGUOUS"):
        structures("Parotid_L_v2", "Parotis_li_neu")


def test_what_the_protocol_does_not_need_is_flagged_and_gets_no_organ_s_name():
    # mutant: the safe name of "Lung_R?" is Lung_R
    found = structures("Lung_R?")
    assert "Lung_R" not in found
    [finding] = to_confirm(found)
    assert finding.severity == "flag"


def test_helpers_are_neither_organs_nor_asked_about():
    found = structures("zParotid_R", "Parotid_R-PTV", "Parotid_R_opt", "couch")
    assert source_of(found, "Parotid_R") is None
    assert to_confirm(found) == []


def test_a_required_organ_that_only_may_be_there_is_missing():
    needs = replace(PROTOCOL, organs=(*PROTOCOL.organs, OrganRule("Rectum", ("Rectum",), required=True)))
    with pytest.raises(CaseRejected, match="SS_ORGAN_MISSING"):
        structures("Rectum_old", protocol=needs)


def test_an_outline_written_out_is_the_external_beside_an_older_one():
    # mutant: take the first region whose name means the External
    drawn = (
        roi(1, "PTV70", "PTV"),
        *(box(k, n, "ORGAN", (-500, 500), 500, slice(None)) for k, n in ((2, "BODY_2"), (3, "BODY"))),
    )
    found = structures_from_contours(ContourSet("1.2", "1.3", drawn, "0" * 64), small_ct(), BODY_MASK, PROTOCOL)
    assert source_of(found, "External") == "BODY"


def test_a_gtv_that_the_protocol_uses_as_a_volume_is_taken_and_asked_of_no_model():
    # mutant: targets are never taken by a rule; mutant: a model is asked for the GTV
    lungs = HelperRule("Organs-GTV", "subtract", ("Parotid_L",), ("GTV",))
    goal = replace(PROTOCOL.goals[0], structure="Organs-GTV")
    protocol = replace(PROTOCOL, organs=(*PROTOCOL.organs, OrganRule("GTV", ("GTV",))), helpers=(lungs,), goals=(goal,))
    drawn = (roi(1, "PTV70", "PTV"), roi(2, "Parotid_L"), roi(3, "GTV", "GTV"))
    contours = ContourSet("1.2", "1.3", drawn, "0" * 64)
    found = structures_from_contours(contours, small_ct(), BODY_MASK, protocol)
    assert (found["GTV"].kind, found["GTV"].source_name) == ("GTV", "GTV")
    assert "TARGET_UNUSED" not in [f.code for f in found.findings]
    assert "GTV" not in needed_organs(protocol) and "Parotid_L" in needed_organs(protocol)


def test_a_target_is_no_organ_whatever_a_rule_accepts():
    protocol = replace(PROTOCOL, organs=(OrganRule("SpinalCord", ("PTV cord", "SpinalCord")),))
    drawn = (roi(1, "PTV70", "PTV"), roi(2, "PTV cord", "PTV"))
    found = structures_from_contours(ContourSet("1.2", "1.3", drawn, "0" * 64), small_ct(), BODY_MASK, protocol)
    assert "SpinalCord" not in found
