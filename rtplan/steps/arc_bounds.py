"""What arcs can bring a plane below a convex function of dose down to: the certificate's question for a turning gantry.

An aperture opens a beamlet for at most the MU that its interval gives, and the intervals share the plan's MU. What lowers a
plane most is therefore all MU at the one angle whose open beamlets lower it most: an angle that was not looked at can only
matter by as much as it differs from its neighbours, not by being one more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.influence import Beamlets, InfluenceOperator
from rtplan.steps.place_beams import wrapped_deg
from rtplan.steps.solver import LowerModel

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def lowest_by_arcs(
    planes: Sequence[LowerModel], angles: Iterable[tuple[InfluenceOperator, Rows]], fractions: int, mu: float
) -> list[float]:
    """Each plane's least over all that apertures at the angles of some operators deliver with `mu` a fraction together.

    Each operator comes with its voxels among the rows of the planes' image slopes (n_image,); slopes are zero elsewhere.
    """
    lowest = np.zeros(len(planes))
    for operator, rows in angles:
        beam = operator.beamlets.beam_index
        for i, plane in enumerate(planes):
            slope = fractions * np.asarray(operator.adjoint(plane.image_slope[rows]), dtype=np.float64)
            lowest[i] = min(lowest[i], float(np.bincount(beam, np.minimum(slope, 0.0)).min()))
    return [plane.constant + mu * low for plane, low in zip(planes, lowest, strict=True)]


def turned(beamlets: Beamlets, beams: slice, by_deg: float) -> Beamlets:
    """The beamlets of some of the beams with the gantry turned by an angle, each in its place under the collimator."""
    first, last, _ = beams.indices(len(beamlets.beams))
    own = (beamlets.beam_index >= first) & (beamlets.beam_index < last)

    def angle_deg(at_deg: float) -> float:
        return float(wrapped_deg(np.array([at_deg + by_deg]))[0])

    return Beamlets(
        tuple(replace(b, gantry_angle_deg=angle_deg(b.gantry_angle_deg)) for b in beamlets.beams[beams]),
        beamlets.beam_index[own] - first,
        beamlets.leaf_pair[own],
        beamlets.x1_mm[own],
        beamlets.x2_mm[own],
        beamlets.y1_mm[own],
        beamlets.y2_mm[own],
    )
