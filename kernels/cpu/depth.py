"""Radiological depth along the raster's rays, part of CPU `terma`. See `kernels.contract`."""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

from math import inf, sqrt

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, GridGeometry
from kernels.rays import Raster


def ray_depths(
    electron_density_rel: NDArray[np.float32], grid: GridGeometry, beam: BeamGeometry, rays: Raster, deepest_cm: float
) -> NDArray[np.float32]:
    """∫ρe dl from the source to each node of each ray, cm: (n_y, n_x, n_nodes). Not followed beyond `deepest_cm`."""
    out = np.empty((rays.n_y, rays.n_x, rays.n_nodes), dtype=np.float32)
    _ray_depths(
        electron_density_rel,
        np.array(grid.spacing_zyx_mm[::-1]),
        np.array(grid.origin_xyz_mm, dtype=np.float64),
        np.asarray(beam.source_xyz_mm, dtype=np.float64),
        np.ascontiguousarray(beam.axes, dtype=np.float64),
        float(beam.sad_mm),
        (float(rays.first_x), float(rays.first_y), rays.step_mm, rays.start_mm, rays.node_mm),
        float(deepest_cm),
        out,
    )
    return out


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _ray_depths(density, spacing, origin, source, axes, sad, rays, deepest, out):
    first_x, first_y, step, start, node = rays
    for j in prange(out.shape[0]):
        v = (first_y + j + 0.5) * step / sad
        for i in range(out.shape[1]):
            u = (first_x + i + 0.5) * step / sad
            ray_x = u * axes[0, 0] + v * axes[1, 0] - axes[2, 0]
            ray_y = u * axes[0, 1] + v * axes[1, 1] - axes[2, 1]
            ray_z = u * axes[0, 2] + v * axes[1, 2] - axes[2, 2]
            _ray(density, spacing, origin, source, (ray_x, ray_y, ray_z), start, node, deepest, out[j, i])


@njit(cache=True, nogil=True, error_model="numpy")
def _ray(density, spacing, origin, source, ray, start, node, deepest, out):
    """One ray, t measured along the beam axis (mm), from face to face of the voxels on the way (Siddon 1985)."""
    shape = density.shape
    out[:] = 0
    enter, leave = 0.0, inf
    for a in range(3):
        low = origin[a] - 0.5 * spacing[a]
        high = low + shape[2 - a] * spacing[a]
        if abs(ray[a]) <= 1e-12:
            if source[a] <= low or source[a] >= high:
                return
            continue
        t1, t2 = (low - source[a]) / ray[a], (high - source[a]) / ray[a]
        enter, leave = max(enter, min(t1, t2)), min(leave, max(t1, t2))
    if enter >= leave:
        return
    ix, next_x, face_x, step_x = _first_face(0, shape[2], spacing, origin, source, ray, enter)
    iy, next_y, face_y, step_y = _first_face(1, shape[1], spacing, origin, source, ray, enter)
    iz, next_z, face_z, step_z = _first_face(2, shape[0], spacing, origin, source, ray, enter)
    to_cm = 0.1 * sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    t, total, n = enter, 0.0, 0
    while n < len(out) and start + n * node <= enter:
        n += 1
    while t < leave:
        end = min(next_x, next_y, next_z, leave)
        rho = density[iz, iy, ix]
        while n < len(out) and start + n * node <= end:
            out[n] = (total + (start + n * node - t) * rho) * to_cm
            n += 1
        total += (end - t) * rho
        t = end
        if end >= leave or total * to_cm > deepest:
            break
        if end == next_x:
            ix += step_x
            next_x += face_x
            if ix < 0 or ix >= shape[2]:
                break
        elif end == next_y:
            iy += step_y
            next_y += face_y
            if iy < 0 or iy >= shape[1]:
                break
        else:
            iz += step_z
            next_z += face_z
            if iz < 0 or iz >= shape[0]:
                break
    out[n:] = total * to_cm


@njit(cache=True, nogil=True, error_model="numpy")
def _first_face(a, count, spacing, origin, source, ray, enter):
    """Index of the voxel in which a ray enters, along one axis, and where the next face, the one after it and which way."""
    place = (source[a] + enter * ray[a] - origin[a]) / spacing[a] + 0.5
    index = min(max(int(np.floor(place)), 0), count - 1)
    if abs(ray[a]) <= 1e-12:
        return index, inf, inf, 0
    step = 1 if ray[a] > 0 else -1
    face = origin[a] + (index - 0.5 + (1 if ray[a] > 0 else 0)) * spacing[a]
    return index, (face - source[a]) / ray[a], spacing[a] / abs(ray[a]), step
