"""Matter denser than the dose engine has been compared with, where the beams pass."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtplan.checks._opening import beam_opening, opening, swept
from rtplan.domain.beams import beam_frame
from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_context import example_context
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import Mlc
from rtplan.domain.plan import PlanBeam
from rtplan.domain.validity import COLLAPSED_CONE
from rtplan.domain.verdict import CheckResult, Finding

LEAST_CC = 0.1  # what counts: less is a noisy voxel of cortical bone
_SAME = 1e-4  # float32 densities of exactly the limit do not count


class HighDensity:
    """No beam's opening holds 0.1 cc or more above the largest validated density.

    A plan passes all the same: the dose in and behind such matter is an extrapolation. One finding (HIGH_DENSITY, flag)
    tells volume, density and beams.
    """

    kind = "HIGH_DENSITY"

    def check(self, context: Delivery) -> CheckResult:
        """Volume above the limit in each beam's opening, near side or far side of the target alike."""
        limit = COLLAPSED_CONE.largest_density_g_cm3
        dense = np.argwhere(context.density.mass_density_g_cm3 > limit + _SAME)
        points = context.density.grid.to_point_mm(dense.astype(np.float64))
        lit = {b.number: _in_opening(b, points, context.machine.mlc) for b in context.plan.beams}
        volumes_cc = {n: float(hit.sum()) * context.density.grid.voxel_cc for n, hit in lit.items()}
        crossed = {n: cc for n, cc in volumes_cc.items() if cc >= LEAST_CC}
        most = max(volumes_cc.values(), default=0.0)
        message = f"at most {most:.2f} cc above {limit:g} g/cm³ in a beam's opening"
        if not crossed:
            return CheckResult(self.kind, True, message)
        hit = np.any([lit[n] for n in crossed], axis=0)
        return CheckResult(self.kind, True, message, (_finding(context.density, dense[hit], list(crossed)),))

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: a rod of titanium, 4.5 g/cm³, 2 cc, across the axis of both beams."""
        good = example_context()
        density = good.density.mass_density_g_cm3.copy()
        density[14:16, 14:16, 12:20] = 4.5
        return good, replace(good, density=DensityImage(good.density.grid, density, density))


def _in_opening(beam: PlanBeam, points_xyz_mm: NDArray[np.float64], mlc: Mlc) -> NDArray[np.bool_]:
    if beam.is_arc and len(points_xyz_mm):
        return _in_arc(beam, points_xyz_mm, mlc)
    whole = beam_opening(beam, mlc)
    if whole is None:
        return np.zeros(len(points_xyz_mm), dtype=bool)
    x_mm, y_mm, _ = beam_frame(beam.beam).to_bev(points_xyz_mm)
    return whole.holds(x_mm, y_mm)


def _in_arc(beam: PlanBeam, points_xyz_mm: NDArray[np.float64], mlc: Mlc) -> NDArray[np.bool_]:
    """Points that lie in what an interval opens, seen from where the gantry stands at its beginning or at its end."""
    hit: NDArray[np.bool_] = np.zeros(len(points_xyz_mm), dtype=bool)
    for a, b in itertools.pairwise(beam.control_points):
        if b.cumulative_mu > a.cumulative_mu:
            shape = opening([swept(a.aperture, b.aperture, mlc)], mlc)
            for angle in (a.gantry_angle_deg, b.gantry_angle_deg):
                x_mm, y_mm, _ = beam_frame(replace(beam.beam, gantry_angle_deg=angle)).to_bev(points_xyz_mm)
                hit |= shape.holds(x_mm, y_mm)
    return hit


def _finding(density: DensityImage, dense_zyx: NDArray[np.int64], beams: list[int]) -> Finding:
    volume_cc = len(dense_zyx) * density.grid.voxel_cc
    highest = float(density.mass_density_g_cm3[tuple(dense_zyx.T)].max())
    message = (
        f"{volume_cc:.1f} cc above {COLLAPSED_CONE.largest_density_g_cm3:g} g/cm³, up to {highest:.2f}, in the opening of "
        f"beam {', '.join(map(str, beams))}; the dose engine was {COLLAPSED_CONE.provenance}"
    )
    return Finding("HIGH_DENSITY", "flag", message)


PLUGIN = HighDensity()
