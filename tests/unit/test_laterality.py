"""The side of a target is measured, never guessed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_protocol import PROTOCOL

from rtplan.domain.grid import Grid
from rtplan.domain.structures import Structure, StructureSet
from rtplan.errors import CaseRejected
from rtplan.steps.laterality import target_side
from rtplan.steps.prescribe import prescribe
from rtplan.steps.segment import needed_organs

GRID = Grid((10, 20, 40), (5.0, 5.0, 5.0), (-97.5, -50.0, 0.0))
SIDED = replace(PROTOCOL, sided=True, helpers=(), target_skin_crop_mm=0.0)


def box(low_x_mm: float, high_x_mm: float) -> np.ndarray:
    mask = np.zeros(GRID.shape_zyx, dtype=bool)
    inside = (GRID.x_mm() >= low_x_mm) & (GRID.x_mm() <= high_x_mm)
    mask[2:8, 4:12, inside] = True
    return mask


def structures(
    target: tuple[float, float], name: str = "PTV70", body: tuple[float, float] = (-90, 90), swapped: bool = False
):
    sides = [("Parotid_L", box(40, 60)), ("Parotid_R", box(-60, -40))]
    if swapped:
        sides = [(a, m) for (a, _), (_, m) in zip(sides, reversed(sides), strict=True)]
    return StructureSet(
        GRID,
        (
            Structure("External", "EXTERNAL", box(*body)),
            Structure("PTV_7000", "PTV", box(*target), name),
            *(Structure(organ, "ORGAN", mask) for organ, mask in sides),
        ),
    )


def test_the_side_comes_from_the_middle_of_the_body_and_is_told():
    # mutant: +x taken for the right
    side, said = target_side(structures((20, 60)), SIDED)
    assert (side, said.code, said.severity) == ("left", "SIDE_TAKEN", "flag") and "left" in said.message
    assert target_side(structures((-60, -20)), SIDED)[0] == "right"


def test_the_midline_is_the_bodys_and_not_the_images():
    # mutant: the midline at x = 0
    drawn = structures((30, 70), body=(-10, 90))
    with pytest.raises(CaseRejected, match="midline"):
        target_side(drawn, SIDED)


@pytest.mark.parametrize(
    "drawn",
    [
        structures((-10, 15)),
        structures((20, 60), swapped=True),
        structures((20, 60), name="PTV Right"),
        structures((-60, -20), name="PTV_L"),
    ],
    ids=["in the middle", "organs disagree", "name disagrees", "name disagrees on the right"],
)
def test_a_doubtful_side_is_refused(drawn):
    # mutant: organs not asked; mutant: names not asked
    with pytest.raises(CaseRejected) as caught:
        target_side(drawn, SIDED)
    assert caught.value.code == "SIDE_AMBIGUOUS"


@pytest.mark.parametrize("name", ["PTV_L", "Left PTV", "ptv lt", "PTV_LungRoll"])
def test_a_name_that_agrees_or_says_nothing_is_no_obstacle(name):
    assert target_side(structures((20, 60), name=name), SIDED)[0] == "left"


def test_a_prescription_carries_the_side_and_its_organs():
    # mutant: prescribe keeps the protocol of the left
    ipsilateral = replace(SIDED.goals[0], structure="Parotid_ipsi")
    protocol = replace(SIDED, goals=(ipsilateral, replace(ipsilateral, structure="Parotid_contra")))
    made, _ = prescribe(structures((-60, -20)), protocol)
    assert made.side == "right" and [g.structure for g in made.goals] == ["Parotid_R", "Parotid_L"]
    assert made.protocol.beams.gantry_angles_deg == (0.0, 240.0, 120.0)
    assert "SIDE_TAKEN" in [f.code for f in made.findings]
    assert needed_organs(protocol) == ("Parotid_L", "Parotid_R")
    assert prescribe(structures((-60, -20)), replace(protocol, sided=False, goals=SIDED.goals))[0].side is None
