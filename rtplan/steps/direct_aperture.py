"""Direct aperture optimisation: leaf tips and MU of all segments together, by the gradient of the plan's own objectives.

The fluence of a beamlet is the sum over segments of MU times the part of it that lies between the tips, so its gradient by a
tip is the beamlet's own gradient where the tip stands (Hårdemark et al. 2003; Cassioli and Unkelbach, Phys Med Biol 58:301,
2013). One apply and one adjoint of the influence operator serve all segments at once. What the model leaves out (tongue
and groove, jaws, source, scatter from afar) is the caller's measured offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import Machine
from rtplan.domain.progress import Progress, silent
from rtplan.errors import PlanningFailed
from rtplan.steps.aperture_search import MU_COST, ROUGHNESS_COST, SOFT_MM, ApertureSearch
from rtplan.steps.apertures import BeamletField, Shape
from rtplan.steps.closed_leaves import placed_shape
from rtplan.steps.optimise import Problem
from rtplan.steps.tips import Tips, first_tips, legal_tips, roughness

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Apertures and MU per fraction (n,) under optimisation, on the beamlet fields of their beams."""

    fields: dict[int, BeamletField]
    beamlets: Beamlets
    machine: Machine
    shapes: tuple[Shape, ...]
    mu: Floats

    def keeping(self, keep: NDArray[np.bool_]) -> Segments:
        """Those segments alone. Raises PlanningFailed NO_SEGMENTS when none is left."""
        if not keep.any():
            raise PlanningFailed(
                "NO_SEGMENTS", "no segment reaches the machine's smallest MU and area", "", "check the fluence"
            )
        return replace(self, shapes=tuple(s for s, k in zip(self.shapes, keep, strict=True) if k), mu=self.mu[keep])

    def fluence(self) -> Floats:
        """What the optimiser takes for the beamlets' fluence, (n_beamlets,) MU per fraction."""
        tips = [first_tips(self._of(b), f, self.machine) for b, f in self._used()]
        return _fluence(self.beamlets, self.parts(), tips, self.mu)

    def _used(self) -> list[tuple[int, BeamletField]]:
        beams = {s.beam_index for s in self.shapes}
        return [(b, f) for b, f in self.fields.items() if b in beams]

    def _of(self, beam: int) -> list[Shape]:
        return [s for s in self.shapes if s.beam_index == beam]

    def parts(self) -> list[tuple[BeamletField, NDArray[np.int64]]]:
        """Each beam's field and which of the segments are its own."""
        index = np.array([s.beam_index for s in self.shapes])
        return [(f, np.flatnonzero(index == b)) for b, f in self._used()]


def optimise_apertures(
    problem: Problem, segments: Segments, *, steps: int, least_mu: float, progress: Progress = silent
) -> tuple[Segments, Problem]:
    """Segments with tips and MU that lower the problem's objective, and the problem with the prices it ended with.

    MU stay between `least_mu` and the machine's largest beam; tips within travel, span, the beamlets of their row, and
    where leaves may not interdigitate short of the neighbours' opposite tips; no area falls below the machine's smallest.
    """
    search = _Search(problem, segments, least_mu)
    return search.segments_of(search.descend(steps, progress).setting), search.problem


def with_new_segments(problem: Problem, segments: Segments, budget: int, mu: float) -> Segments:
    """The segments and, while there are fewer than `budget`, one more for each beam where the objective asks for it most.

    Column generation (Romeijn et al., SIAM J Optim 15:838, 2005): the aperture of the greatest negative reduced cost; it
    begins with `mu` MU.
    """
    image = problem.image(segments.fluence())
    pull = -problem.pull(problem.evaluate(np.zeros(len(segments.beamlets)), image).image_gradient)
    known = {s.key for s in segments.shapes}
    found: list[tuple[float, Shape]] = []
    for field in segments.fields.values():
        shape = placed_shape(pull[field.beamlets], field, segments.machine)
        if shape is not None and shape.key not in known:
            tips = first_tips([shape], field, segments.machine)
            found.append((float((tips.open_share(field)[0] * _cells(field, pull)).sum()), shape))
    best = sorted(found, key=lambda pair: -pair[0])[: max(0, budget - len(segments.shapes))]
    shapes = (*segments.shapes, *(shape for _, shape in best))
    return replace(segments, shapes=shapes, mu=np.concatenate([segments.mu, np.full(len(best), mu)]))


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """MU per fraction of all segments (n,), and their tips by beam."""

    mu: Floats
    tips: list[Tips]


class _Search(ApertureSearch[_Setting]):
    """Segments of fixed beams; the variables are MU, then both banks' tips beam by beam."""

    reprice_every = 6

    def __init__(self, problem: Problem, segments: Segments, least_mu: float) -> None:
        super().__init__(problem, len(segments.beamlets), len(segments.mu))
        self.segments, self.least_mu = segments, least_mu
        self.parts = segments.parts()

    def first(self) -> _Setting:
        tips = [first_tips([self.segments.shapes[i] for i in own], f, self.segments.machine) for f, own in self.parts]
        return _Setting(np.maximum(self.segments.mu, self.least_mu), tips)

    def flat(self, setting: _Setting) -> Floats:
        tips = (np.concatenate([t.x1_mm.ravel(), t.x2_mm.ravel()]) for t in setting.tips)
        return np.concatenate([setting.mu, *tips])

    def segments_of(self, setting: _Setting) -> Segments:
        """The setting as shapes; pairs that are all but closed are closed."""
        shapes: list[Shape | None] = [None] * len(setting.mu)
        for (field, own), tips in zip(self.parts, setting.tips, strict=True):
            for i, shape in zip(own, tips.shapes(field.beam_index), strict=True):
                shapes[i] = shape
        made = [s for s in shapes if s is not None]
        keep = np.array([bool(s.is_open.any()) for s in made])
        return replace(self.segments, shapes=tuple(made), mu=setting.mu).keeping(keep)

    def legal(self, old: _Setting, flat: Floats) -> _Setting:
        n = self.n_mu
        mu = np.clip(flat[:n], self.least_mu, self.segments.machine.max_beam_mu)
        tips = []
        for (field, _), before in zip(self.parts, old.tips, strict=True):
            size = before.x1_mm.size
            x1, x2 = (flat[n + k * size : n + (k + 1) * size].reshape(before.x1_mm.shape) for k in (0, 1))
            tips.append(legal_tips(before, x1, x2, field, self.segments.machine))
            n += 2 * size
        return _Setting(mu, tips)

    def bounds(self, setting: _Setting) -> tuple[Floats, Floats]:
        low = [np.full(self.n_mu, self.least_mu), *(t.low_mm.ravel() for t in setting.tips)]
        high = [np.full(self.n_mu, self.segments.machine.max_beam_mu), *(t.high_mm.ravel() for t in setting.tips)]
        return np.concatenate(low), np.concatenate(high)

    def fluence(self, setting: _Setting) -> Floats:
        return _fluence(self.segments.beamlets, self.parts, setting.tips, setting.mu)

    def cost(self, setting: _Setting, pull: Floats) -> tuple[float, Floats]:
        mu, leak = setting.mu, self.segments.machine.mlc.mean_transmission
        value, by_mu, by_tips = MU_COST * float(mu.sum()), np.full(len(mu), MU_COST), []
        for (field, own), t in zip(self.parts, setting.tips, strict=True):
            cells = _cells(field, pull)
            by_mu[own] += (1 - leak) * np.tensordot(t.open_share(field), cells, 2) + leak * cells.sum()
            x1, x2 = t.gradient(field, (1 - leak) * cells)
            rough, r1, r2 = roughness(t.x1_mm, t.x2_mm, SOFT_MM)
            value += ROUGHNESS_COST * float(mu[own] @ rough)
            by_mu[own] += ROUGHNESS_COST * rough
            weight = mu[own][:, None]
            by_tips += [(weight * (x1 + ROUGHNESS_COST * r1)).ravel(), (weight * (x2 + ROUGHNESS_COST * r2)).ravel()]
        return value, np.concatenate([by_mu, *by_tips])

    def inverse_curvature(self, setting: _Setting) -> Floats:
        """An MU moves open beamlets, a tip moves MU over a beamlet's width."""
        by_mu, by_tips = np.empty(self.n_mu), []
        for (field, own), tips in zip(self.parts, setting.tips, strict=True):
            opened = (tips.open_share(field) ** 2).sum(axis=(1, 2)) + 1.0
            by_mu[own] = opened**-1.3
            width = float(field.x_edges_mm[1] - field.x_edges_mm[0])
            one = 0.5 * (width / np.maximum(setting.mu[own], 0.5)) ** 2
            by_tips.append(np.tile(np.repeat(one, tips.x1_mm.shape[1]), 2))
        return np.concatenate([by_mu, *by_tips])


def _cells(field: BeamletField, by_beamlet: Floats) -> Floats:
    """Values of a field's beamlets on its grid (n_rows, n_columns), zero where there is none."""
    cells = np.zeros((len(field.row_height_mm), len(field.x_edges_mm) - 1))
    cells[field.row, field.column] = by_beamlet[field.beamlets]
    return cells


def _fluence(
    beamlets: Beamlets,
    parts: Sequence[tuple[BeamletField, NDArray[np.int64]]],
    tips: Sequence[Tips],
    mu: Floats,
) -> Floats:
    """(n_beamlets,) MU per fraction: open parts in full, closed ones by the leaves' mean transmission."""
    fluence = np.zeros(len(beamlets))
    for (field, own), t in zip(parts, tips, strict=True):
        cells = (1 - t.transmission) * np.tensordot(mu[own], t.open_share(field), 1) + t.transmission * mu[own].sum()
        fluence[field.beamlets] = cells[field.row, field.column]
    return fluence
