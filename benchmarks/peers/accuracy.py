"""How far engines are from Monte Carlo on slab phantoms, as far as that is fair to engines with beam data of their own.

Every engine is scaled by ONE factor: its dose on the axis at 10 cm in water is made Monte Carlo's. What is left is depth
dose, scatter and heterogeneity. Beam qualities still differ (pyRadPlan has its own generic 6 MV machine; PyDoseRT's kernel
is chosen by the Monte Carlo beam's TPR20/10; rtplan takes its spectrum), so the effect of the inhomogeneity alone, the
ratio of the axis dose in the slab to that in water, stands beside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from benchmarks.egsnrc_cases import ReferenceField
from benchmarks.peers.phantom import OpenFields
from rtplan.domain.beams import beam_frame

WATER_CASE = "w10"
CASES = (WATER_CASE, "lung10", "half10")
TPR_20_10 = 0.667  # of w10: D20/D10 = 0.574 there, and 1.2661 D20/D10 - 0.0595 (Followill et al. 1998)
REFERENCE_DEPTH_MM = 100.0
AXIS_HALF_MM, AXIS_BIN_MM = 12.5, 5.0
HIGH_DOSE, FAR_OFF = 0.10, 0.03  # of the maximum on the axis
INNER_SHARE, SURFACE_MM = 0.8, 15.0  # of the half field; depth of the build-up
AIR_VOXELS = 8  # in front of the slabs, which otherwise begin at the grid's first voxel


@dataclass(frozen=True, slots=True, eq=False)
class AxisCurve:
    """Means over the central 2.5 cm by depth: mm below the entry, Monte Carlo, engine."""

    depth_mm: NDArray[np.float64]
    reference: NDArray[np.float64]
    engine: NDArray[np.float64]


def slab_phantom(field: ReferenceField) -> OpenFields:
    """A Monte Carlo case for the peers: the same voxels with some vacuum in front of them."""
    grid, beam = field.density.grid, field.fluence.beam
    spacing = float(grid.spacing_zyx_mm[0])
    density = np.pad(field.density.electron_density_rel, ((0, 0), (AIR_VOXELS, 0), (0, 0)))
    origin = np.array(grid.origin_xyz_mm) - [0.0, AIR_VOXELS * spacing, 0.0]
    half = float(field.fluence.x_edges_mm[-1])
    isocentre = np.array(beam.isocentre_xyz_mm)
    return OpenFields(density, spacing, origin, isocentre, beam.sad_mm, np.array([0.0]), half, TPR_20_10)


def without_air(dose: NDArray[np.float32]) -> NDArray[np.float32]:
    """A dose on `slab_phantom`'s grid back on the case's own."""
    return dose[:, AIR_VOXELS:]


def axis_curve(field: ReferenceField, dose: NDArray[np.float64]) -> AxisCurve:
    """Depth doses of a case; `dose` on the Monte Carlo voxels."""
    x, y, along = beam_frame(field.fluence.beam).to_bev(field.centres_xyz_mm())
    near = field.scored & (np.abs(x) < AXIS_HALF_MM) & (np.abs(y) < AXIS_HALF_MM)
    weight = np.prod(np.meshgrid(*(np.diff(e) for e in field.edges_zyx_mm), indexing="ij"), axis=0)[near]
    bins = np.floor((along[near] - field.fluence.beam.sad_mm) / AXIS_BIN_MM).astype(int)
    total = np.bincount(bins, weight)
    reference, engine = (np.bincount(bins, weight * d[near]) / total for d in (field.dose, dose))
    return AxisCurve((np.arange(len(total)) + 0.5) * AXIS_BIN_MM, reference, engine)


def scale_to_reference(water: AxisCurve) -> float:
    """Monte Carlo over engine at 10 cm depth in water."""
    reference, engine = (np.interp(REFERENCE_DEPTH_MM, water.depth_mm, d) for d in (water.reference, water.engine))
    return float(reference / engine)


def slab_figures(field: ReferenceField, scaled_dose: NDArray[np.float64], water: AxisCurve) -> dict[str, float]:
    """Figures of one case, % of the Monte Carlo maximum on the axis; `water` is the engine's own scaled curve in water.

    `voxels_off_pct`: share of the voxels above 10 % of the maximum that differ by more than 3 % of it, surface and penumbra
    included; `inner_voxels_off_pct` without those, where no model of the source or the head matters;
    `voxels_off_by_noise_pct` is the share that Monte Carlo's noise alone would make.
    """
    curve = axis_curve(field, scaled_dose)
    top = curve.reference.max()
    beyond = np.arange(len(curve.depth_mm)) > int(curve.reference.argmax())
    difference = 100 * (curve.engine - curve.reference)[beyond] / top
    effect = 100 * (curve.engine / water.engine - curve.reference / water.reference)[beyond]
    high = field.scored & (field.dose > HIGH_DOSE * top)
    off = np.abs(scaled_dose - field.dose) > FAR_OFF * top
    inner = high & _inner(field)
    by_noise = erfc(FAR_OFF * top / (np.sqrt(2) * np.maximum(field.sigma[high], 1e-9 * top)))
    return {
        "axis_mean_abs_pct": float(np.abs(difference).mean()),
        "axis_max_abs_pct": float(np.abs(difference).max()),
        "inhomogeneity_mean_abs_pct": float(np.abs(effect).mean()),
        "voxels_off_pct": float(100 * off[high].mean()),
        "inner_voxels_off_pct": float(100 * off[inner].mean()),
        "voxels_off_by_noise_pct": float(100 * by_noise.mean()),
    }


def _inner(field: ReferenceField) -> NDArray[np.bool_]:
    """Voxels well inside the field's edges and below the build-up."""
    x, y, along = beam_frame(field.fluence.beam).to_bev(field.centres_xyz_mm())
    reach = INNER_SHARE * field.fluence.x_edges_mm[-1]
    return (np.abs(x) < reach) & (np.abs(y) < reach) & (along > field.fluence.beam.sad_mm + SURFACE_MM)
