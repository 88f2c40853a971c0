"""Points at which goals are judged, as mixtures of the optimiser's voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_plan

from rtplan.domain.grid import Grid
from rtplan.domain.structures import StructureSet
from rtplan.steps import samples as module
from rtplan.steps.samples import samples_in

GRID = Grid((20, 30, 36), (3.0, 4.0, 4.0), (-70.0, -58.0, -28.0))


@pytest.mark.parametrize(("lowest_mm", "beyond"), [(-20.0, False), (30.0, True), (-45.0, True)])
def test_a_structure_above_or_below_the_grid_is_beyond_it(lowest_mm, beyond):
    # mutants: never; what has no known voxel counts as beyond too
    structures = small_plan.structures()
    grid = Grid((10, 30, 36), (3.0, 4.0, 4.0), (-70.0, -58.0, lowest_mm))
    assert samples_in(structures, "Parotid_L", grid, np.arange(grid.n_voxels)).beyond is beyond
    nothing_known = samples_in(structures, "Parotid_L", GRID, np.arange(3))
    assert nothing_known.mixing.shape[0] == 0 and not nothing_known.beyond


def test_a_structure_in_air_is_beyond_the_grid():
    # mutant: one that touches the body counts as beyond too
    structures = small_plan.structures()
    organ, external = structures["Parotid_L"], structures.external
    for outside, beyond in ((organ.mask, True), (organ.mask & (np.cumsum(organ.mask) > 1).reshape(organ.mask.shape), False)):
        others = tuple(s for s in structures if s.name != external.name)
        cut = StructureSet(structures.grid, (*others, replace(external, mask=external.mask & ~outside)))
        assert samples_in(cut, "Parotid_L", GRID, np.arange(3)).beyond is beyond


@pytest.mark.parametrize("most", [20_000, 100])
@pytest.mark.parametrize("first_slice", [0, 11])
def test_points_are_the_chosen_voxels_centres(most, first_slice, monkeypatch):
    """A dose that rises evenly in space has at each point the value of the voxel that it says it is, also where voxels lie
    beyond what the optimiser knows. mutants: the first voxels instead of every k-th; points that were left out counted"""
    monkeypatch.setattr(module, "MOST", most)
    structures = small_plan.structures()
    known = np.arange(first_slice * 30 * 36, GRID.n_voxels)
    found = samples_in(structures, "Parotid_L", GRID, known)
    index = np.argwhere(structures["Parotid_L"].mask)
    every = -(-len(index) // most)
    centres = structures.grid.to_point_mm(index[found.chosen].astype(float))
    rising = np.array([0.3, -0.2, 0.7])
    voxels_mm = GRID.to_point_mm(np.stack(np.unravel_index(known[found.rows], GRID.shape_zyx), axis=1).astype(float))
    inside = GRID.to_index(centres)[:, 0] >= first_slice
    np.testing.assert_allclose((found.mixing @ (voxels_mm @ rising))[inside], (centres @ rising)[inside], atol=1e-9)
    assert np.all(found.chosen % every == 0) and found.mixing.shape == (len(found.chosen), len(found.rows))
    assert (len(found.chosen) == -(-len(index) // every)) == (first_slice == 0)
    assert found.volume_cc == pytest.approx(len(index) * structures.grid.voxel_cc)
