"""Direct aperture optimisation of arcs: tips at all control points and MU of all intervals together, by their gradient.

As for fixed segments (`steps.direct_aperture`), but an interval is an aperture in motion (`steps.arc_tips`), seen from the
nearest of the angles that have beamlets; what that leaves out is part of the measured residual. Leaves go no further between
control points than they can while the gantry turns at full speed. So neither gantry nor dose rate ever has to wait for a
leaf, and every limit of the machine holds at every step of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import ArcLimits, Machine
from rtplan.domain.plan import Aperture, ControlPoint, DeliverablePlan, PlanBeam, arc_beam
from rtplan.domain.progress import Progress, silent
from rtplan.errors import PlanningFailed
from rtplan.steps.aperture_search import MU_COST, ROUGHNESS_COST, SOFT_MM, ApertureSearch
from rtplan.steps.arc_tips import (
    ArcField,
    ArcTips,
    Motion,
    is_open,
    legal_tips,
    motion_of,
    open_share,
    opened,
    share_gradient,
)
from rtplan.steps.closed_leaves import with_closed_pairs
from rtplan.steps.final_dose import LEAST_MU_MARGIN
from rtplan.steps.optimise import Problem
from rtplan.steps.place_beams import wrapped_deg
from rtplan.steps.tips import roughness
from rtplan.steps.transmission import interpolated

Floats = NDArray[np.float64]

BEYOND = 0.9  # quantile of the beamlets' pull that opening where there are no beamlets costs


@dataclass(frozen=True, slots=True, eq=False)
class Arcs:
    """Arcs under optimisation: for each its raster, its tips, and MU per fraction of its intervals (n_intervals,)."""

    fields: tuple[ArcField, ...]
    beamlets: Beamlets
    machine: Machine
    tips: tuple[ArcTips, ...]
    mu: tuple[Floats, ...]

    def fluence(self) -> Floats:
        """What the optimiser takes for the beamlets' fluence, (n_beamlets,) MU per fraction."""
        found = np.zeros(len(self.beamlets))
        for field, tips, mu in zip(self.fields, self.tips, self.mu, strict=True):
            motion, there = motion_of(field, self.machine), field.present
            share = motion.transmission + (1 - motion.transmission) * open_share(tips, field, motion)
            found += np.bincount(field.beamlet[there], (mu[:, None, None] * share)[there], minlength=len(found))
        return found


def mu_limits(turn_deg: float, machine: Machine) -> tuple[float, float]:
    """Least and most MU per fraction of an interval through which the gantry turns at full speed, a little inside what the
    machine gives, so that a plan's normalisation seldom breaks them. Raises PlanningFailed ARC_NOT_SUPPORTED."""
    most = _arc_limits(machine).max_mu_per_deg * turn_deg
    return LEAST_MU_MARGIN * _least_mu(turn_deg, machine), most / LEAST_MU_MARGIN


def _least_mu(turn_deg: float, machine: Machine) -> float:
    arc = _arc_limits(machine)
    seconds = turn_deg / machine.max_gantry_speed_deg_s
    return max(arc.min_mu_per_deg * turn_deg, arc.min_dose_rate_mu_min / 60.0 * seconds)


def optimise_arcs(problem: Problem, arcs: Arcs, *, steps: int, progress: Progress = silent) -> tuple[Arcs, Problem]:
    """Arcs with tips and MU that lower the problem's objective, and the problem with the prices it ended with."""
    search = _Search(problem, arcs)
    return search.descend(steps, progress).setting, search.problem


def plan_of_arcs(arcs: Arcs, fractions: int) -> DeliverablePlan:
    """The plan of some arcs: control points no further apart than the machine wants them, jaws still around all openings.

    Raises PlanningFailed BEAM_MU, NO_PLACE_FOR_CLOSED_LEAVES.
    """
    machine = arcs.machine
    beams = tuple(
        _plan_beam(number, field, tips, mu, machine)
        for number, (field, tips, mu) in enumerate(zip(arcs.fields, arcs.tips, arcs.mu, strict=True), start=1)
    )
    return DeliverablePlan(machine.machine_id, machine.beam.energy_id, fractions, beams)


def raised_arcs(plan: DeliverablePlan, machine: Machine) -> DeliverablePlan:
    """The plan of arcs with every interval raised to the least that the machine gives while the gantry turns at full speed;
    the plan itself when none is below."""
    beams = []
    for beam in plan.beams:
        mu = np.diff([p.cumulative_mu for p in beam.control_points])
        least = np.array([_least_mu(abs(float(turn)), machine) for turn in beam.turns_deg])
        done = np.concatenate([[0.0], np.cumsum(np.maximum(mu, least))])
        points = tuple(replace(p, cumulative_mu=float(m)) for p, m in zip(beam.control_points, done, strict=True))
        beams.append(beam if np.all(mu >= least) else replace(beam, control_points=points))
    return plan if all(a is b for a, b in zip(beams, plan.beams, strict=True)) else replace(plan, beams=tuple(beams))


class _Search(ApertureSearch[Arcs]):
    """Arcs; the variables are the MU of all intervals, then both banks' tips arc by arc. They come nearer more slowly than
    segments do: with prices as quick as theirs, parotids were given up too early (29 Gy for 27.5)."""

    reprice_every = 10

    def __init__(self, problem: Problem, arcs: Arcs) -> None:
        super().__init__(problem, len(arcs.beamlets), sum(len(mu) for mu in arcs.mu))
        self.start = replace(
            arcs, mu=tuple(np.clip(mu, *self._mu(f, arcs)) for f, mu in zip(arcs.fields, arcs.mu, strict=True))
        )
        self.motions = [motion_of(f, arcs.machine) for f in arcs.fields]
        image = problem.image(self.start.fluence())
        pull = problem.pull(problem.evaluate(np.zeros(self.n_beamlets), image).image_gradient)
        self.beyond = max(float(np.quantile(pull, BEYOND)), 0.0)

    def first(self) -> Arcs:
        return self.start

    def flat(self, setting: Arcs) -> Floats:
        return np.concatenate([*setting.mu, *(np.concatenate([t.x1_mm.ravel(), t.x2_mm.ravel()]) for t in setting.tips)])

    def bounds(self, setting: Arcs) -> tuple[Floats, Floats]:
        low = [np.full(len(m), self._mu(f, setting)[0]) for f, m in zip(setting.fields, setting.mu, strict=True)]
        high = [np.full(len(m), self._mu(f, setting)[1]) for f, m in zip(setting.fields, setting.mu, strict=True)]
        for motion, t in zip(self.motions, setting.tips, strict=True):
            for x, (first, last) in ((t.x1_mm, motion.x1_mm), (t.x2_mm, motion.x2_mm)):
                low.append(np.full(x.size, first))
                high.append(np.full(x.size, last))
        return np.concatenate(low), np.concatenate(high)

    def legal(self, old: Arcs, flat: Floats) -> Arcs:
        at, mus, tips = 0, [], []
        for field, mu in zip(old.fields, old.mu, strict=True):
            mus.append(np.clip(flat[at : at + len(mu)], *self._mu(field, old)))
            at += len(mu)
        for field, motion, t in zip(old.fields, self.motions, old.tips, strict=True):
            x1, x2 = flat[at : at + 2 * t.x1_mm.size].reshape(2, *t.x1_mm.shape)
            tips.append(opened(legal_tips(x1, x2, motion), field, motion))
            at += 2 * t.x1_mm.size
        return replace(old, mu=tuple(mus), tips=tuple(tips))

    def fluence(self, setting: Arcs) -> Floats:
        return setting.fluence()

    def cost(self, setting: Arcs, pull: Floats) -> tuple[float, Floats]:
        value, by_mu, by_tips = 0.0, [], []
        for field, motion, t, mu in zip(setting.fields, self.motions, setting.tips, setting.mu, strict=True):
            share, leak = open_share(t, field, motion), motion.transmission
            outside = self.beyond * (share * ~field.present).sum(axis=(1, 2))
            inside = field.cells(pull)
            rough, r1, r2 = roughness(t.x1_mm, t.x2_mm, SOFT_MM)
            at_points = _halves(mu)  # MU that each control point stands for
            value += float(mu.sum()) * MU_COST + float(mu @ outside) + ROUGHNESS_COST * float(at_points @ rough)
            own = MU_COST + outside + (1 - leak) * (share * inside).sum(axis=(1, 2)) + leak * inside.sum(axis=(1, 2))
            by_mu.append(own + ROUGHNESS_COST * (rough[:-1] + rough[1:]) / 2)
            cells = (1 - leak) * inside + self.beyond * ~field.present
            x1, x2 = share_gradient(t, field, motion, mu[:, None, None] * cells)
            weight = ROUGHNESS_COST * at_points[:, None]
            by_tips += [(x1 + weight * r1).ravel(), (x2 + weight * r2).ravel()]
        return value, np.concatenate([*by_mu, *by_tips])

    def inverse_curvature(self, setting: Arcs) -> Floats:
        """An MU moves open beamlets, a tip moves the MU around its control point over a beamlet's width."""
        by_mu, by_tips = [], []
        for field, motion, t, mu in zip(setting.fields, self.motions, setting.tips, setting.mu, strict=True):
            share = open_share(t, field, motion)
            by_mu.append(((share**2).sum(axis=(1, 2)) + 1.0) ** -1.3)
            width = float(field.x_edges_mm[1] - field.x_edges_mm[0])
            one = 0.5 * (width / np.maximum(_halves(mu), 0.5)) ** 2
            by_tips.append(np.tile(np.repeat(one, t.x1_mm.shape[1]), 2))
        return np.concatenate([*by_mu, *by_tips])

    @staticmethod
    def _mu(field: ArcField, arcs: Arcs) -> tuple[float, float]:
        return mu_limits(field.turn_deg, arcs.machine)


def _halves(mu: Floats) -> Floats:
    """Half of what is given before and after each control point, (n_intervals + 1,)."""
    found = np.zeros(len(mu) + 1)
    found[:-1] += mu / 2
    found[1:] += mu / 2
    return found


def _plan_beam(number: int, field: ArcField, tips: ArcTips, mu: Floats, machine: Machine) -> PlanBeam:
    apertures = _apertures(field, tips, motion_of(field, machine), machine)
    parts = int(np.ceil(field.turn_deg / _arc_limits(machine).max_spacing_deg - 1e-9))
    sign = 1.0 if field.arc.direction == "CW" else -1.0
    points = [ControlPoint(0.0, float(field.angles_deg[0]), apertures[0])]
    for k, (a, b) in enumerate(pairwise(apertures)):
        done = float(mu[:k].sum())
        for i in range(1, parts + 1):
            angle = float(wrapped_deg(field.angles_deg[k] + sign * field.turn_deg * i / parts))
            here = b if i == parts else interpolated(a, b, i / parts)
            points.append(ControlPoint(done + float(mu[k]) * i / parts, angle, here))
    beam = arc_beam(number, field.beam, field.arc.direction, tuple(points))
    if beam.mu > machine.max_beam_mu:
        found, most = f"{field.beam.name}: {beam.mu:.0f} MU", f"at most {machine.max_beam_mu:g} MU"
        raise PlanningFailed("BEAM_MU", found, most, "more arcs or fewer fractions' dose")
    return beam


def _apertures(field: ArcField, tips: ArcTips, motion: Motion, machine: Machine) -> list[Aperture]:
    """Every leaf and jaw at the control points. Pairs that never open stay where one place under a jaw holds them all."""
    ever = is_open(tips, motion)
    rows, bounds, jaws = np.flatnonzero(ever.any(axis=0)), machine.mlc.leaf_boundaries_mm, machine.jaws
    box = (
        min(float(tips.x1_mm[ever].min()), jaws.x1_range_mm[1]),
        max(float(tips.x2_mm[ever].max()), jaws.x2_range_mm[0]),
        min(float(bounds[field.first_pair + rows[0]]), jaws.y1_range_mm[1]),
        max(float(bounds[field.first_pair + rows[-1] + 1]), jaws.y2_range_mm[0]),
    )
    moving = field.first_pair + rows
    widest1, widest2 = np.full(machine.mlc.n_pairs, np.nan), np.full(machine.mlc.n_pairs, np.nan)
    parked = _parked(tips.x1_mm[:, rows], tips.x2_mm[:, rows], moving, box, machine)
    found = []
    for x1, x2 in zip(tips.x1_mm[:, rows], tips.x2_mm[:, rows], strict=True):
        widest1[:], widest2[:] = parked, parked + machine.mlc.min_gap_mm
        widest1[moving], widest2[moving] = x1, x2
        found.append(Aperture(widest1, widest2, *box))
    return found


def _parked(x1: Floats, x2: Floats, moving: NDArray[np.int64], box: Sequence[float], machine: Machine) -> float:
    """X1 of the pairs that never open, at which no bank's span is too wide at any control point."""
    mlc = machine.mlc
    if len(moving) == mlc.n_pairs:
        return 0.0
    # Two rows that reach as far as any row does at any time stand for all control points at once.
    low, high = np.full(mlc.n_pairs, np.nan), np.full(mlc.n_pairs, np.nan)
    first, last = moving[0], moving[-1]
    low[first], high[first] = x1.min(), x2.min()
    if last != first:
        low[last], high[last] = x1.max(), x2.max()
    all_still = with_closed_pairs(low, high, (box[0], box[1], box[2], box[3]), machine)
    if all_still is None:
        raise PlanningFailed("NO_PLACE_FOR_CLOSED_LEAVES", "pairs beyond the target of an arc")
    closed = np.setdiff1d(np.arange(mlc.n_pairs), moving)
    return float(all_still.leaf_x1_mm[closed[0]])


def _arc_limits(machine: Machine) -> ArcLimits:
    if machine.arc is None:
        raise PlanningFailed(
            "ARC_NOT_SUPPORTED", f"{machine.machine_id} has no arcs", "a machine with arcs", "plan with imrt"
        )
    return machine.arc
