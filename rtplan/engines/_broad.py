"""Fluences so broad that neighbouring angles of an arc may share them, and the coarser grid that is enough for them.

Extra-focal photons and contaminating electrons are blurred over several cm. Control points of an arc are therefore given to
the nodes of `_sectors` already as fluence, and the extra-focal photons, a few per cent of the dose and smooth, are
calculated on voxels twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.contract import FluenceTable, fluence_table
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.engines._sectors import kernel_sources
from rtplan.engines._source_model import blurred

PIXEL_MM = 5.0
NODE_DEG = 16.0  # of an arc: against nodes of 8 degrees at most 0.09 % of maximum, 0.01 % rms
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BroadField:
    """One source and the maps that it stands for, each with its share."""

    beam: Beam
    of_arc: bool
    maps: tuple[tuple[FluenceMap, float], ...]

    def table(self, sigma_mm: float, reach_mm: float, scale: float = 1.0, farthest_mm: float = np.inf) -> FluenceTable:
        """Sum of the maps convolved with a Gaussian, where a point P of the isocentre plane sees the maps at `scale` P.

        Pixels of 5 mm that reach `reach_mm` beyond the maps, but no further than `farthest_mm` from the axis.
        """
        maps = [one for one, _ in self.maps]
        x_edges = _pixel_edges([one.x_edges_mm for one in maps], reach_mm, scale, farthest_mm)
        y_edges = _pixel_edges([one.y_edges_mm for one in maps], reach_mm, scale, farthest_mm)
        total = np.zeros((len(y_edges) - 1, len(x_edges) - 1))
        for one, share in self.maps:
            total += share * blurred(one, scale * x_edges, scale * y_edges, (sigma_mm, sigma_mm))
        return fluence_table(x_edges, y_edges, total)


def broad_fields(fluence: Sequence[FluenceMap]) -> tuple[BroadField, ...]:
    """The maps by the source that their broad parts come from: their own beam, or the nodes of their arc."""
    found: dict[tuple[Beam, bool], list[tuple[FluenceMap, float]]] = {}
    for one in fluence:
        for beam, share in kernel_sources(one.beam, one.of_arc, NODE_DEG):
            source = replace(beam, collimator_angle_deg=one.beam.collimator_angle_deg)
            found.setdefault((source, one.of_arc), []).append((one, share))
    return tuple(BroadField(beam, of_arc, tuple(maps)) for (beam, of_arc), maps in found.items())


def _pixel_edges(all_edges: Sequence[Floats], reach_mm: float, scale: float, farthest_mm: float) -> Floats:
    low = max((min(float(e[0]) for e in all_edges) - reach_mm) / scale, -farthest_mm)
    high = min((max(float(e[-1]) for e in all_edges) + reach_mm) / scale, farthest_mm)
    return np.asarray(np.arange(np.floor(low / PIXEL_MM), np.ceil(high / PIXEL_MM) + 1) * PIXEL_MM)


def coarse_image(density: DensityImage) -> DensityImage:
    """Means over 2 x 2 x 2 voxels; beyond the grid there is nothing."""
    grid = density.grid
    origin = tuple(o + s / 2 for o, s in zip(grid.origin_xyz_mm, grid.spacing_zyx_mm[::-1], strict=True))
    shape = tuple(-(-n // 2) for n in grid.shape_zyx)
    spacing = tuple(2 * s for s in grid.spacing_zyx_mm)
    halved = Grid(shape, spacing, origin)  # type: ignore[arg-type]
    return DensityImage(halved, _halved(density.mass_density_g_cm3), _halved(density.electron_density_rel))


def on_fine_grid(energy: NDArray[np.float32], coarse: DensityImage, density: DensityImage) -> NDArray[np.float32]:
    """Energy per cm³ of the coarse voxels on the fine ones.

    Energy per electron, the same in neighbouring materials where electrons are in equilibrium, is interpolated between the
    coarse voxels that hold any matter.
    """
    matter = coarse.electron_density_rel > 0
    per_electron = np.divide(energy, coarse.electron_density_rel, out=np.zeros_like(energy), where=matter)
    shape = density.grid.shape_zyx
    value, weight = _doubled(per_electron, shape), _doubled(matter.astype(np.float32), shape)
    fine = np.divide(value, weight, out=np.zeros_like(value), where=weight > 0)
    fine *= density.electron_density_rel
    return fine


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in range(3):
        if values.shape[axis] % 2:
            values = np.concatenate([values, np.zeros_like(values.take([0], axis))], axis=axis)
        first, second = (values[_every(axis, slice(i, None, 2))] for i in (0, 1))
        values = (first + second) / np.float32(2)
    return np.ascontiguousarray(values)


def _doubled(values: NDArray[np.float32], shape_zyx: tuple[int, int, int]) -> NDArray[np.float32]:
    """Linear between the centres of the coarse voxels, nothing beyond the first and the last."""
    for axis, n in enumerate(shape_zyx):
        below, above = np.zeros_like(values), np.zeros_like(values)
        below[_every(axis, slice(1, None))] = values[_every(axis, slice(None, -1))]
        above[_every(axis, slice(None, -1))] = values[_every(axis, slice(1, None))]
        three, one = np.float32(0.75), np.float32(0.25)
        longer = np.empty([2 * m if a == axis else m for a, m in enumerate(values.shape)], dtype=np.float32)
        longer[_every(axis, slice(0, None, 2))] = three * values + one * below
        longer[_every(axis, slice(1, None, 2))] = three * values + one * above
        values = longer[_every(axis, slice(0, n))]
    return values


def _every(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else slice(None) for a in range(3))
