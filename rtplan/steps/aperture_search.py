"""The search that direct aperture optimisation of fixed beams and of arcs share: quasi-Newton steps between legal settings.

What a collimator and MU are set to is a technique's own; the search sees a flat vector of variables, MU first, and asks for
the nearest legal setting to where it wants to go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.progress import Progress, silent
from rtplan.errors import PlanningFailed
from rtplan.steps.optimise import Problem
from rtplan.steps.solver import quasi_newton

Floats = NDArray[np.float64]
T = TypeVar("T")

MEMORY = 12  # pairs of L-BFGS
FIRST_STEP_MM, FIRST_STEP_MU = 2.0, 0.2  # of a tip; of the mean MU
MU_COST = 0.004  # Gy² for each MU of a fraction
ROUGHNESS_COST = 2e-5  # Gy² for each MU and mm by which a tip stands off its neighbour's, summed over the tips
SOFT_MM = 2.0  # steps between neighbours that count as even


@dataclass(frozen=True, slots=True, eq=False)
class Point(Generic[T]):
    """A setting, the same as a flat vector (n,), the image of its fluence, and value and gradient (n,) of the objective."""

    setting: T
    flat: Floats
    image: Floats
    value: float
    gradient: Floats


class ApertureSearch(ABC, Generic[T]):
    """A problem on settings of a technique. Subclasses say what a setting is, and after how many steps prices change; the
    first `n_mu` variables are its MU."""

    reprice_every: ClassVar[int]

    def __init__(self, problem: Problem, n_beamlets: int, n_mu: int) -> None:
        self.problem, self.n_beamlets, self.n_mu = problem, n_beamlets, n_mu

    @abstractmethod
    def first(self) -> T:
        """Where the search begins."""

    @abstractmethod
    def flat(self, setting: T) -> Floats:
        """The setting's variables, (n,): MU per fraction, then mm."""

    @abstractmethod
    def bounds(self, setting: T) -> tuple[Floats, Floats]:
        """Lowest and highest values of the variables, (n,) each."""

    @abstractmethod
    def legal(self, old: T, flat: Floats) -> T:
        """A setting that the machine can have near the variables `flat`, coming from `old`."""

    @abstractmethod
    def fluence(self, setting: T) -> Floats:
        """(n_beamlets,) MU per fraction."""

    @abstractmethod
    def cost(self, setting: T, pull: Floats) -> tuple[float, Floats]:
        """What the setting itself costs, in Gy², and the gradient (n,) of that and of the dose, whose gradient by the
        beamlets' fluence is `pull` (n_beamlets,)."""

    @abstractmethod
    def inverse_curvature(self, setting: T) -> Floats:
        """How far each variable may go for its pull, (n,)."""

    def at(self, setting: T, image: Floats | None = None) -> Point[T]:
        """The point of a setting; `image` is that of its fluence where it is known."""
        if image is None:
            image = self.problem.image(self.fluence(setting))
        at = self.problem.evaluate(np.zeros(self.n_beamlets), image)
        if not np.isfinite(at.value):
            raise PlanningFailed("OBJECTIVE_NOT_FINITE", f"objective of the apertures is {at.value}", "a number")
        cost, gradient = self.cost(setting, self.problem.pull(at.image_gradient))
        return Point(setting, self.flat(setting), image, at.value + cost, gradient)

    def advance(self, here: Point[T], pairs: list[tuple[Floats, Floats]]) -> Point[T] | None:
        """The next point with a lower value, along the quasi-Newton step of the free variables; None without one."""
        low, high = self.bounds(here.setting)
        free = ~(((here.flat <= low) & (here.gradient > 0)) | ((here.flat >= high) & (here.gradient < 0)))
        bent = [(s * free, y * free) for s, y in pairs]
        bent = [(s, y) for s, y in bent if float(s @ y) > 1e-10 * float(np.linalg.norm(s) * np.linalg.norm(y))]
        step = quasi_newton(here.gradient * free, bent, self.inverse_curvature(here.setting))
        if not bent:
            n = self.n_mu
            most = float(np.abs(step[:n]).max()) / (FIRST_STEP_MU * float(here.flat[:n].mean()))
            step /= max(most, float(np.abs(step[n:]).max()) / FIRST_STEP_MM, 1e-30)
        length = 1.0
        for _ in range(8):
            following = self.at(self.legal(here.setting, here.flat - length * step))
            slope = float(here.gradient @ (following.flat - here.flat))
            if slope < 0.0 and following.value <= here.value + 1e-4 * slope:
                return following
            rise = following.value - here.value - slope
            length *= min(0.5, max(0.1, -0.5 * slope / rise)) if slope < 0.0 and rise > 0.0 else 0.3
        return None

    def descend(self, steps: int, progress: Progress = silent) -> Point[T]:
        """The point after at most `steps` steps; `problem` then has the prices of the end."""
        here, pairs = self.at(self.first()), list[tuple[Floats, Floats]]()
        for step in range(steps):
            if step and step % self.reprice_every == 0:
                self.problem, _ = self.problem.repriced(here.image, step == self.reprice_every)
                here = self.at(here.setting, here.image)
            following = self.advance(here, pairs)
            if following is None and not pairs:
                break
            if following is None:
                pairs = []
                continue
            moved, turned = following.flat - here.flat, following.gradient - here.gradient
            if float(moved @ turned) > 1e-12 * float(np.linalg.norm(moved) * np.linalg.norm(turned)):
                pairs = [*pairs, (moved, turned)][-MEMORY:]
            here = following
            mu = float(here.flat[: self.n_mu].sum())
            progress("sequence", step / steps, f"{self.n_mu} apertures, {mu:.0f} MU, {here.value:.4g} Gy²")
        return here
