"""Leaves on the outline, organs behind leaves, subfields beside hot regions: geometry alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import site_cases

from rtplan.domain.beams import Beam, beam_frame
from rtplan.domain.openings import open_area_cm2, open_pairs
from rtplan.domain.plan import Aperture
from rtplan.domain.prescription import Block
from rtplan.domain.structures import StructureSet
from rtplan.errors import CaseRejected, PlanningFailed
from rtplan.library.machines import load_machine
from rtplan.steps.conformal_fields import NARROWEST_MM, open_fields, subfield
from rtplan.steps.place_beams import place_beams

MACHINE = load_machine("generic_6mv")


def fields_of(prescription, structures, machine=MACHINE):
    return open_fields(place_beams(prescription, structures, machine), prescription, structures, machine)


def seen(points_xyz_mm: np.ndarray, beam: Beam, aperture: Aperture) -> np.ndarray:
    """Which points lie in an aperture's opening."""
    x, y, _ = beam_frame(beam).to_bev(points_xyz_mm)
    pair = np.clip(np.searchsorted(MACHINE.mlc.leaf_boundaries_mm, y) - 1, 0, MACHINE.mlc.n_pairs - 1)
    inside = (x > aperture.leaf_x1_mm[pair]) & (x < aperture.leaf_x2_mm[pair]) & open_pairs(aperture, MACHINE.mlc)[pair]
    inside &= (x > aperture.jaw_x1_mm) & (x < aperture.jaw_x2_mm) & (y > aperture.jaw_y1_mm) & (y < aperture.jaw_y2_mm)
    return np.asarray(inside)


def points(structures: StructureSet, name: str) -> np.ndarray:
    return structures.grid.to_point_mm(np.argwhere(structures[name].mask).astype(float))


def test_an_open_field_shows_the_whole_target_and_little_more():
    # mutant: margin left out; mutant: rows of leaves counted from the other end
    prescription, structures = site_cases.prescribed("spine", protocol_id="bone_8_1")
    fields, findings = fields_of(prescription, structures)
    assert findings == () and [f.beam.gantry_angle_deg for f in fields] == [0.0, 180.0]
    for field in fields:
        target = points(structures, "PTV_0800")
        assert seen(target, field.beam, field.aperture).all()
        x, y, _ = beam_frame(field.beam).to_bev(target)
        grown = (np.ptp(x) + 14.0 + 5.0) * (np.ptp(y) + 14.0 + 5.0) / 100.0
        assert open_area_cm2(field.aperture, MACHINE.mlc) < 1.25 * grown
        is_open = open_pairs(field.aperture, MACHINE.mlc)
        assert field.aperture.leaf_x1_mm[is_open].min() <= x.min() - 7.0
        assert field.aperture.leaf_x2_mm[is_open].max() >= x.max() + 7.0


def test_blocked_organs_lie_behind_the_leaves_and_lost_target_is_told():
    # mutant: the block's margin left out; mutant: the outline wins over the block
    prescription, structures = site_cases.prescribed("brain", protocol_id="whole_brain_30_10")
    fields, findings = fields_of(prescription, structures)
    for field in fields:
        for lens in ("Lens_L", "Lens_R"):
            at = points(structures, lens)
            for shift in ([0, 0, 0], [0, 4.5, 0], [0, -4.5, 0], [0, 0, 4.5], [0, 0, -4.5]):
                assert not seen(at + np.array(shift), field.beam, field.aperture).any()
        assert seen(points(structures, "PTV_3000"), field.beam, field.aperture).mean() > 0.99
    assert {f.code for f in findings} <= {"BLOCK_ON_TARGET"}
    rules = replace(prescription.protocol.conformal, blocks=(Block("Lens_L", 20.0), Block("Parotid_L", 5.0)))
    wider = replace(prescription, protocol=replace(prescription.protocol, conformal=rules))
    told = fields_of(wider, structures)[1]
    assert "Lens_L" in {f.structure for f in told} and all(f.severity == "flag" for f in told)


def test_an_organ_that_is_not_drawn_is_no_block():
    prescription, structures = site_cases.prescribed("brain", protocol_id="whole_brain_30_10")
    without = StructureSet(structures.grid, tuple(s for s in structures if s.name != "Lens_L"))
    assert len(fields_of(prescription, without)[0]) == 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_tangents_end_at_the_axis_behind_and_in_the_air_in_front(side):
    # mutant: flash left out; mutant: the edge behind follows the outline; mutant: sides of the flash exchanged
    prescription, structures = site_cases.prescribed("breast", side, protocol_id="breast_40_15")
    for field in fields_of(prescription, structures)[0]:
        x, _, _ = beam_frame(field.beam).to_bev(points(structures, "PTV_4005"))
        front = np.sign(x.mean())
        is_open = open_pairs(field.aperture, MACHINE.mlc)
        tips = np.stack([field.aperture.leaf_x1_mm, field.aperture.leaf_x2_mm])[:, is_open] * front
        assert tips.min() == pytest.approx(0.0, abs=1.0) and tips.min() >= 0.0
        skin_x, _, _ = beam_frame(field.beam).to_bev(points(structures, f"Breast_{side[0].upper()}"))
        assert tips.max() >= (front * skin_x).max() + 15.0
        assert tips.max() <= (front * skin_x).max() + 40.0
        assert seen(points(structures, "PTV_4005"), field.beam, field.aperture).mean() > 0.999


def test_a_subfield_is_the_open_field_without_the_hot_part():
    # mutant: the shorter run kept; mutant: hot rows left open
    prescription, structures = site_cases.prescribed("brain", protocol_id="whole_brain_30_10")
    field = fields_of(prescription, structures)[0][0]
    brain = points(structures, "PTV_3000")
    hot = brain[brain[:, 1] < np.percentile(brain[:, 1], 15)]
    made = subfield(field, hot, 4.0, MACHINE)
    assert made is not None
    assert not seen(hot, field.beam, made).any()
    assert seen(brain, field.beam, made).mean() > 0.6
    is_open = open_pairs(made, MACHINE.mlc)
    assert np.all(made.leaf_x1_mm[is_open] >= field.aperture.leaf_x1_mm[is_open])
    assert np.all(made.leaf_x2_mm[is_open] <= field.aperture.leaf_x2_mm[is_open])
    assert (made.leaf_x2_mm - made.leaf_x1_mm)[is_open].min() >= NARROWEST_MM


def test_no_subfield_where_there_is_nothing_to_close_or_nothing_left():
    prescription, structures = site_cases.prescribed("spine", protocol_id="bone_8_1")
    field = fields_of(prescription, structures)[0][0]
    target = points(structures, "PTV_0800")
    assert subfield(field, target, 5.0, MACHINE) is None
    assert subfield(field, target + np.array([300.0, 0.0, 0.0]), 5.0, MACHINE) is None


def test_what_one_isocentre_cannot_cover_is_refused():
    # mutant: the outline cut at the leaves' reach instead
    prescription, structures = site_cases.prescribed("spine", protocol_id="bone_8_1")
    short = replace(MACHINE, mlc=replace(MACHINE.mlc, max_position_mm=25.0))
    with pytest.raises(CaseRejected) as caught:
        fields_of(prescription, structures, short)
    assert caught.value.code == "TARGET_TOO_LARGE"


def test_an_oblique_outline_beyond_the_span_of_a_bank_is_refused():
    # mutant: only closed pairs are held to the span
    prescription, structures = site_cases.prescribed("spine", protocol_id="bone_8_1")
    z, y, x = np.meshgrid(structures.grid.z_mm(), structures.grid.y_mm(), structures.grid.x_mm(), indexing="ij")
    bar = (np.abs(x - 1.2 * z) < 15.0) & (np.abs(y - 40.0) < 10.0) & (np.abs(z) < 60.0)
    oblique = tuple(replace(s, mask=bar) if s.name == "PTV_0800" else s for s in structures)
    there = StructureSet(structures.grid, oblique)
    assert len(fields_of(prescription, there)[0]) == 2
    stiff = replace(MACHINE, mlc=replace(MACHINE.mlc, max_span_mm=110.0))
    with pytest.raises(PlanningFailed) as failed:
        fields_of(prescription, there, stiff)
    assert failed.value.code == "LEAVES_OUT_OF_REACH"


def test_blocks_over_everything_leave_no_field():
    prescription, structures = site_cases.prescribed("spine", protocol_id="bone_8_1")
    rules = replace(prescription.protocol.conformal, blocks=(Block("PTV_0800", 20.0),))
    with pytest.raises(PlanningFailed) as caught:
        fields_of(replace(prescription, protocol=replace(prescription.protocol, conformal=rules)), structures)
    assert caught.value.code == "FIELD_TOO_SMALL"
