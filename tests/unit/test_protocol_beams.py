"""Technique, beams, arcs, arrangements and sides of a protocol file: what is read, and what is refused with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rtplan.domain.prescription import Arc, for_side
from rtplan.errors import LibraryInvalid
from rtplan.library.protocol_beams import passes
from rtplan.library.protocols import SITES, check_protocol, load_protocol, with_technique

LUNG_FULL_ARC = "{start_deg: 346, stop_deg: 178, direction: CW, collimator_angle_deg: 15}"
MISTAKES = [
    # site, what is written, what is written instead, code, a passage on the line at fault, the field
    ("lung_60_30", "technique: imrt\n", "", "FIELD_MISSING", "id: lung", "technique"),
    ("lung_60_30", "technique: imrt", "technique: protons", "FIELD_INVALID", "protons", "technique"),
    ("lung_60_30", "technique: imrt", "technique: conformal", "FIELD_INCONSISTENT", "technique:", "technique"),
    ("prostate_60_20", "  arcs:", "  bows:", "FIELD_UNKNOWN", "bows:", "beams.bows"),
    ("lung_60_30", "direction: CW", "direction: CCW", "FIELD_INVALID", "CCW", "beams.arcs[0].direction"),
    ("lung_60_30", LUNG_FULL_ARC, LUNG_FULL_ARC.replace("CW", "CC"), "FIELD_INCONSISTENT", "346", "beams.arcs[0].direction"),
    ("lung_60_30", "stop_deg: 178", "stop_deg: 180", "FIELD_INCONSISTENT", "346", "beams.arcs[0].stop_deg"),
    ("lung_60_30", "stop_deg: 178", "stop_deg: 179.6", "FIELD_INCONSISTENT", "346", "beams.arcs[0].stop_deg"),
    ("lung_60_30", "stop_deg: 178", "stop_deg: 346.5", "FIELD_INCONSISTENT", "346", "beams.arcs[0].stop_deg"),
    ("lung_60_30", "stop_deg: 178", "stop_deg: 182", "FIELD_INCONSISTENT", "346", "beams.arcs[0].direction"),
    ("lung_60_30", "start_deg: 346", "start_deg: 360", "FIELD_INVALID", "360", "beams.arcs[0].start_deg"),
    ("lung_60_30", "laterality: from_target", "laterality: left", "FIELD_INVALID", "laterality", "laterality"),
    ("breast_40_15", "arrangement: tangents", "arrangement: tangential", "FIELD_INVALID", "tangential", "beams.arrangement"),
    ("breast_40_15", "laterality: from_target\n", "", "FIELD_INCONSISTENT", "Lung_ipsi", "goals[9].structure"),
    ("breast_40_15", "  flash_mm: 20\n", "", "FIELD_INCONSISTENT", "beams:", "beams"),
    ("bone_8_1", "  collimator_angle_deg: 0", "  collimator_angle_deg: 0\n  flash_mm: 20",
     "FIELD_INCONSISTENT", "flash", "beams.flash_mm"),
    ("bone_8_1", "  arrangement: ap_pa", "  gantry_angles_deg: [0, 180]\n  arrangement: ap_pa",
     "FIELD_INCONSISTENT", "arrangement", "beams.arrangement"),
    ("bone_8_1", "technique: conformal", "technique: imrt", "FIELD_INCONSISTENT", "arrangement", "beams.arrangement"),
    ("bone_8_1", "low_percent: 95, ", "", "FIELD_MISSING", "conformal:", "conformal.low_percent"),
    ("bone_8_1", "high_percent: 107", "high_percent: 95", "FIELD_INVALID", "conformal:", "conformal.high_percent"),
    ("bone_8_1", "V90%[%] >= 95', priority: 1", "V90%[%] >= 95', priority: 1, side: left",
     "FIELD_INCONSISTENT", "V90%", "goals[0].side"),
    ("whole_brain_30_10", "{structure: Lens_L, margin_mm: 5}", "{structure: Lense_L, margin_mm: 5}",
     "FIELD_INCONSISTENT", "Lense_L", "conformal.blocks[0].structure"),
    ("rectum_50_25", "dose_gy: 47,", "dose_gy: 57,", "FIELD_INCONSISTENT", "PTV_4700", "levels[1].dose_gy"),
    ("bone_20_5", "dose_gy: 20,", "dose_gy: 2000,", "FIELD_INCONSISTENT", "PTV_2000", "levels[0].dose_gy"),
    ("cervix_45_25", "structure: Colon_Sigmoid", "structure: Sigmoid",
     "FIELD_INCONSISTENT", "structure: Sigmoid", "goals[8].structure"),
]  # fmt: skip


@pytest.mark.parametrize(("site", "old", "new", "code", "passage", "field"), MISTAKES)
def test_a_mistake_names_file_line_and_field(tmp_path: Path, site, old, new, code, passage, field):
    text = (SITES / f"{site}.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / f"{site}.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LibraryInvalid) as caught:
        check_protocol(path)
    line = next(n for n, row in enumerate(path.read_text().splitlines(), start=1) if passage in row)
    assert caught.value.code == code
    assert re.search(rf"{site}\.yaml line {line}, {re.escape(field)}\b", caught.value.found), caught.value.found


def test_a_conformal_plan_has_one_dose(tmp_path):
    text = (SITES / "bone_20_5.yaml").read_text()
    second = "  - {target: PTV_1500, dose_gy: 15, names: [PTV_1500]}\nnested"
    (tmp_path / "two.yaml").write_text(text.replace("nested", second, 1))
    with pytest.raises(LibraryInvalid, match="2 levels"):
        check_protocol(tmp_path / "two.yaml")


def test_tangents_of_no_side_are_refused(tmp_path):
    # mutant: the check of laterality left out
    text = (SITES / "breast_26_5.yaml").read_text().replace("Lung_ipsi", "Lung_L").replace("laterality: from_target\n", "")
    (tmp_path / "sideless.yaml").write_text(text)
    with pytest.raises(LibraryInvalid, match="tangents of no side"):
        check_protocol(tmp_path / "sideless.yaml")


@pytest.mark.parametrize(
    ("arc", "length_deg", "passes_180", "passes_0"),
    [
        (Arc(182, 178, "CW", 0), 356, False, True),
        (Arc(178, 182, "CC", 0), 356, False, True),
        (Arc(178, 182, "CW", 0), 4, True, False),
        (Arc(10, 90, "CW", 0), 80, False, False),
        (Arc(90, 350, "CC", 0), 100, False, True),
        (Arc(90, 90, "CC", 0), 0, False, False),
    ],
)
def test_an_arc_knows_its_length_and_what_it_passes(arc, length_deg, passes_180, passes_0):
    # mutant: the directions exchanged
    assert arc.length_deg == length_deg
    assert (passes(arc, 180.0), passes(arc, 0.0)) == (passes_180, passes_0)


def test_the_arcs_of_the_lung_mirror_into_those_of_the_other_side():
    # mutant: the direction is not turned. The source gives 182 to 14 and 19 to 187 for the right.
    right = for_side(load_protocol("lung_60_30"), "right").beams
    assert [(a.start_deg, a.stop_deg, a.direction) for a in right.arcs] == [(14, 182, "CC"), (187, 19, "CW")]
    assert [a.collimator_angle_deg for a in right.arcs] == [345, 10]
    assert not any(passes(a, 180.0) for a in right.arcs)
    assert right.gantry_angles_deg[:2] == (20, 350)


def test_goals_of_a_side_go_to_that_sides_organs():
    # mutant: ipsilateral is always the left; mutant: goals of the other side stay
    protocol = load_protocol("breast_40_15")
    for side, own, other in (("left", "L", "R"), ("right", "R", "L")):
        goals = {(g.structure, g.metric.text): g.limit for g in for_side(protocol, side).goals}
        assert goals[f"Lung_{own}", "V16Gy[%]"] == 20 and goals[f"Lung_{other}", "V4Gy[%]"] == 10
        assert (f"Breast_{other}", "Mean[Gy]") in goals and (f"Breast_{own}", "Mean[Gy]") not in goals
        assert goals["Heart", "V8Gy[%]"] == (30 if side == "left" else 10)
        assert not any(name.endswith(("_ipsi", "_contra")) for name, _ in goals)


def test_a_technique_needs_its_beams():
    assert with_technique(load_protocol("lung_60_30"), "vmat").technique == "vmat"
    for site, technique in (
        ("bone_8_1", "vmat"),
        ("tg119_c_shape", "vmat"),
        ("lung_60_30", "conformal"),
        ("bone_8_1", "imrt"),
    ):
        with pytest.raises(LibraryInvalid) as caught:
            with_technique(load_protocol(site), technique)
        assert caught.value.code == "TECHNIQUE_MISSING"
