"""One fluence problem on the C-shape that every optimiser receives alike. NumPy alone.

Squared hinges, weight x mean over the structure's voxels of the squared excess, in Gy of the whole course. Voxels of the
target belong to the target alone, those of the core to the core; the rest of the body is the last structure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.phantom import Beamlets

PRESCRIBED_GY = 50.0
CORE_RADIUS_MM, CORE_HALF_LENGTH_MM = 10.0, 50.0
HOTTEST_ALLOWED_GY = 55.0  # a hard limit everywhere, for those that have one
# Structure, kind, Gy, weight.
GOALS = (
    ("PTV", "underdose", PRESCRIBED_GY, 1000.0),
    ("PTV", "overdose", 51.5, 200.0),
    ("Core", "overdose", 20.0, 200.0),
    ("Body", "overdose", 25.0, 200.0),
)


def structures(phantom: Beamlets) -> dict[str, NDArray[np.bool_]]:
    """Target, core and the rest of the body, (z, y, x) each; no voxel is in two of them."""
    z, y, x = (
        origin + phantom.spacing_mm * np.arange(n)
        for origin, n in zip(reversed(phantom.origin_xyz_mm), phantom.density.shape, strict=True)
    )
    round_axis = np.hypot(x[None, None, :], y[None, :, None]) < CORE_RADIUS_MM
    core = round_axis & (np.abs(z) < CORE_HALF_LENGTH_MM)[:, None, None]
    return {"PTV": phantom.target, "Core": core & ~phantom.target, "Body": phantom.body & ~phantom.target & ~core}


def quality(phantom: Beamlets, dose_gy: NDArray[np.floating]) -> dict[str, float]:
    """What a dose (z, y, x) in Gy is worth: the problem's own objective, and figures of its structures after scaling to
    95 % of the target at the prescription."""
    masks = structures(phantom)
    dose = dose_gy.astype(np.float64)
    objective = 0.0
    for name, kind, level_gy, weight in GOALS:
        own = dose[masks[name]]
        excess = np.maximum(level_gy - own if kind == "underdose" else own - level_gy, 0.0)
        objective += weight * float(excess @ excess) / own.size
    target = dose[masks["PTV"]]
    scale = PRESCRIBED_GY / float(np.percentile(target, 5.0))
    return {
        "objective_gy2": objective,
        "d95_gy": float(np.percentile(target, 5.0)),
        "hottest_pct": 100.0 * scale * float(dose[phantom.body].max()) / PRESCRIBED_GY,
        "target_d10_gy": scale * float(np.percentile(target, 90.0)),
        "core_d10_gy": scale * float(np.percentile(dose[masks["Core"]], 90.0)),
    }
