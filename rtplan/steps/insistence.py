"""Which goals a plan on the way misses, which of two plans is the better one, and what the next round insists on.

Apertures cannot follow the ideal fluence in all things, and the cap on a price may hold a goal just outside its limit that
its apertures could keep. Such a goal is asked for at a higher cap from round to round, as long as no goal of higher priority
pays for it; the best plan that was found on the way is the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rtplan.domain.dose import Dose
from rtplan.domain.goals import Goal
from rtplan.domain.prescription import Prescription
from rtplan.domain.structures import StructureSet
from rtplan.steps.final_dose import normalisation_factor, scaled_dose
from rtplan.steps.optimise import Problem
from rtplan.steps.verify import judge_goals
from rtplan.steps.wishes import insisted_on

MORE = 2.0  # times the cap, for a goal that is missed after a round; as much less where a goal above it is missed
MOST = 16.0  # times the cap that a goal began with


@dataclass(frozen=True, slots=True)
class Standing:
    """How a plan stands by its goals: those that it misses, each with the share of its limit that it lies beyond.

    `counts` is the number of missed goals of each priority that the prescription has, the highest priority first.
    """

    missed: tuple[tuple[Goal, float], ...]
    counts: tuple[int, ...]

    @property
    def goals(self) -> frozenset[Goal]:
        """The goals that are missed."""
        return frozenset(goal for goal, _ in self.missed)

    def no_worse_than(self, other: Standing) -> bool:
        """Whether fewer goals are missed of the first priority in which the two differ, or as many by no more in sum."""
        return (self.counts, sum(beyond for _, beyond in self.missed)) <= (
            other.counts,
            sum(beyond for _, beyond in other.missed),
        )


def standing(dose: Dose, structures: StructureSet, prescription: Prescription) -> Standing:
    """How a plan of this dose (whole course, Gy) stands once it is normalised by the protocol's rule."""
    rule = prescription.protocol.normalisation
    if rule is not None:
        dose = scaled_dose(dose, normalisation_factor(rule, dose, structures, prescription))
    missed = [
        (result.goal, abs(result.value - result.goal.limit) / max(abs(result.goal.limit), 1.0))
        for result in judge_goals(prescription.goals, structures, dose, prescription)
        if result.value is not None and not result.met
    ]
    priorities = [goal.priority for goal, _ in missed]
    counts = tuple(priorities.count(p) for p in sorted({goal.priority for goal in prescription.goals}))
    return Standing(tuple(missed), counts)


def insisted(problem: Problem, missed: frozenset[Goal]) -> Problem:
    """The problem with a higher cap for the wishes of the goals that are missed and have the highest priority among these,
    and a lower one, down to what it began with, for those below: they may be why.

    What was let go is not insisted on.
    """
    first = min((w.goal.priority for w in problem.wishes if w.goal in missed and not w.let_go), default=None)
    if first is None:
        return problem
    pairs = []
    for wish, price in zip(problem.wishes, problem.prices, strict=True):
        change = 1.0
        if wish.goal in missed and wish.goal.priority == first and not wish.let_go:
            change = min(MORE, MOST / wish.insistence)
        elif wish.goal.priority > first:
            change = max(1.0 / MORE, 1.0 / wish.insistence)
        pairs.append(insisted_on(wish, price, change))
    return replace(problem, wishes=tuple(w for w, _ in pairs), prices=tuple(p for _, p in pairs))
