"""Grids of the planner, and how much of their voxels a structure fills."""

import numpy as np

from rtplan.domain.grid import Grid
from rtplan.domain.structures import Structure, StructureSet
from rtplan.steps.voxels import occupancy, planning_grid, voxel_sets, voxels_of_interest

CT = Grid((30, 40, 40), (2.5, 2.0, 2.0), (-39.0, -39.0, -36.25))


def structures() -> StructureSet:
    body = np.zeros(CT.shape_zyx, bool)
    body[:, 5:35, 5:35] = True
    target = np.zeros(CT.shape_zyx, bool)
    target[12:18, 15:22, 18:26] = True
    speck = np.zeros(CT.shape_zyx, bool)
    speck[20, 20, 20] = True
    return StructureSet(
        CT, (Structure("External", "EXTERNAL", body), Structure("PTV", "PTV", target), Structure("Speck", "ORGAN", speck))
    )


def test_occupancy_conserves_volume_on_finer_and_coarser_grids():
    # mutant: divide by the source's spacing
    mask = structures()["PTV"].mask
    volume = mask.sum() * CT.voxel_cc
    for spacing in (1.7, 4.0, 7.3):
        grid = planning_grid(structures(), ("PTV",), spacing)
        filled = occupancy(mask, CT, grid)
        assert abs(filled.sum() * grid.voxel_cc / volume - 1) < 1e-4
        assert filled.min() >= 0.0 and filled.max() <= 1.0


def test_planning_grid_covers_the_body_around_the_targets():
    # mutant: forget half a voxel at the box's ends
    grid = planning_grid(structures(), ("PTV",), 3.0, along_mm=10.0)
    low, high = grid.bounds_mm()
    z = CT.z_mm()
    assert low[2] <= z[12] - 10.0 and high[2] >= z[17] + 10.0
    assert low[2] > z[12] - 20.0 and high[2] < z[17] + 20.0
    assert low[0] <= CT.x_mm()[5] - 1.0 and high[0] >= CT.x_mm()[34] + 1.0


def test_voxels_of_interest_lie_in_the_body():
    set_ = structures()
    grid = planning_grid(set_, ("PTV",), 3.0)
    filled = occupancy(set_.external.mask, CT, grid).reshape(-1)
    chosen = voxels_of_interest(set_, grid)
    assert filled[chosen].min() >= 0.5
    assert len(chosen) == (filled >= 0.5).sum()


def test_a_structure_smaller_than_a_voxel_keeps_one():
    # mutant: a fixed least filling of a quarter
    set_ = structures()
    grid = planning_grid(set_, ("PTV",), 6.0)
    voxels = voxels_of_interest(set_, grid)
    sets = voxel_sets(set_, {"Speck", "PTV"}, grid, voxels)
    assert len(sets["Speck"][0]) >= 1
    point = grid.to_point_mm(np.array(np.unravel_index(voxels[sets["Speck"][0][0]], grid.shape_zyx), float))
    assert np.abs(point - CT.to_point_mm(np.array([20.0, 20.0, 20.0]))).max() <= 6.0
    assert sets["PTV"][1].min() >= 0.25
