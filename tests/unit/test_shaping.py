"""Shaping is made from geometry: shells around the targets, pulls on what lies outside them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.grid import Grid
from rtplan.domain.prescription import PrescribedTarget
from rtplan.steps.shaping import FALL_MM, FALL_SHARE, SHELLS, shaping_terms, surroundings, with_target_levels

GRID = Grid((7, 20, 24), (5.0, 4.0, 4.0), (-46.0, -38.0, -15.0))
VOXELS = np.flatnonzero(np.random.default_rng(1).random(GRID.n_voxels) < 0.9)  # an operator leaves some voxels out
HIGH, LOW = PrescribedTarget("PTV_70", 70.0), PrescribedTarget("PTV_56", 56.0)


def points_mm():
    """Centres (n, 3) of the voxels, z y x."""
    index = np.stack(np.unravel_index(VOXELS, GRID.shape_zyx), axis=1)
    return index * np.array(GRID.spacing_zyx_mm)


def ball(middle_zyx_mm, radius_mm, part=1.0):
    rows = np.flatnonzero(np.linalg.norm(points_mm() - middle_zyx_mm, axis=1) < radius_mm).astype(np.int64)
    return rows, np.full(len(rows), part)


SETS = {
    "PTV_70": ball((15.0, 36.0, 32.0), 9.0),
    "PTV_56": ball((15.0, 36.0, 40.0), 17.0),
    "Parotid": ball((15.0, 36.0, 60.0), 14.0),
    "Inner": ball((15.0, 36.0, 32.0), 5.0),
    "Cord": ball((15.0, 70.0, 40.0), 7.0),
}


def goal(structure, text, priority=2):
    metric, sense, limit = text.split()
    return Goal(structure, parse_metric(metric), sense, float(limit), priority, "made up", "unverified")


GOALS = (
    goal("PTV_70", "D95[Gy] >= 66.5", 1),
    goal("PTV_70", "Max[Gy] <= 77", 1),
    goal("Parotid", "Mean[Gy] <= 26"),
    goal("Parotid", "V30Gy[%] <= 50"),
    goal("Inner", "Max[Gy] <= 74"),
    goal("Cord", "D0.03cc[Gy] <= 45", 0),
)


def around(*targets, sets=SETS):
    return surroundings(targets or (HIGH, LOW), sets, GRID, VOXELS)


def terms(*targets):
    targets = targets or (HIGH, LOW)
    prescription = SimpleNamespace(targets=targets, goals=GOALS)
    found = shaping_terms(prescription, SETS, around(*targets))
    named = {t.structure + " " + t.objective.kind: t for t in found}
    assert len(named) == len(found)
    return named


def shells(found):
    return [t for t in found.values() if t.structure.startswith("zFall_")]


def test_distances_are_those_to_the_nearest_voxel_of_a_target():
    """Voxels that the operator left out do not count. mutants: spacing in the wrong order; inside for outside"""
    found = around(HIGH, LOW)
    for k, name in enumerate(("PTV_70", "PTV_56")):
        expected = cdist(points_mm(), points_mm()[SETS[name][0]]).min(axis=1)
        np.testing.assert_allclose(found.distance_mm[k], expected, atol=1e-4)
    inside = np.isin(np.arange(len(VOXELS)), np.concatenate([SETS["PTV_70"][0], SETS["PTV_56"][0]]))
    assert np.array_equal(found.in_target, inside)


def test_a_voxel_belongs_to_a_target_by_half_of_it_or_more():
    # mutant: any part
    rows, part = SETS["PTV_70"]
    mixed = np.where(np.arange(len(rows)) % 2, 0.4, 0.6)
    found = around(HIGH, sets={"PTV_70": (rows, mixed)})
    assert np.flatnonzero(found.in_target).tolist() == rows[mixed > 0.5].tolist()
    thin = around(HIGH, sets={"PTV_70": (rows, 0.3 * part)})  # nowhere half a voxel thick: its fullest voxels
    assert np.flatnonzero(thin.in_target).tolist() == rows.tolist()


def test_ceilings_never_rise_with_the_distance():
    # mutant: distances in the wrong order
    assert np.all(np.diff(FALL_MM) > 0) and np.all(np.diff(FALL_SHARE) <= 0)
    found = around(HIGH)
    order = np.argsort(found.distance_mm[0])
    ceiling = found.ceiling_gy()[order]
    assert np.all(np.diff(ceiling) <= 1e-9) and ceiling[-1] < 0.7 * ceiling[0]
    assert ceiling.max() > 70.0 > ceiling.min()


def test_between_nested_targets_the_highest_ceiling_counts():
    # mutant: the lowest
    both, high, low = around(HIGH, LOW).ceiling_gy(), around(HIGH).ceiling_gy(), around(LOW).ceiling_gy()
    np.testing.assert_array_equal(both, np.maximum(high, low))
    assert np.any(both > high) and np.any(both > low)
    # Nobody's own prescription is forbidden by the other's fall-off.
    assert both[SETS["PTV_70"][0]].min() > 70.0 and both[SETS["PTV_56"][0]].min() > 56.0


def test_the_shells_hold_every_voxel_once():
    # mutant: the last shell left out
    found = shells(terms())
    rows = np.concatenate([t.voxel_rows for t in found])
    assert sorted(rows.tolist()) == list(range(len(VOXELS)))
    assert 5 < len(found) <= SHELLS


def test_a_shell_s_level_is_that_of_its_voxels_and_of_its_name():
    # mutant: the shell's upper edge
    ceiling = around().ceiling_gy()
    width = np.ptp(ceiling) / SHELLS
    for term in shells(terms()):
        level = term.objective.dose_gy
        assert np.abs(ceiling[term.voxel_rows] - level).max() <= width
        assert ceiling[term.voxel_rows].mean() == pytest.approx(level)
        assert term.structure == f"zFall_{round(100 * level)}" and term.objective.kind == "overdose"


def test_a_voxel_s_worth_does_not_depend_on_its_shell():
    """One Gy too much in any one voxel costs the same. mutant: one weight for all shells"""
    worth = []
    for term in shells(terms()):
        dose = np.full(len(term.voxel_rows), term.objective.dose_gy)
        dose[0] += 1.0
        worth.append(term.weight * term.objective.value_and_gradient(dose, term.voxel_weight)[0])
    assert worth == pytest.approx([worth[0]] * len(worth)) and worth[0] > 0


def test_organs_are_pulled_where_they_lie_outside_the_targets():
    """Once each, whatever many goals they have, with the weight of what lies outside. mutants: all of the organ; one pull
    for each goal"""
    found, free = terms(), ~around().in_target
    pulls = {t.structure: t for t in found.values() if t.structure.endswith("-PTV") and t.structure.startswith("z")}
    assert set(pulls) == {"zParotid-PTV", "zCord-PTV"}  # all of Inner lies in a target, and targets are not spared
    for name in ("Parotid", "Cord"):
        rows = SETS[name][0]
        term = pulls[f"z{name}-PTV"]
        assert term.voxel_rows.tolist() == rows[free[rows]].tolist()
        assert term.objective.kind == "mean_dose" and term.objective.dose_gy == 0.0
    assert len(pulls["zParotid-PTV"].voxel_rows) < len(SETS["Parotid"][0])  # part of it is in a target
    share = len(pulls["zParotid-PTV"].voxel_rows) / len(SETS["Parotid"][0])
    assert pulls["zParotid-PTV"].weight == pytest.approx(share * pulls["zCord-PTV"].weight)


def test_the_body_is_pulled_outside_the_targets():
    # mutant: everywhere
    body = terms()["External-PTV mean_dose"]
    assert body.voxel_rows.tolist() == np.flatnonzero(~around().in_target).tolist()


def test_every_target_is_filled_and_only_the_highest_is_capped():
    """Floors lie a little above the prescriptions, the cap above its floor. mutant: cap on every target"""
    found = terms()
    for target in (HIGH, LOW):
        assert target.dose_gy < found[f"{target.name} underdose"].objective.dose_gy < 1.02 * target.dose_gy
    assert "PTV_56 overdose" not in found
    cap = found["PTV_70 overdose"].objective.dose_gy
    assert found["PTV_70 underdose"].objective.dose_gy < cap < 1.07 * 70.0


@pytest.mark.parametrize(("factor", "moved"), [(0.98, 0.98), (1.01, 1.01), (0.4, 0.95 / 1.03), (2.5, None)])
def test_only_the_levels_of_the_target_itself_move_and_not_far(factor, moved):
    """mutants: the factor forgotten; other structures' levels moved; no end to it"""
    before = tuple(terms().values())
    after = with_target_levels(before, HIGH, factor)
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        if old.structure != HIGH.name:
            assert new is old
            continue
        level = new.objective.dose_gy
        assert (
            0.95 * 70.0 <= level <= 1.05 * 70.0 and type(new.objective) is type(old.objective) and new.weight == old.weight
        )
        if old.objective.kind == "overdose":
            assert level == pytest.approx(1.05 * 70.0 if moved is None else moved * old.objective.dose_gy)
