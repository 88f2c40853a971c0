"""A C-shaped target round a core in an elliptic cylinder of water, with Gaussian pencil beams: an optimisation problem of
clinical size and conflict that needs no dose engine. It says nothing about dose; it exercises the optimiser alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Float = NDArray[np.float64]
HALF_AXES_MM = (120.0, 100.0)
REACH_MM = 25.0  # of a pencil beam
GY_PER_MU = 0.0105


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticCase:
    """Influence (n_voxels, n_beamlets) float32 Gy per MU, its transpose by rows, voxels of each structure, and the
    (beam, column, row) of each beamlet."""

    influence: sparse.csr_matrix
    transposed: sparse.csr_matrix
    rows: dict[str, NDArray[np.int64]]
    cells: NDArray[np.int64]

    def apply(self, weights_mu: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_beamlets,) to (n_voxels,)."""
        return self.influence @ weights_mu.astype(np.float32)

    def adjoint(self, dose_gradient: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_voxels,) to (n_beamlets,)."""
        return self.transposed @ dose_gradient.astype(np.float32)


def make_case(*, spacing_mm: float = 4.0, beamlet_mm: float = 5.0, beams: int = 9, length_mm: float = 80.0) -> SyntheticCase:
    """The case on a grid of `spacing_mm` with `beams` equally spaced fields."""
    points, structures = _patient(spacing_mm, length_mm)
    columns, cells = [], []
    for beam in range(beams):
        for cell, column in _beam_columns(points, structures["PTV"], 2 * np.pi * beam / beams, beamlet_mm):
            columns.append(column)
            cells.append((beam, *cell))
    influence = sparse.hstack(columns, format="csc", dtype=np.float32)
    return SyntheticCase(influence.tocsr(), influence.T.tocsr(), structures, np.array(cells))


def _patient(spacing_mm: float, length_mm: float) -> tuple[Float, dict[str, NDArray[np.int64]]]:
    """Voxel centres in the body (n, 3) mm and the voxels of each structure."""
    across = _centres(2.2 * HALF_AXES_MM[0], spacing_mm)
    z, y, x = np.meshgrid(_centres(1.6 * length_mm, spacing_mm), across, across, indexing="ij")
    body = (x / HALF_AXES_MM[0]) ** 2 + (y / HALF_AXES_MM[1]) ** 2 < 1.0
    x, y, z = x[body], y[body], z[body]
    radius = np.hypot(x, y)
    target = (radius < 37) & (radius > 15) & ~((y > 0) & (np.abs(x) < 0.8 * y)) & (np.abs(z) < length_mm / 2)
    core = (radius < 10) & (np.abs(z) < length_mm / 2 + 10)
    masks = {"PTV": target, "Core": core, "Ring": ~target & ~core, "External": np.ones(len(x), dtype=bool)}
    return np.stack([x, y, z], axis=1), {name: np.flatnonzero(mask) for name, mask in masks.items()}


def _centres(extent_mm: float, spacing_mm: float) -> Float:
    n = int(extent_mm / spacing_mm)
    return (np.arange(n) - (n - 1) / 2) * spacing_mm


def _beam_columns(points: Float, target: NDArray[np.int64], angle: float, beamlet_mm: float):
    """Beamlets that see the target, and one of margin: (column, row) in the beam's eye view and a sparse column of doses."""
    towards = np.array([np.sin(angle), -np.cos(angle), 0.0])
    magnification = 1000.0 / (1000.0 - points @ towards)
    u = points @ np.array([np.cos(angle), np.sin(angle), 0.0]) * magnification
    v = points[:, 2] * magnification
    depth_mm = _depth_mm(points, towards)
    along = (1.0 - np.exp(-depth_mm / 5.0)) * np.exp(-0.0045 * depth_mm) * magnification**2
    seen = {(int(i), int(j)) for i, j in np.floor(np.stack([u[target], v[target]], axis=1) / beamlet_mm)}
    open_cells = {(i + p, j + q) for i, j in seen for p in (-1, 0, 1) for q in (-1, 0, 1)}
    for i, j in sorted(open_cells, key=lambda cell: cell[::-1]):
        du, dv = u - (i + 0.5) * beamlet_mm, v - (j + 0.5) * beamlet_mm
        near = np.flatnonzero((np.abs(du) < REACH_MM) & (np.abs(dv) < REACH_MM))
        r2 = du[near] ** 2 + dv[near] ** 2
        profile = sum(part * np.exp(-r2 / (2 * s * s)) / (2 * np.pi * s * s) for part, s in ((0.72, 4.0), (0.28, 11.0)))
        dose = GY_PER_MU * beamlet_mm**2 * along[near] * profile
        kept = dose > 1e-5 * GY_PER_MU
        values = dose[kept].astype(np.float32)
        yield (i, j), sparse.csc_matrix((values, near[kept], [0, len(values)]), shape=(len(points), 1))


def _depth_mm(points: Float, towards: Float) -> Float:
    """Way from each point to the surface of the elliptic cylinder in the direction of the source."""
    inverse = 1.0 / np.array([*HALF_AXES_MM, np.inf]) ** 2
    a, b, c = (towards**2) @ inverse, 2.0 * (points * towards) @ inverse, (points**2) @ inverse - 1.0
    return (-b + np.sqrt(np.maximum(b * b - 4.0 * a * c, 0.0))) / (2.0 * a)
