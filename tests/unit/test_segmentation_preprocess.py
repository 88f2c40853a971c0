"""The working grid: where its voxels are, that a mean is a mean, and that what goes there comes back to the same place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from segmentation.preprocess import from_working_grid, network_input, to_working_grid

WORKING = (3.0, 3.9, 3.9)
GRIDS = [
    ((40, 90, 80), (2.5, 1.2, 1.3)),
    ((24, 30, 33), (5.0, 3.9, 3.9)),
    ((61, 47, 52), (1.5, 2.0, 5.4)),
    ((33, 36, 35), WORKING),
]


def centres_mm(shape, spacing):
    """Voxel centres along each axis from the centre of the volume."""
    return [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]


def ball(shape, spacing, radius_mm, at_mm=(0.0, 0.0, 0.0)):
    z, y, x = np.meshgrid(*centres_mm(shape, spacing), indexing="ij", sparse=True)
    return radius_mm - np.sqrt((z - at_mm[0]) ** 2 + (y - at_mm[1]) ** 2 + (x - at_mm[2]) ** 2)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_linear_ramp_keeps_its_place_and_slope(shape, spacing):
    """Means over a voxel and linear interpolation are both exact on a ramp. mutant: no half voxel in `_centres`."""
    for axis in range(3):
        ramp = np.broadcast_to(np.expand_dims(centres_mm(shape, spacing)[axis], [a for a in range(3) if a != axis]), shape)
        working = to_working_grid(ramp, spacing, WORKING)
        expected = centres_mm(working.hu.shape, WORKING)[axis]
        profile = np.moveaxis(working.hu, axis, 0)[:, 3, 3]
        inner = slice(2, -2)  # the outermost voxels reach beyond the CT, where its last value goes on
        np.testing.assert_allclose(profile[inner], expected[inner], atol=2e-3)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_working_grid_covers_the_ct_and_no_more(shape, spacing):
    working = to_working_grid(np.zeros(shape, np.int16), spacing, WORKING)
    for n, s, m, t in zip(shape, spacing, working.hu.shape, WORKING, strict=True):
        assert n * s <= m * t + 1e-6 < n * s + t + 1e-5


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_blob_returns_where_it_was(shape, spacing):
    """mutant: grids that share a corner instead of the centre; an unweighted first voxel."""
    at_mm = (4.1, -6.3, 7.7)
    blob = np.exp(-(((20 - ball(shape, spacing, 20, at_mm)) / 13.0) ** 2)).astype(np.float32)
    working = to_working_grid(blob, spacing, WORKING)
    back = from_working_grid(working.hu, working, shape)
    for grid_spacing, array in ((spacing, back), (WORKING, working.hu)):
        axes = np.meshgrid(*centres_mm(array.shape, grid_spacing), indexing="ij", sparse=True)
        centroid = [float((axis * array).sum() / array.sum()) for axis in axes]
        np.testing.assert_allclose(centroid, at_mm, atol=0.05)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_ball_returns_whole(shape, spacing):
    inside = ball(shape, spacing, 30.0, (1.0, 2.0, -3.0)) > 0
    working = to_working_grid(inside, spacing, WORKING)
    back = from_working_grid(working.hu, working, shape) > 0.5
    assert 2 * (back & inside).sum() / (back.sum() + inside.sum()) >= 0.97


def test_same_grid_is_left_alone():
    hu = np.random.default_rng(0).integers(-1000, 2000, (9, 11, 13)).astype(np.int16)
    working = to_working_grid(hu, WORKING, WORKING)
    np.testing.assert_array_equal(working.hu, hu)
    np.testing.assert_array_equal(from_working_grid(working.hu, working, hu.shape), hu)


def test_fine_noise_is_averaged_not_sampled():
    """A checkerboard of a fifth of a working voxel is grey there. mutant: `_linear` in place of `_averaging`."""
    board = 1000 * (np.indices((50, 50, 50)).sum(axis=0) % 2)
    working = to_working_grid(board, (0.6, 0.78, 0.78), WORKING)
    inner = working.hu[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, 500, atol=60)


def test_mirrored_ct_gives_the_mirrored_grid():
    hu = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(23, 40, 37)), 1).astype(np.float32)
    for axis in range(3):
        mirrored = to_working_grid(np.flip(hu, axis), (2.0, 1.7, 5.1), WORKING).hu
        straight = to_working_grid(hu, (2.0, 1.7, 5.1), WORKING).hu
        np.testing.assert_allclose(mirrored, np.flip(straight, axis), atol=1e-6)


def test_box_is_a_part_of_the_whole():
    shape, spacing = (20, 60, 50), (2.0, 1.5, 1.1)
    working = to_working_grid(np.random.default_rng(2).normal(size=shape), spacing, WORKING)
    box = (slice(3, 9), slice(10, 41), slice(5, 6))
    whole = from_working_grid(working.hu, working, shape)
    np.testing.assert_allclose(from_working_grid(working.hu, working, shape, box), whole[box], atol=1e-6)


def test_what_is_not_of_the_grid_is_refused():
    working = to_working_grid(np.zeros((10, 20, 30), np.int16), (3.0, 2.0, 2.0), WORKING)
    with pytest.raises(ValueError, match="expected"):
        from_working_grid(np.zeros((10, 20, 30), np.float32), working, (10, 20, 30))
    with pytest.raises(ValueError, match="expected"):
        from_working_grid(working.hu, working, (30, 20, 10))
    with pytest.raises(ValueError, match="positive"):
        to_working_grid(np.zeros((3, 3, 3)), (0.0, 1.0, 1.0), WORKING)


def test_network_input_is_clipped_and_scaled():
    # mutant: the same window in every channel
    hu = np.array([-2000, -1000, 0, 40, 500, 3000], np.float32)
    given = network_input(hu, ((-1000.0, 1000.0), (-160.0, 240.0)))
    np.testing.assert_allclose(given, [[-1, -1, 0, 0.04, 0.5, 1], [-1, -1, -0.2, 0, 1, 1]], atol=1e-6)
    assert given.dtype == np.float32
