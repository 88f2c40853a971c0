"""Beams of an arc share cone kernels: what each releases is its own, how it spreads is taken between two nodes of the arc.

The kernels of a ray are smooth in its direction. Released energy of a beam at gantry angle φ between the nodes φ₁ and φ₂ is
given to the sources at these in the proportion (φ₂ - φ) : (φ - φ₁), voxel by voxel: the mixture's mean direction is the
ray's own, its spread at most 4° about it. Energy is conserved; TERMA stays that of each beam. Fixed beams stay as they are.
What a map shares does not hang on which others are calculated with it, so a plan's dose is the sum of its beams'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kernels.contract import Released
from rtplan.domain.beams import Beam

NODE_DEG = 8.0
ASIDE = 0.04  # slope of a ray to a point 30 cm from the isocentre, seen from a node 8 degrees aside

Shares = tuple[tuple[Beam, float], ...]


def kernel_sources(beam: Beam, of_arc: bool, node_deg: float = NODE_DEG) -> Shares:
    """The beams whose kernels a beam uses, and in what proportion: itself, or two nodes of its arc."""
    return _between_nodes(beam, node_deg) if of_arc else ((beam, 1.0),)


def _between_nodes(beam: Beam, node_deg: float) -> Shares:
    below = np.floor(beam.gantry_angle_deg / node_deg)
    share = float(beam.gantry_angle_deg / node_deg - below)
    nodes = [
        replace(beam, name="", gantry_angle_deg=float((below + i) * node_deg % 360.0), collimator_angle_deg=0.0)
        for i in (0, 1)
    ]
    return tuple((node, part) for node, part in zip(nodes, (1.0 - share, share), strict=True) if part > 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Energy that spreads with the kernels of one beam, and the largest slopes of its rays along that beam's X and Y."""

    beam: Beam
    released: Released
    max_slope: tuple[float, float]


class Sources:
    """Gathers what beams release by the source whose kernels it spreads with."""

    def __init__(self) -> None:
        self._known: dict[Beam, Source] = {}

    def add(self, beam: Beam, released: Released, share: float, max_slope: tuple[float, float]) -> None:
        """Gives `share` of a beam's energy to a source; `max_slope` are the slopes of the beam's own rays."""
        known = self._known.get(beam)
        if known is None and share == 1.0:
            self._known[beam] = Source(beam, released, max_slope)
            return
        # Seen from a node the rays come from up to 8 degrees aside, and the collimator may stand at any angle.
        widest = float(np.hypot(*max_slope) + ASIDE)
        before = (
            Source(beam, Released(released.start_zyx, np.zeros_like(released.energy)), (0.0, 0.0))
            if known is None
            else known
        )
        widest = max(widest, *before.max_slope)
        self._known[beam] = Source(beam, _sum(before.released, released, share), (widest, widest))

    def all(self) -> tuple[Source, ...]:
        """The sources in the order in which they were first met."""
        return tuple(self._known.values())


def _sum(one: Released, other: Released, share: float) -> Released:
    """`one` plus a share of `other`, in the smallest box that holds both; `one` may be changed."""
    start = np.minimum(one.start_zyx, other.start_zyx)
    stop = np.maximum(*(np.array([s.stop for s in r.box]) for r in (one, other)))
    # What a device released is a read-only copy here.
    if tuple(stop - start) != one.energy.shape[1:] or not one.energy.flags.writeable:
        larger = Released(tuple(start.tolist()), np.zeros((len(one.energy), *(stop - start)), dtype=np.float32))
        one = _add(larger, one, 1.0)
    return _add(one, other, share)


def _add(into: Released, other: Released, share: float) -> Released:
    z, y, x = (slice(s.start - a, s.stop - a) for s, a in zip(other.box, into.start_zyx, strict=True))
    into.energy[:, z, y, x] += np.float32(share) * other.energy
    return into
