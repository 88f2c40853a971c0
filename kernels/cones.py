"""Kernels averaged over the cones of a direction set, following the tilt of divergent rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.directions import cell_weights

Floats = NDArray[np.float64]


def tilt_terms(u: NDArray[np.floating], v: NDArray[np.floating]) -> tuple[NDArray[np.floating], ...]:
    """Polynomial in a ray's slopes (u, v) across the beam axis that the cone kernels are expanded in, 1 first."""
    return (np.ones_like(u), u, v, u * u, u * v, v * v)


N_TERMS = 6
_GRID = np.linspace(-1.0, 1.0, 5)


def ray_axes(beam_axes: Floats, u: float, v: float) -> Floats:
    """Orthonormal rows (3, 3); the last one is the ray with slopes (u, v) to the beam axis, away from the source."""
    ray = u * beam_axes[0] + v * beam_axes[1] - beam_axes[2]
    ray = ray / np.linalg.norm(ray)
    across = beam_axes[0] - (beam_axes[0] @ ray) * ray
    across = across / np.linalg.norm(across)
    return np.stack([across, np.cross(ray, across), ray])


def cone_kernels(
    kernels_per_sr: Floats, theta_edges_rad: Floats, directions: Floats, beam_axes: Floats, max_slope: tuple[float, float]
) -> NDArray[np.float32]:
    """Energy that one beam's rays send into each cone, as a polynomial in the ray's slopes.

    C[k, (g, term), i]: fraction of the released energy of group g that direction k's spherical cell carries in component i.
    Least squares over rays up to `max_slope` (along beam X and Y); since the cells share out every kernel, Σ_k is the whole
    deposited fraction for every ray. `kernels_per_sr` (G, T, I). Returns (K, G * N_TERMS, I) float32.
    """
    n_groups, n_theta, n_comp = kernels_per_sr.shape
    u, v = (a.ravel() for a in np.meshgrid(max(max_slope[0], 1e-3) * _GRID, max(max_slope[1], 1e-3) * _GRID))
    cells = np.stack(
        [cell_weights(directions, ray_axes(beam_axes, a, b), theta_edges_rad) for a, b in zip(u, v, strict=True)]
    )
    fit = np.linalg.pinv(np.stack(tilt_terms(u, v), axis=1)) @ cells.reshape(len(u), -1)
    solid_angle = 2 * np.pi * -np.diff(np.cos(theta_edges_rad))
    per_bin = (kernels_per_sr * solid_angle[None, :, None]).transpose(1, 0, 2).reshape(n_theta, -1)
    cones = (fit.reshape(N_TERMS * len(directions), n_theta) @ per_bin).reshape(N_TERMS, len(directions), n_groups, n_comp)
    return np.ascontiguousarray(
        cones.transpose(1, 2, 0, 3).reshape(len(directions), n_groups * N_TERMS, n_comp), dtype=np.float32
    )
