"""Where arcs begin: an ideal fluence that is the same all over a sector of some intervals, and apertures that follow it.

A fluence needs several apertures, an interval has one. So the fluence is optimised by sectors, and each sector's intervals
share its apertures, sorted so that the leaves cross the field once, to and fro from sector to sector (Bzdusek et al., Med
Phys 36:2328, 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import Beam
from rtplan.domain.grid import Grid
from rtplan.domain.influence import Beamlets, InfluenceOperator
from rtplan.domain.machine import Machine
from rtplan.steps.apertures import Shape
from rtplan.steps.arc_apertures import Arcs
from rtplan.steps.arc_tips import ArcField, legal_tips, motion_of, opened
from rtplan.steps.direct_aperture import Segments

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SectorOperator:
    """The influence of sectors: a beamlet of a sector gives its MU in equal parts to the intervals of the sector.

    `beamlets` are the sectors', `cell` (n_interval_beamlets,) says to which of them each beamlet of an interval belongs, and
    `part` (n_interval_beamlets,) what of its MU it gets.
    """

    whole: InfluenceOperator
    beamlets: Beamlets
    cell: Ints
    part: Floats

    @property
    def grid(self) -> Grid:
        """The grid that `voxel_index` points into."""
        return self.whole.grid

    @property
    def voxel_index(self) -> NDArray[np.int64]:
        """(n_voxels,) flat indices."""
        return self.whole.voxel_index

    def spread(self, weights_mu: NDArray[np.floating]) -> Floats:
        """Weights of the intervals' beamlets for those of the sectors', MU per fraction."""
        return np.asarray(weights_mu, dtype=np.float64)[self.cell] * self.part

    def apply(self, weights_mu: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_beamlets,) MU per fraction to (n_voxels,) Gy per fraction."""
        return self.whole.apply(self.spread(weights_mu))

    def adjoint(self, dose_gradient: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_voxels,) to (n_beamlets,)."""
        pull = self.part * np.asarray(self.whole.adjoint(dose_gradient), dtype=np.float64)
        return np.bincount(self.cell, pull, minlength=len(self.beamlets)).astype(np.float32)


def sectors_of(n_intervals: int, sector_intervals: int) -> list[Ints]:
    """The intervals of each sector: as many sectors as fit best, of nearly equal size."""
    count = max(1, round(n_intervals / sector_intervals))
    return [np.asarray(part, dtype=np.int64) for part in np.array_split(np.arange(n_intervals), count)]


def sector_operator(whole: InfluenceOperator, fields: Sequence[ArcField], sector_intervals: int) -> SectorOperator:
    """Sectors of about `sector_intervals` intervals in place of the intervals of all arcs."""
    cell, part = np.zeros(len(whole.beamlets), dtype=np.int64), np.zeros(len(whole.beamlets))
    beams: list[Beam] = []
    found: list[tuple[Ints, Ints, Floats, Floats]] = []  # beam, leaf pair, x1, x2 of the sectors' beamlets
    count = 0
    for field in fields:
        for own in sectors_of(len(field.beamlet), sector_intervals):
            block = field.beamlet[own]
            row, column = np.nonzero((block >= 0).any(axis=0))
            number = np.full(block.shape[1:], -1, dtype=np.int64)
            number[row, column] = count + np.arange(len(row))
            there = block >= 0
            cell[block[there]] = np.broadcast_to(number, block.shape)[there]
            part[block[there]] = 1.0 / len(own)
            x = field.x_edges_mm
            found.append((np.full(len(row), len(beams)), field.first_pair + row, x[column], x[column + 1]))
            middle = whole.beamlets.beams[int(whole.beamlets.beam_index[block[there][0]])]
            beams.append(_sector_beam(whole, block, middle))
            count += len(row)
    beam_index, pair, x1, x2 = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    y1 = np.empty(len(pair))
    y2 = np.empty(len(pair))
    y1[cell], y2[cell] = whole.beamlets.y1_mm, whole.beamlets.y2_mm
    sectors = Beamlets(tuple(beams), beam_index.astype(np.int32), pair.astype(np.int32), x1, x2, y1, y2)
    return SectorOperator(whole, sectors, cell, part)


def _sector_beam(whole: InfluenceOperator, block: Ints, fallback: Beam) -> Beam:
    """The beam of the interval in the middle of a sector, which the sector is called by."""
    middle = block[len(block) // 2]
    first = middle[middle >= 0]
    return whole.beamlets.beams[int(whole.beamlets.beam_index[first[0]])] if first.size else fallback


def arcs_from_sectors(
    segments: Segments, fields: Sequence[ArcField], whole: Beamlets, sector_intervals: int, machine: Machine
) -> Arcs:
    """Arcs whose intervals have the apertures and MU of their sector's segments, made legal.

    `segments` follow the sectors' ideal fluence; their beams are the sectors of all arcs in order.
    """
    tips, mus, beam = [], [], 0
    for field in fields:
        n, rows = len(field.beamlet), field.beamlet.shape[1]
        x1, x2, mu = np.full((n, rows), np.nan), np.full((n, rows), np.nan), np.zeros(n)
        for k, own in enumerate(sectors_of(n, sector_intervals)):
            mine = [(s, float(m)) for s, m in zip(segments.shapes, segments.mu, strict=True) if s.beam_index == beam]
            mine = sorted(mine, key=lambda pair: -pair[1])[: len(own)]  # the strongest, where there are more than intervals
            mine.sort(key=lambda pair: _middle(pair[0]), reverse=k % 2 == 1)
            if mine:
                first_pair = segments.fields[beam].first_pair - field.first_pair
                for (shape, m), intervals in zip(mine, np.array_split(own, len(mine)), strict=True):
                    at = first_pair + np.arange(len(shape.x1_mm))
                    x1[intervals[:, None], at], x2[intervals[:, None], at] = shape.x1_mm, shape.x2_mm
                    mu[intervals] += m / len(intervals)
            beam += 1
        motion = motion_of(field, machine)
        a, b = _at_points(_filled(x1, x2))
        tips.append(opened(legal_tips(a, b, motion), field, motion))
        mus.append(mu)
    return Arcs(tuple(fields), whole, machine, tuple(tips), tuple(mus))


def _middle(shape: Shape) -> float:
    return float(np.nanmean(shape.x1_mm + shape.x2_mm))


def _filled(x1: Floats, x2: Floats) -> tuple[Floats, Floats]:
    """Tips (n, n_rows) with closed pairs (NaN) in the middle of the nearest open pair of the same interval, or, where an
    interval has none, of the nearest interval."""
    centre = (x1 + x2) / 2
    for i in range(len(centre)):
        rows, closed = np.flatnonzero(~np.isnan(centre[i])), np.flatnonzero(np.isnan(centre[i]))
        if rows.size:
            nearest = rows[np.abs(closed[:, None] - rows[None, :]).argmin(axis=1)] if closed.size else closed
            centre[i, closed] = centre[i, nearest]
    lit = np.flatnonzero(~np.isnan(centre[:, 0]))
    dark = np.flatnonzero(np.isnan(centre[:, 0]))
    if dark.size:
        centre[dark] = centre[lit[np.abs(dark[:, None] - lit[None, :]).argmin(axis=1)]] if lit.size else 0.0
    return np.where(np.isnan(x1), centre, x1), np.where(np.isnan(x2), centre, x2)


def _at_points(tips: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Tips at control points (n + 1, n_rows) from those of intervals: the means of neighbours."""
    first, second = (np.concatenate([x[:1], (x[:-1] + x[1:]) / 2, x[-1:]]) for x in tips)
    return first, second
