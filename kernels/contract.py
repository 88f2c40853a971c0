"""What each kernel operation computes. Every backend offers the same functions; `reference` is the specification in code.

terma
    T_g(r) = ρe(r) Ψ(r) f(R) (SAD/|r - s|)² t_g(R, d(r))
    Ψ the fluence map averaged over the voxel's shadow on the isocentre plane (a box with the variance of the true shadow:
    exact where the beam lies along the grid); f the off-axis factor at the radius R of the voxel's centre projected on the
    isocentre plane; t_g tabulated by radius (off-axis softening) and depth, linear between. d = ∫ρe dl from the source to
    the voxel's centre, cm: interpolated (linear in three dimensions) between the nodes of a raster of rays, see
    `kernels.rays`; along each ray the integral is exact, from face to face of the voxels (Siddon, Med Phys 12:252, 1985).
    electron_density_rel (z, y, x) float32 -> Released, the box `kernels.rays.lit_box`, cm⁻¹ times the unit of Ψ: energy
    released per cm³ by an energy fluence of 1 cm⁻². Zero where the density is. Tolerance: 1e-5 of the maximum.

superpose
    Collapsed cone superposition (Ahnesjö, Med Phys 16:577, 1989) along lines of voxels; exponents a_i = a_0 2^i. For each
    direction k and component i, on entering a voxel of path x = ρe Δs with the energy P still to be deposited and
    Q = Σ_b Σ_g T_bg Σ_t τ_t(u, v) C_{b,k,(g,t),i} released in the voxel, uniformly along its path:
        deposit P (1 - e^{-ax}) + Q (1 - g),   g = (1 - e^{-ax}) / (ax);   P' = P e^{-ax} + Q g
    u, v are the slopes of the beam's ray through the voxel's centre, τ the terms of `kernels.cones.tilt_terms`.
    released: a Released per beam, zero where the density is; cone_kernels (B, K, G * terms, I) float32; directions
    (K, 3) unit (x, y, z) -> energy deposited per cm³ (z, y, x) float32, in the unit of `released`. All beams share one
    sweep a direction. What reaches the edge of the grid is lost. Lines: `kernels.lines.line_steps` at the direction's
    entry of `phases` (K,).
    Tolerance: 2e-5 of the maximum for a_0 ρe Δs up to 0.4 in a voxel; the result does not depend on the number of threads.

split_field
    Which part of each voxel each beamlet covers: of sub³ points in the voxel, the share whose projection from the source
    falls into the beamlet's rectangle. Exact integers over sub³: equal on every backend.

deposit_columns
    Columns of the influence matrix: the recursion of `superpose` for the energy that each beamlet releases, fraction ·
    released, along the same lines, with the kernels C_{j,k,h,i} of the beamlet's own axis and of the hardness h in the
    releasing voxel; `local`_h of it is deposited on the spot. Beamlets of a block share their lines. Beyond its last source
    a line is left after a voxel in which no beamlet of the block deposits more than `negligible` of the most it releases in
    any voxel, times the voxel's density relative to water (much may be on its way through a cavity), or after `reach_cm` of
    radiological path. Energy times `dose_per_energy`, in voxels with row_of >= 0; entries above `threshold` of the column's
    largest are kept in 16 bits, dose = scale · level, as runs of neighbouring rows (a backend may bridge gaps with zeros).
    Types in `kernels.column_data`. With `negligible` and `threshold` 0 and equal kernels the columns of all beamlets sum to
    `superpose`. Tolerance: 1e-4 of the column's largest.

apply_columns, adjoint_columns
    y_r = Σ_j w_j scale_j level_jr and x_j = scale_j Σ_r level_jr g_r. Tolerance: 1e-5 of the largest; the result does not
    depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BackendUnavailable(RuntimeError):
    """The asked-for backend cannot run here."""


@dataclass(frozen=True, slots=True)
class GridGeometry:
    """A voxel grid: arrays [z, y, x], `origin_xyz_mm` is the centre of voxel [0, 0, 0]."""

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    origin_xyz_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class BeamGeometry:
    """A beam in patient coordinates: source (3,) mm and the rows of `axes` (3, 3): beam X, Y, and Z towards the source."""

    source_xyz_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    sad_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class FluenceTable:
    """A piecewise constant fluence on the isocentre plane as its running integral.

    `integral` (ny + 1, nx + 1) is ∫∫ fluence dx dy from the first edges, mm² times the unit of the fluence; edges in mm.
    """

    x_edges_mm: NDArray[np.float64]
    y_edges_mm: NDArray[np.float64]
    integral: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BeamTables:
    """The beam's spectrum as tables by radius at the isocentre plane (mm) and by depth.

    `terma_per_cm` (A, G, D) at radii `softening_radius_mm` (A,) and depths i * depth_step_cm; `off_axis_factor` at
    `off_axis_radius_mm`. Beyond its ends a table keeps its last value.
    """

    depth_step_cm: float
    softening_radius_mm: NDArray[np.float64]
    terma_per_cm: NDArray[np.float64]
    off_axis_radius_mm: NDArray[np.float64]
    off_axis_factor: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """Energy per cm³ that one beam releases: `energy` (G, z, y, x) in the box of voxels that begins at `start_zyx`."""

    start_zyx: tuple[int, int, int]
    energy: NDArray[np.float32]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the box lies in the grid."""
        z, y, x = (slice(a, a + n) for a, n in zip(self.start_zyx, self.energy.shape[1:], strict=True))
        return z, y, x


@dataclass(frozen=True, slots=True)
class Backend:
    """The operations of one backend."""

    name: str
    terma: Callable[..., Released]
    superpose: Callable[..., NDArray[Any]]
    split_field: Callable[..., tuple[NDArray[Any], ...]]
    deposit_columns: Callable[..., Any]
    apply_columns: Callable[..., NDArray[Any]]
    adjoint_columns: Callable[..., NDArray[Any]]


def fluence_table(
    x_edges_mm: NDArray[np.float64], y_edges_mm: NDArray[np.float64], fluence: NDArray[np.float64]
) -> FluenceTable:
    """Running integral of a fluence map (ny, nx), so that the mean over any rectangle costs four look-ups."""
    area = np.outer(np.diff(y_edges_mm), np.diff(x_edges_mm))
    integral = np.zeros((len(y_edges_mm), len(x_edges_mm)))
    integral[1:, 1:] = (fluence * area).cumsum(0).cumsum(1)
    return FluenceTable(np.ascontiguousarray(x_edges_mm), np.ascontiguousarray(y_edges_mm), integral)
