"""What a plan is shaped by besides its goals: even targets, steep fall-off, organs as low as they go, few monitor units.

Nothing here is tuned to a patient. Around the targets every voxel gets a ceiling from its distance to each target and that
target's dose; voxels of like ceilings make up a helper structure that is named after it (zFall_4500 may have 45 Gy). Organs
are pulled down where they lie outside the targets (zParotid_L-PTV): what overlaps cannot be spared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtplan.domain.arrays import frozen
from rtplan.domain.grid import Grid
from rtplan.domain.prescription import PrescribedTarget, Prescription
from rtplan.objectives import Objective
from rtplan.registry import shelf
from rtplan.steps.optimise import Term

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

UNDERDOSE, UNDERDOSE_AT = 30.0, 1.005  # weight in Gy², level as a multiple of the prescription
OVERDOSE, OVERDOSE_AT = 20.0, 1.03  # of the target of the highest dose
ROOM_GY = 0.2  # above the prescription: what file and grid take away
FURTHEST = 0.05  # of the prescription, that a target's levels may stand off it
FALL_OFF = 3.0  # weight in Gy² of the volume of all targets, wherever that much volume lies above its ceilings
# Ceilings over the prescription by distance from a target, mm: steeper than nine static fields reach near the target, so
# that they always pull.
FALL_MM = (0.0, 4.0, 10.0, 20.0, 30.0, 50.0, 100.0)
FALL_SHARE = (1.03, 1.02, 0.90, 0.70, 0.55, 0.42, 0.35)
SHELLS = 24  # ceilings that are told apart
ORGAN_PULL = 0.025  # weight of an organ's squared mean, Gy² per Gy²: at 20 Gy a Gy less is worth 1 Gy²
BODY_PULL = 0.0125


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """The optimiser's voxels as seen from the targets: `distance_mm` (n_targets, n_voxels), 0 inside."""

    targets: tuple[PrescribedTarget, ...]
    distance_mm: NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "distance_mm", frozen(self.distance_mm, np.float32))

    @property
    def in_target(self) -> NDArray[np.bool_]:
        """(n_voxels,) whether any target holds the voxel."""
        return np.asarray(self.distance_mm.min(axis=0) <= 0.0)

    def ceiling_gy(self) -> Floats:
        """(n_voxels,) dose that no voxel should exceed: the highest that any target's fall-off allows."""
        allowed = [
            target.dose_gy * np.interp(distance, FALL_MM, FALL_SHARE)
            for target, distance in zip(self.targets, self.distance_mm, strict=True)
        ]
        return np.asarray(np.max(allowed, axis=0), dtype=np.float64)


def surroundings(
    targets: tuple[PrescribedTarget, ...], sets: Mapping[str, tuple[Rows, Floats]], grid: Grid, voxel_index: Rows
) -> Surroundings:
    """Distances of the voxels `voxel_index` (n,) of a grid to each target, by the voxels that are at least half in it."""
    distances = []
    for target in targets:
        rows, part = sets[target.name]
        outside = np.ones(grid.n_voxels, dtype=bool)
        outside[voxel_index[rows[part >= min(0.5, float(part.max()))]]] = False
        field = ndimage.distance_transform_edt(outside.reshape(grid.shape_zyx), sampling=grid.spacing_zyx_mm)
        distances.append(field.reshape(-1)[voxel_index].astype(np.float32))
    return Surroundings(targets, np.stack(distances))


def shaping_terms(
    prescription: Prescription, sets: Mapping[str, tuple[Rows, Floats]], around: Surroundings
) -> tuple[Term, ...]:
    """The terms, each on a structure with a name: targets, fall-off shells, organs outside the targets, the body."""
    return (*_target_terms(prescription, sets), *_fall_off(around), *_organ_pulls(prescription, sets, around), _body(around))


def _term(structure: str, kind: str, dose_gy: float, weight: float, rows: Rows, part: Floats) -> Term:
    objective: Objective = shelf("rtplan.objectives")[kind].from_parameters({"dose_gy": float(dose_gy)})
    return Term(structure, objective, float(weight), rows, part)


def _target_terms(prescription: Prescription, sets: Mapping[str, tuple[Rows, Floats]]) -> list[Term]:
    hottest = prescription.targets[0]
    found = [
        _term(t.name, "underdose", UNDERDOSE_AT * t.dose_gy + ROOM_GY, UNDERDOSE, *sets[t.name])
        for t in prescription.targets
    ]
    return [*found, _term(hottest.name, "overdose", OVERDOSE_AT * hottest.dose_gy, OVERDOSE, *sets[hottest.name])]


def with_target_levels(terms: tuple[Term, ...], target: PrescribedTarget, factor: float) -> tuple[Term, ...]:
    """The terms with the levels between which `target` is to be even multiplied by `factor`, and no further than `FURTHEST`
    off its prescription."""
    low, high = (1 - FURTHEST) * target.dose_gy, (1 + FURTHEST) * target.dose_gy

    def moved(term: Term) -> Term:
        level = float(np.clip(factor * term.objective.model_dump()["dose_gy"], low, high))
        return replace(term, objective=term.objective.from_parameters({"dose_gy": level}))

    return tuple(moved(t) if t.structure == target.name else t for t in terms)


def _fall_off(around: Surroundings) -> list[Term]:
    """One term for each shell of like ceilings; a voxel weighs the same wherever it lies."""
    ceiling = around.ceiling_gy()
    per_voxel = FALL_OFF / max(int(around.in_target.sum()), 1)
    edges = np.linspace(float(ceiling.min()), float(ceiling.max()), SHELLS + 1)
    shell = np.clip(np.searchsorted(edges, ceiling, side="right") - 1, 0, SHELLS - 1)
    terms = []
    for k in range(SHELLS):
        rows = np.flatnonzero(shell == k).astype(np.int64)
        if rows.size:
            level = float(ceiling[rows].mean())
            name = f"zFall_{round(100 * level)}"
            terms.append(_term(name, "overdose", level, per_voxel * rows.size, rows, np.ones(rows.size)))
    return terms


def _organ_pulls(prescription: Prescription, sets: Mapping[str, tuple[Rows, Floats]], around: Surroundings) -> list[Term]:
    """A pull on each organ that a goal names, weighed by how much of it lies outside the targets."""
    targets = {t.name for t in prescription.targets}
    organs = dict.fromkeys(g.structure for g in prescription.goals if g.structure not in targets and g.sense == "<=")
    free = ~around.in_target
    terms = []
    for name in organs:
        rows, part = sets[name]
        outside = free[rows]
        if outside.any():
            share = float(part[outside].sum() / part.sum())
            terms.append(_term(f"z{name}-PTV", "mean_dose", 0.0, ORGAN_PULL * share, rows[outside], part[outside]))
    return terms


def _body(around: Surroundings) -> Term:
    rows = np.flatnonzero(~around.in_target).astype(np.int64)
    return _term("External-PTV", "mean_dose", 0.0, BODY_PULL, rows, np.ones(rows.size))
