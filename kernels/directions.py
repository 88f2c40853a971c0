"""Directions of the collapsed cones, fixed in the patient, and how much of a kernel each of them carries."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
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
    n_theta = len(theta_edges_rad) - 1
    cosine = np.cos(theta_edges_rad)
    part = (np.arange(_N_POLAR) + 0.5) / _N_POLAR
    cos_t = (cosine[:-1, None] + (cosine[1:] - cosine[:-1])[:, None] * part).ravel()
    sin_t = np.sqrt(1.0 - cos_t**2)
    phi = (np.arange(_N_AZIMUTH) + 0.5) * (2 * np.pi / _N_AZIMUTH)
    local = np.stack(
        [np.outer(sin_t, np.cos(phi)), np.outer(sin_t, np.sin(phi)), np.repeat(cos_t[:, None], _N_AZIMUTH, axis=1)], axis=-1
    )
    nearest = np.argmax((local.reshape(-1, 3) @ axes) @ directions.T, axis=1)
    theta_bin = np.repeat(np.arange(n_theta), _N_POLAR * _N_AZIMUTH)
    count = np.bincount(nearest * n_theta + theta_bin, minlength=len(directions) * n_theta)
    return count.reshape(len(directions), n_theta) / float(_N_POLAR * _N_AZIMUTH)


_N_POLAR = 3
_N_AZIMUTH = 96
