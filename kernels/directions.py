"""Directions of the collapsed cones, fixed in the patient, and how much of a kernel each of them carries."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

# Node orbits of octahedrally symmetric quadrature rules on the sphere (Lebedev, Zh. Vychisl. Mat. Mat. Fiz. 16:293, 1976):
# one representative each. The symmetry makes mirrored and quarter-turned patients come out mirrored and turned.
_ORBITS: dict[int, tuple[tuple[float, float, float], ...]] = {
    50: ((1, 0.0, 0.0), (1, 1, 0.0), (1, 1, 1), (0.904534033733, 0.301511344578, 0.301511344578)),
    86: (
        (1, 0.0, 0.0),
        (1, 1, 1),
        (0.852518311701, 0.369602846454, 0.369602846454),
        (0.694354006603, 0.694354006603, 0.189063552885),
        (0.927330657151, 0.37424303909, 0.0),
    ),
    110: (
        (1, 0.0, 0.0),
        (1, 1, 1),
        (0.965124035087, 0.185115635345, 0.185115635345),
        (0.690421048382, 0.690421048382, 0.215957291846),
        (0.828769981253, 0.395689473056, 0.395689473056),
        (0.878158910604, 0.478369028812, 0.0),
    ),
    170: (
        (1, 0.0, 0.0),
        (1, 1, 0.0),
        (1, 1, 1),
        (0.932642590313, 0.255125262111, 0.255125262111),
        (0.674360146036, 0.674360146036, 0.300793595138),
        (0.791795559393, 0.431891069672, 0.431891069672),
        (0.965232421976, 0.261393136034, 0.0),
        (0.854415804685, 0.49904531618, 0.144663074433),
    ),
    194: (
        (1, 0.0, 0.0),
        (1, 1, 0.0),
        (1, 1, 1),
        (0.67129734427, 0.67129734427, 0.314196994183),
        (0.912509096867, 0.289246562758, 0.289246562758),
        (0.777493219315, 0.444693317872, 0.444693317872),
        (0.982972302707, 0.129933544765, 0.129933544765),
        (0.938319218138, 0.345770219761, 0.0),
        (0.836036015482, 0.525118572444, 0.159041710538),
    ),
}

DIRECTION_COUNTS = tuple(_ORBITS)


def direction_set(count: int) -> NDArray[np.float64]:
    """Unit vectors (count, 3), x y z, spread evenly over the sphere. Raises KeyError for a count that has no rule."""
    points: list[tuple[float, float, float]] = []
    for orbit in _ORBITS[count]:
        images = {
            tuple(s * v + 0.0 for s, v in zip(signs, order, strict=True))
            for order in permutations(orbit)
            for signs in product((1.0, -1.0), repeat=3)
        }
        points += sorted(images)  # type: ignore[arg-type]
    unit: NDArray[np.float64] = np.array(points)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit


def cell_weights(
    directions: NDArray[np.float64], axes: NDArray[np.float64], theta_edges_rad: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of each polar bin about a ray that lies nearest to each direction: (K, n_theta), columns sum to 1.

    `axes` rows: two transverse unit vectors and the ray's own direction of travel. Sampled at 3 polar angles of equal solid
    angle a bin times 96 azimuths, so the sum over directions is exact whatever the sampling.
    """
    local = _samples(tuple(theta_edges_rad))
    start, candidate = _candidates(directions.tobytes())
    count = np.zeros((len(directions), len(theta_edges_rad) - 1), dtype=np.int64)
    _count_nearest(local, np.ascontiguousarray(axes), directions, start, candidate, count)
    return count / float(_N_POLAR * _N_AZIMUTH)


_N_POLAR = 3
_N_AZIMUTH = 96
_CUBE = 24  # parts along each side of a cube's face, to look up the directions near a point


@lru_cache(maxsize=4)
def _samples(theta_edges_rad: tuple[float, ...]) -> NDArray[np.float64]:
    """Unit vectors about the third axis, bin by bin: (n_theta, 3 * 96, 3)."""
    cosine = np.cos(np.array(theta_edges_rad))
    part = (np.arange(_N_POLAR) + 0.5) / _N_POLAR
    cos_t = (cosine[:-1, None] + (cosine[1:] - cosine[:-1])[:, None] * part).ravel()
    sin_t = np.sqrt(1.0 - cos_t**2)
    phi = (np.arange(_N_AZIMUTH) + 0.5) * (2 * np.pi / _N_AZIMUTH)
    across = np.outer(sin_t, np.cos(phi)), np.outer(sin_t, np.sin(phi))
    points = np.stack([*across, np.repeat(cos_t[:, None], _N_AZIMUTH, axis=1)], axis=-1)
    return points.reshape(len(cosine) - 1, _N_POLAR * _N_AZIMUTH, 3)


@lru_cache(maxsize=8)
def _candidates(directions: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which directions can be the nearest to a point in each part of a cube's surface: start (n + 1,) and indices.

    Those no further from the part's middle than the nearest one and twice the part's own radius.
    """
    unit = np.frombuffer(directions).reshape(-1, 3)
    edge = np.linspace(-1.0, 1.0, _CUBE + 1)
    middle = (edge[1:] + edge[:-1]) / 2
    face, a, b = np.meshgrid(np.arange(6), middle, middle, indexing="ij")
    corners = np.empty((face.size, 5, 3))
    for axis in range(3):
        own = np.flatnonzero(face.ravel() // 2 == axis)
        corners[own, :, axis] = 1.0 - 2.0 * (face.ravel()[own, None] % 2)
        corners[own, :, (axis + 1) % 3] = a.ravel()[own, None] + np.array([0, -1, -1, 1, 1]) / _CUBE
        corners[own, :, (axis + 2) % 3] = b.ravel()[own, None] + np.array([0, -1, 1, -1, 1]) / _CUBE
    corners /= np.linalg.norm(corners, axis=2, keepdims=True)
    radius = np.arccos(np.clip(np.einsum("pca,pa->pc", corners[:, 1:], corners[:, 0]), -1, 1)).max(axis=1)
    angle = np.arccos(np.clip(corners[:, 0] @ unit.T, -1, 1))
    near = angle <= (angle.min(axis=1) + 2 * radius + 1e-9)[:, None]
    return np.concatenate([[0], np.cumsum(near.sum(axis=1))]), np.nonzero(near)[1]


@njit(cache=True, nogil=True, parallel=True)
def _count_nearest(local, axes, directions, start, candidate, count):  # type: ignore[no-untyped-def]
    """Adds to `count` (K, n_theta) how many of a bin's points, turned into `axes`, lie nearest to each direction."""
    for t in prange(local.shape[0]):
        point = np.empty(3)
        for n in range(local.shape[1]):
            for a in range(3):
                point[a] = local[t, n, 0] * axes[0, a] + local[t, n, 1] * axes[1, a] + local[t, n, 2] * axes[2, a]
            axis = 0
            if abs(point[1]) > abs(point[axis]):
                axis = 1
            if abs(point[2]) > abs(point[axis]):
                axis = 2
            size = abs(point[axis])
            i = min(int((point[(axis + 1) % 3] / size + 1.0) * (0.5 * _CUBE)), _CUBE - 1)
            j = min(int((point[(axis + 2) % 3] / size + 1.0) * (0.5 * _CUBE)), _CUBE - 1)
            part = ((2 * axis + (0 if point[axis] > 0 else 1)) * _CUBE + i) * _CUBE + j
            best, nearest = -2.0, 0
            for c in range(start[part], start[part + 1]):
                k = candidate[c]
                cosine = point[0] * directions[k, 0] + point[1] * directions[k, 1] + point[2] * directions[k, 2]
                if cosine > best:
                    best, nearest = cosine, k
            count[nearest, t] += 1
