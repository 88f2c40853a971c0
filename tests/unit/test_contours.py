"""Contours and masks say the same thing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from rtplan.dicom.outlines import outlines
from rtplan.domain.contour_faults import crossings, doubled, gaps
from rtplan.domain.contours import polygon_area_mm2, rasterise
from rtplan.domain.grid import Grid
from rtplan.domain.structures import Contour

GRID = Grid((3, 20, 24), (2.5, 1.5, 2.0), (-17.3, 4.1, -900.0))
UNIT = Grid((1, 12, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def polygon(*points: tuple[float, float], z_mm: float = 0.0) -> Contour:
    return Contour(z_mm, np.array(points, dtype=float))


def square(x0: float, y0: float, x1: float, y1: float, z_mm: float = 0.0) -> Contour:
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1), z_mm=z_mm)


def backwards(contour: Contour) -> Contour:
    return Contour(contour.z_mm, contour.points_xy_mm[::-1])


@settings(derandomize=True, deadline=None, max_examples=150)
@given(arrays(np.bool_, GRID.shape_zyx, elements=st.booleans(), fill=st.booleans()))
def test_any_mask_comes_back_from_its_outlines(mask: NDArray[np.bool_]):
    # Noise holds every hole, single voxel, diagonal touch and edge of the image.
    # mutant: nearest voxel instead of ceil in _toggles; no padding in outlines
    assert np.array_equal(rasterise(outlines(mask, GRID), GRID), mask)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_masks_of_random_polygons_agree_with_matplotlib(seed: int, n: int):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    radius = rng.uniform(0.5, 16.0, n)
    points = np.stack([6.0 + radius * np.cos(angle), 18.0 + radius * np.sin(angle)], axis=1)
    y, x = np.meshgrid(GRID.y_mm(), GRID.x_mm(), indexing="ij")
    expected = Polygon(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(y.shape)
    found = rasterise([Contour(-897.5, points)], GRID)
    if expected.any():
        assert np.array_equal(found[1], expected)
    assert not found[[0, 2]].any()


@pytest.mark.parametrize("turn", [lambda c: c, backwards], ids=["same winding", "other winding"])
def test_a_contour_inside_another_is_a_hole_whatever_its_winding(turn):
    mask = rasterise([square(1, 1, 10, 10), turn(square(3, 3, 7, 7))], UNIT)[0]
    assert mask.sum() == 81 - 16
    assert not mask[4, 4] and mask[2, 2]


def test_an_island_in_a_hole_is_inside():
    mask = rasterise([square(0.5, 0.5, 10.5, 10.5), square(2.5, 2.5, 8.5, 8.5), square(4.5, 4.5, 6.5, 6.5)], UNIT)[0]
    assert mask.sum() == 100 - 36 + 4
    assert mask[5, 5]


def test_a_keyhole_gives_the_same_mask_as_a_hole():
    # The channel lies on voxel centres, where an edge drawn there and back must cancel.
    keyhole = polygon(
        *((1, 1), (10, 1), (10, 5), (7, 5), (7, 3), (3, 3), (3, 7), (7, 7), (7, 5), (10, 5), (10, 10), (1, 10)),
    )
    hole = rasterise([square(1, 1, 10, 10), square(3, 3, 7, 7)], UNIT)
    assert np.array_equal(rasterise([keyhole], UNIT), hole)


def test_a_slanted_keyhole_leaves_no_scratch():
    there, back = (9.7, 8.9), (6.1, 5.3)
    outer = [(0.5, 0.5), (10.5, 0.5), there]
    inner = [back, (6.1, 3.2), (3.2, 3.2), (3.2, 6.1)]
    keyhole = polygon(*outer, *inner, back, there, (10.5, 10.5), (0.5, 10.5))
    parts = [polygon(*outer, (10.5, 10.5), (0.5, 10.5)), polygon(*inner)]
    assert np.array_equal(rasterise([keyhole], UNIT), rasterise(parts, UNIT))


def test_neighbours_that_share_a_border_share_no_voxel_and_leave_none_out():
    # mutant: closed instead of half-open intervals
    left, right, both = square(1, 1, 5, 9), square(5, 1, 9, 9), square(1, 1, 9, 9)
    a, b, whole = (rasterise([c], UNIT) for c in (left, right, both))
    assert not (a & b).any()
    assert np.array_equal(a | b, whole)


def test_a_border_on_voxel_centres_does_not_hang_on_rounding():
    grid = Grid((1, 30, 30), (1.0, 0.9765625, 0.9765625), (-249.51171875, -499.0234375, 0.0))
    x, y = grid.x_mm(), grid.y_mm()
    for noise_mm in (0.0, 1e-9, -1e-9):
        mask = rasterise([square(x[3] + noise_mm, y[4] + noise_mm, x[9] + noise_mm, y[11] + noise_mm)], grid)[0]
        rows, columns = np.nonzero(mask)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 10, 3, 8)


def test_a_speck_marks_its_voxel_and_not_the_slice():
    speck = square(4.2, 4.2, 4.4, 4.4)
    assert np.argwhere(rasterise([speck], UNIT)).tolist() == [[0, 4, 4]]
    with_organ = rasterise([square(6, 6, 9, 9), speck], UNIT)
    assert with_organ.sum() == 9 + 1


def test_a_speck_that_is_a_hole_marks_nothing():
    organ = square(1.4, 1.4, 8.4, 8.4)
    hole = square(1.42, 4.2, 1.48, 4.4)  # its centroid is in the organ, its voxel's centre is not
    assert np.array_equal(rasterise([organ, hole], UNIT), rasterise([organ], UNIT))


def test_what_lies_beyond_the_image_is_cut():
    assert rasterise([square(-50, -50, 50, 50)], UNIT).all()
    assert not rasterise([square(20, 20, 30, 30), square(-9.1, 4, -8.9, 4.1)], UNIT).any()


def test_a_contour_on_no_slice_is_an_error():
    with pytest.raises(ValueError, match="on no slice"):
        rasterise([square(1, 1, 5, 5, z_mm=0.4)], UNIT)


def test_volume_of_a_disc_is_that_of_its_contour():
    grid = Grid((1, 400, 400), (1.0, 0.5, 0.5), (-99.75, -99.75, 0.0))
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    disc = Contour(0.0, 60.3 * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    area = rasterise([disc], grid).sum() * 0.25
    assert area == pytest.approx(abs(polygon_area_mm2(disc.points_xy_mm)), rel=2e-3)


def test_a_figure_of_eight_crosses_itself():
    eight = polygon((0, 0), (10, 10), (10, 0), (0, 10))
    (found,) = crossings([square(0, 20, 5, 25), eight])
    assert (found.first, found.second) == (1, 1)
    assert found.loop_mm2 == pytest.approx(25.0)


def test_contours_that_cross_are_found_only_on_one_slice():
    a, b = square(0, 0, 6, 6), square(3, 3, 9, 9)
    assert {(c.first, c.second) for c in crossings([a, b])} == {(0, 1)}
    assert crossings([a, square(3, 3, 9, 9, z_mm=1.0)]) == ()


@pytest.mark.parametrize(
    "contours",
    [
        [square(0, 0, 5, 5), square(5, 0, 9, 5)],
        [square(0, 0, 5, 5), square(5, 5, 9, 9)],
        [square(0, 0, 9, 9), square(3, 3, 5, 5)],
        [polygon((0, 0), (9, 0), (9, 5), (6, 5), (6, 3), (3, 3), (3, 7), (6, 7), (6, 5), (9, 5), (9, 9), (0, 9))],
        [polygon((0, 0), (5, 0), (5, 0), (5, 5), (0, 5), (0, 0))],
    ],
    ids=["shared border", "shared corner", "hole", "keyhole", "closed twice"],
)
def test_what_touches_does_not_cross(contours):
    assert crossings(contours) == ()


def test_crossings_agree_with_every_pair_compared_one_by_one():
    rng = np.random.default_rng(3)
    contours = [Contour(float(z), rng.uniform(0, 40, (25, 2))) for z in (0, 0, 3)]

    def side(p, q, r) -> float:
        return float(np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])))

    edges = [
        (i, c.z_mm, c.points_xy_mm[j], c.points_xy_mm[(j + 1) % len(c.points_xy_mm)])
        for i, c in enumerate(contours)
        for j in range(len(c.points_xy_mm))
    ]
    expected = 0
    for n, (_, z, p, q) in enumerate(edges):
        for _, other_z, r, s in edges[n + 1 :]:
            expected += z == other_z and side(p, q, r) * side(p, q, s) < 0 and side(r, s, p) * side(r, s, q) < 0
    assert expected > 100
    assert len(crossings(contours)) == expected


def test_a_contour_given_twice_is_found_in_any_order():
    a = square(0, 0, 4, 4)
    turned = Contour(0.0, np.roll(a.points_xy_mm[::-1], 1, axis=0))
    assert doubled([a, square(0, 0, 4, 5), turned, square(0, 0, 4, 4, z_mm=1.0)]) == (2,)


def test_gaps_tell_missing_slices_from_separate_parts():
    grid = Grid((8, 12, 12), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    drawn = [square(1, 1, 5, 5, z_mm=z) for z in (0.0, 2.0, 8.0)] + [square(7, 7, 10, 10, z_mm=12.0)]
    found = gaps(drawn, grid)
    assert [(g.below, g.above, g.length_mm, g.joined) for g in found] == [(1, 4, 4.0, True), (4, 6, 2.0, False)]
