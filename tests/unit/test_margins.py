"""Volumes grow and shrink by the millimetres asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtplan.domain.grid import Float3, Grid
from rtplan.steps.margins import deeper_than, distance_outside_mm, expanded, ring


def cube_grid(spacing_zyx_mm: Float3, side_mm: float = 80.0) -> Grid:
    nz, ny, nx = (int(side_mm / step) for step in spacing_zyx_mm)
    return Grid((nz, ny, nx), spacing_zyx_mm, (-side_mm / 2 + 0.3, -side_mm / 2 - 0.2, -side_mm / 2 + 0.1))


def ball(grid: Grid, radius_mm: float) -> NDArray[np.bool_]:
    z, y, x = np.meshgrid(grid.z_mm(), grid.y_mm(), grid.x_mm(), indexing="ij")
    return x**2 + y**2 + z**2 <= radius_mm**2


def radius_mm(mask: NDArray[np.bool_], grid: Grid) -> float:
    """Radius of the ball of the same volume."""
    return float((mask.sum() * grid.voxel_cc * 1000 / (4 / 3 * np.pi)) ** (1 / 3))


@pytest.mark.parametrize("spacing_zyx_mm", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (2.5, 2.0, 2.0)])
@pytest.mark.parametrize("margin_mm", [3.0, 5.0, 12.0])
def test_a_ball_grows_to_the_ball_of_its_radius_and_the_margin(spacing_zyx_mm: Float3, margin_mm: float):
    # mutant: sampling left out; spacing given in the order z, y, x to ITK
    grid = cube_grid(spacing_zyx_mm)
    grown = expanded(ball(grid, 18.0), grid, margin_mm)
    assert radius_mm(grown, grid) == pytest.approx(18.0 + margin_mm, abs=0.15 * max(spacing_zyx_mm))


@pytest.mark.parametrize("spacing_zyx_mm", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (2.5, 2.0, 2.0)])
@pytest.mark.parametrize("depth_mm", [3.0, 5.0])
def test_what_lies_deeper_in_a_ball_is_the_ball_of_its_radius_less_the_depth(spacing_zyx_mm: Float3, depth_mm: float):
    grid = cube_grid(spacing_zyx_mm)
    core = deeper_than(ball(grid, 25.0), grid, depth_mm)
    assert radius_mm(core, grid) == pytest.approx(25.0 - depth_mm, abs=0.15 * max(spacing_zyx_mm))


def test_distance_is_that_to_the_nearest_voxel():
    grid = Grid((6, 7, 8), (3.0, 1.5, 2.0), (5.0, 6.0, 7.0))
    mask = np.random.default_rng(1).random(grid.shape_zyx) < 0.03
    points = grid.to_point_mm(np.argwhere(mask).astype(float))
    everywhere = grid.to_point_mm(np.argwhere(np.ones(grid.shape_zyx)).astype(float))
    nearest = np.linalg.norm(everywhere[:, None] - points[None], axis=-1).min(axis=1)
    assert distance_outside_mm(mask, grid).ravel() == pytest.approx(nearest, abs=1e-4)


def test_a_flat_face_moves_by_whole_voxels_nearest_the_margin():
    grid = Grid((9, 9, 40), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    slab = np.zeros(grid.shape_zyx, bool)
    slab[:, :, 10:20] = True
    assert expanded(slab, grid, 6.0)[4, 4].nonzero()[0][[0, -1]].tolist() == [7, 22]
    assert deeper_than(slab, grid, 4.0)[4, 4].nonzero()[0][[0, -1]].tolist() == [12, 17]


@pytest.mark.parametrize("upside_down", [False, True])
def test_a_scan_that_ends_is_no_skin_but_the_top_of_a_head_is(upside_down: bool):
    grid = Grid((12, 20, 20), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    body = np.zeros(grid.shape_zyx, bool)
    body[:9, 3:17, 3:17] = True  # the scan ends on one side, the patient on the other
    kept = deeper_than(body[::-1] if upside_down else body, grid, 4.0)
    kept = kept[::-1] if upside_down else kept
    assert kept.any(axis=(1, 2)).nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_rings_lie_between_their_distances_and_join_without_overlap():
    grid = cube_grid((2.0, 2.0, 2.0), 100.0)
    target = ball(grid, 14.0)
    near, far = ring(target, grid, inner_mm=0.0, outer_mm=8.0), ring(target, grid, inner_mm=8.0, outer_mm=20.0)
    assert not (near & far).any() and not (near & target).any()
    assert np.array_equal(near | far | target, expanded(target, grid, 20.0))
    assert np.array_equal(near | target, expanded(target, grid, 8.0))


def test_growth_is_cut_at_the_grid_and_nothing_grows_from_nothing():
    grid = cube_grid((4.0, 4.0, 4.0), 40.0)
    empty = np.zeros(grid.shape_zyx, bool)
    assert expanded(~empty, grid, 9.0).all()
    assert not expanded(empty, grid, 9.0).any()
    assert not ring(empty, grid, inner_mm=1.0, outer_mm=9.0).any()
    assert not deeper_than(empty, grid, 9.0).any()


def test_the_mask_given_is_not_changed():
    grid = cube_grid((4.0, 4.0, 4.0), 40.0)
    mask = ball(grid, 10.0)
    before = mask.copy()
    expanded(mask, grid, 0.0)[:] = True
    deeper_than(mask, grid, 0.0)[:] = False
    expanded(mask, grid, 8.0)
    assert np.array_equal(mask, before)
