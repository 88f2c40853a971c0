"""A small planning problem in a plane: beamlets smeared by 6 mm, a half moon to be treated, the rest to be spared."""

from __future__ import annotations

import numpy as np

from rtplan.domain.influence import Beamlets
from rtplan.registry import shelf
from rtplan.steps.optimise import Problem, Term

SHELF = shelf("rtplan.objectives")
FRACTIONS = 30


class Blur:
    """Dose in voxels of a plane, each beamlet smeared by 6 mm; beams seen at their angle, so that they differ."""

    def __init__(self, beamlets: Beamlets, seed: int = 0) -> None:
        self.beamlets = beamlets
        x, y = (beamlets.x1_mm + beamlets.x2_mm) / 2, (beamlets.y1_mm + beamlets.y2_mm) / 2
        turn = np.deg2rad([beamlets.beams[i].gantry_angle_deg for i in beamlets.beam_index.astype(int)])
        centre = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
        self.voxels = np.random.default_rng(seed).uniform(-35, 35, (300, 2))
        distance2 = ((self.voxels[:, None] - centre[None]) ** 2).sum(axis=2)
        self.matrix = np.exp(-distance2 / (2 * 6.0**2)) / 150

    def apply(self, weights_mu):
        return self.matrix @ weights_mu

    def adjoint(self, dose_gradient):
        return self.matrix.T @ dose_gradient


def problem_on(beamlets: Beamlets, seed: int = 0, fractions: int = FRACTIONS) -> Problem:
    """60 Gy in a half moon, the rest of the plane below 20 Gy."""
    operator = Blur(beamlets, seed)
    x, y = operator.voxels.T
    moon = (np.hypot(x, y) < 25) & (np.hypot(x - 14, y) > 14)
    target, rest = np.flatnonzero(moon), np.flatnonzero(~moon)
    terms = (
        Term("PTV", SHELF["underdose"](dose_gy=60.0), 10.0, target, np.ones(len(target))),
        Term("PTV", SHELF["overdose"](dose_gy=63.0), 10.0, target, np.ones(len(target))),
        Term("Rest", SHELF["overdose"](dose_gy=20.0), 1.0, rest, np.ones(len(rest))),
    )
    return Problem(operator, terms, fractions, np.full(len(beamlets), 1000.0))
