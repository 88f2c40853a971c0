"""What can be wrong with the contours of one region: crossings, doubles and missing slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.contours import polygon_area_mm2, rasterise, slice_index
from rtplan.domain.grid import Grid
from rtplan.domain.structures import Contour

_TOUCH_MM = 1e-3  # lines closer than this touch; keyholes and shared borders are no crossings
_PAIRS_AT_ONCE = 1_000_000
MAX_PAIRS = 200_000_000  # candidates of the crossing search in one region; real structure sets need about 1e6


class TooIntricate(ValueError):
    """The contours have more nearly meeting edges than can be searched in a bounded time."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Two edges that cross: of one contour (`first == second`) or of two on one slice; indices into the contours given.

    `loop_mm2` is the area of the smaller loop of a contour that crosses itself, infinite for two contours.
    """

    first: int
    second: int
    loop_mm2: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Slices without a contour between slices with one. `joined` when the areas on both sides lie over each other."""

    below: int
    above: int
    length_mm: float
    joined: bool


def crossings(contours: Sequence[Contour]) -> tuple[Crossing, ...]:
    """Every pair of edges that properly cross, within each contour and between contours of one slice.

    Candidates are the edges whose extents in y overlap, found by sorting. Raises TooIntricate beyond `MAX_PAIRS`.
    """
    if not contours:
        return ()
    start = np.concatenate([c.points_xy_mm for c in contours])
    end = np.concatenate([np.roll(c.points_xy_mm, -1, axis=0) for c in contours])
    counts = [len(c.points_xy_mm) for c in contours]
    owner = np.repeat(np.arange(len(contours)), counts)
    # Slices are laid out far apart along y, so that one sorted search serves the whole region.
    _, plane = np.unique(np.array([c.z_mm for c in contours]), return_inverse=True)
    reach = float(np.ptp(start[:, 1])) + 1.0
    lane = plane[owner] * 2 * reach
    found: list[Crossing] = []
    first_of = np.concatenate([[0], np.cumsum(counts)])
    for a, b in _candidates(np.minimum(start[:, 1], end[:, 1]) + lane, np.maximum(start[:, 1], end[:, 1]) + lane):
        crossed = _properly_cross(start[a], end[a], start[b], end[b])
        for i, j in zip(a[crossed].tolist(), b[crossed].tolist(), strict=True):
            one, other = sorted((i, j))
            first, second = int(owner[one]), int(owner[other])
            loop = np.inf
            if first == second:
                base = int(first_of[first])
                loop = _smaller_loop_mm2(contours[first].points_xy_mm, one - base, other - base)
            found.append(Crossing(first, second, loop))
    return tuple(sorted(found, key=lambda c: (c.first, c.second)))


def _candidates(
    low: NDArray[np.float64], high: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of intervals [low, high] that overlap, in portions of bounded size."""
    order = np.argsort(low, kind="stable")
    partners = np.searchsorted(low[order], high[order], side="right") - np.arange(len(order)) - 1
    total = np.cumsum(partners)
    if len(total) and total[-1] > MAX_PAIRS:
        raise TooIntricate(f"{int(total[-1])} pairs of edges to compare")
    begin = 0
    while begin < len(order):
        before = int(total[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(total, before + _PAIRS_AT_ONCE, side="right")))
        count = partners[begin:stop]
        a = np.repeat(np.arange(begin, stop), count)
        b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(count) - count, count)
        yield order[a], order[b]
        begin = stop


def _properly_cross(
    p: NDArray[np.float64], q: NDArray[np.float64], r: NDArray[np.float64], s: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether segments pq and rs, (n, 2) each, cross with every end clearly on its own side."""
    near = (np.minimum(p[:, 0], q[:, 0]) <= np.maximum(r[:, 0], s[:, 0])) & (
        np.minimum(r[:, 0], s[:, 0]) <= np.maximum(p[:, 0], q[:, 0])
    )
    crossed = np.zeros(len(p), dtype=np.bool_)
    p, q, r, s = p[near], q[near], r[near], s[near]
    to_r, to_s = _distance_to_line(p, q, r), _distance_to_line(p, q, s)
    to_p, to_q = _distance_to_line(r, s, p), _distance_to_line(r, s, q)
    clear = np.minimum.reduce([np.abs(d) for d in (to_r, to_s, to_p, to_q)]) > _TOUCH_MM
    crossed[near] = clear & (to_r * to_s < 0) & (to_p * to_q < 0)
    return crossed


def _distance_to_line(p: NDArray[np.float64], q: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance of points from the lines through p and q, mm; zero for lines without length."""
    along = q - p
    away = point - p
    length = np.hypot(along[:, 0], along[:, 1])
    cross = along[:, 0] * away[:, 1] - along[:, 1] * away[:, 0]
    return np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)


def _smaller_loop_mm2(points: NDArray[np.float64], first_edge: int, second_edge: int) -> float:
    """Area of the smaller of the two loops into which crossing edges divide a contour, mm²."""
    p, q = points[first_edge], points[(first_edge + 1) % len(points)]
    r, s = points[second_edge], points[(second_edge + 1) % len(points)]
    to_p, to_q = _distance_to_line(r[None], s[None], p[None])[0], _distance_to_line(r[None], s[None], q[None])[0]
    meeting = p + (q - p) * to_p / (to_p - to_q)
    inner = points[first_edge + 1 : second_edge + 1]
    outer = np.concatenate([points[second_edge + 1 :], points[: first_edge + 1]])
    return min(abs(polygon_area_mm2(np.concatenate([[meeting], loop]))) for loop in (inner, outer))


def doubled(contours: Sequence[Contour]) -> tuple[int, ...]:
    """Indices of contours that repeat an earlier one point for point in any order and direction.

    By the even-odd rule a contour and its double would cancel, and the volume inside would be lost.
    """
    seen: set[tuple[float, bytes]] = set()
    repeats = []
    for index, contour in enumerate(contours):
        # Adding zero turns a negative zero into a positive one, so that equal points have equal bytes.
        points = np.round(contour.points_xy_mm, 3) + 0.0
        key = (contour.z_mm, points[np.lexsort((points[:, 1], points[:, 0]))].tobytes())
        if key in seen:
            repeats.append(index)
        seen.add(key)
    return tuple(repeats)


def gaps(contours: Sequence[Contour], grid: Grid) -> tuple[Gap, ...]:
    """Interior slices without a contour, from inferior to superior."""
    by_slice: dict[int, list[Contour]] = {}
    for contour in contours:
        by_slice.setdefault(slice_index(contour, grid), []).append(contour)
    levels = sorted(by_slice)
    found = []
    for below, above in pairwise(levels):
        if above - below > 1:
            overlap = _filled(by_slice[below], below, grid) & _filled(by_slice[above], above, grid)
            length_mm = (above - below - 1) * grid.spacing_zyx_mm[0]
            found.append(Gap(below, above, length_mm, bool(overlap.any())))
    return tuple(found)


def _filled(contours: Sequence[Contour], index: int, grid: Grid) -> NDArray[np.bool_]:
    """Mask (y, x) of the contours of one slice."""
    _, ny, nx = grid.shape_zyx
    filled: NDArray[np.bool_] = rasterise(contours, grid.cropped((index, 0, 0), (index + 1, ny, nx)))[0]
    return filled
