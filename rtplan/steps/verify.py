"""Judges the final dose: goals, target figures, histograms, and the plan checks of the shelf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtplan.checks import run_checks
from rtplan.domain.context import PlanContext
from rtplan.domain.dose import Dose, Dvh, cumulative_dvh, dose_in_mask
from rtplan.domain.goals import Goal, GoalResult, evaluate_metric, parse_metric
from rtplan.domain.grid import Float3, Grid
from rtplan.domain.prescription import PrescribedTarget, Prescription
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Outcome
from rtplan.domain.verification import HotPoint, TargetSummary, Verification

_SLAB_VOXELS = 400_000  # dose_in_mask needs some 200 bytes a voxel: External of a full CT would take gigabytes at once
_CONFORMITY_LEVEL = 0.95
_HIDDEN_KINDS = ("CONTROL", "SUPPORT")  # helper volumes and couch: not shown to a reviewer
Doses = Mapping[str, NDArray[np.float32]]


def verify(context: PlanContext) -> Verification:
    """Everything that is judged about a plan by its final dose."""
    prescription, structures, dose = context.prescription, context.structures, context.dose
    doses = {s.name: structure_dose(dose, s.mask, structures.grid) for s in structures}
    goals = judged(prescription.goals, doses, structures.grid.voxel_cc, prescription)
    return Verification(
        goals=goals,
        targets=summarise_targets(prescription, structures, dose, doses),
        dvhs=_histograms(structures, doses),
        hottest=hot_point(structures, dose),
        checks=run_checks(context),
        outcome=outcome(goals),
    )


def structure_dose(dose: Dose, mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float32]:
    """Dose at the centres of a mask's voxels, (n,) Gy: `dose_in_mask` slab by slab, so that memory stays small."""
    per_slice = mask.reshape(mask.shape[0], -1).sum(axis=1)
    parts: list[NDArray[np.float32]] = []
    start = 0
    while start < mask.shape[0]:
        stop = start + 1
        while stop < mask.shape[0] and per_slice[start : stop + 1].sum() <= _SLAB_VOXELS:
            stop += 1
        if per_slice[start:stop].any():
            slab = grid.cropped((start, 0, 0), (stop, mask.shape[1], mask.shape[2]))
            parts.append(dose_in_mask(dose, mask[start:stop], slab))
        start = stop
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def judge_goals(
    goals: Sequence[Goal], structures: StructureSet, dose: Dose, prescription: Prescription
) -> tuple[GoalResult, ...]:
    """Every goal with the value that the dose gives. A structure that is absent or empty gives no value."""
    wanted = {g.structure for g in goals}
    doses = {s.name: structure_dose(dose, s.mask, structures.grid) for s in structures if s.name in wanted}
    return judged(goals, doses, structures.grid.voxel_cc, prescription)


def judged(goals: Sequence[Goal], doses: Doses, voxel_cc: float, prescription: Prescription) -> tuple[GoalResult, ...]:
    """Goals evaluated on the voxel doses of their structures."""
    results = []
    for goal in goals:
        voxels = doses.get(goal.structure)
        if voxels is None or voxels.size == 0:
            results.append(GoalResult(goal, None, None))
            continue
        value = evaluate_metric(goal.metric, voxels, voxel_cc, prescription.prescribed_gy(goal.structure))
        results.append(GoalResult(goal, value, goal.met_by(value)))
    return tuple(results)


def outcome(results: Sequence[GoalResult]) -> Outcome:
    """goals_met when at least one goal was judged and none is missed; nothing judged means that nothing was shown."""
    judged = [r.met for r in results if r.met is not None]
    return "goals_met" if judged and all(judged) else "goals_missed"


def dvhs(structures: StructureSet, dose: Dose) -> tuple[Dvh, ...]:
    """Histograms of every structure that a reviewer sees: helper volumes and couch are left out, empty ones too."""
    shown = [s for s in structures if s.kind not in _HIDDEN_KINDS]
    return _histograms(structures, {s.name: structure_dose(dose, s.mask, structures.grid) for s in shown})


def _histograms(structures: StructureSet, doses: Doses) -> tuple[Dvh, ...]:
    """Histograms in the order of the structures."""
    shown = [s.name for s in structures if s.kind not in _HIDDEN_KINDS and doses[s.name].size]
    return tuple(cumulative_dvh(name, doses[name], structures.grid.voxel_cc) for name in shown)


def summarise_targets(
    prescription: Prescription, structures: StructureSet, dose: Dose, doses: Doses
) -> tuple[TargetSummary, ...]:
    """Figures of every prescribed target that the structures hold, highest dose first. `doses` are (n,) Gy by structure."""
    present = [t for t in prescription.targets if t.name in doses and doses[t.name].size]
    return tuple(_target_summary(t, structures, dose, doses[t.name]) for t in present)


def _target_summary(
    target: PrescribedTarget, structures: StructureSet, dose: Dose, voxels: NDArray[np.float32]
) -> TargetSummary:
    """Figures of one target (ICRU Report 83; Paddick, J Neurosurg 93 Suppl 3:219, 2000)."""
    voxel_cc = structures.grid.voxel_cc

    def value(metric: str) -> float:
        return evaluate_metric(parse_metric(metric), voxels, voxel_cc, target.dose_gy)

    level_gy = _CONFORMITY_LEVEL * target.dose_gy
    inside_cc, everywhere_cc = float(np.sum(voxels >= level_gy)) * voxel_cc, volume_above(dose, structures, level_gy)
    d98, d50, d2 = value("D98[Gy]"), value("D50[Gy]"), value("D2[Gy]")
    return TargetSummary(
        name=target.name,
        prescribed_gy=target.dose_gy,
        volume_cc=voxels.size * voxel_cc,
        d99_gy=value("D99[Gy]"),
        d98_gy=d98,
        d95_gy=value("D95[Gy]"),
        d50_gy=d50,
        d2_gy=d2,
        d1_gy=value("D1[Gy]"),
        mean_gy=value("Mean[Gy]"),
        max_gy=value("Max[Gy]"),
        v95_percent=value("V95%[%]"),
        v107_percent=value("V107%[%]"),
        homogeneity_index=(d2 - d98) / d50 if d50 > 0 else float("inf"),
        conformity_index=inside_cc**2 / (voxels.size * voxel_cc * everywhere_cc) if everywhere_cc > 0 else None,
    )


def volume_above(dose: Dose, structures: StructureSet, level_gy: float) -> float:
    """Volume of the External that receives at least `level_gy`, cm³, counted on the grid of the structures."""
    reached = np.argwhere(dose.dose_gy >= level_gy)
    if not len(reached):
        return 0.0
    # Interpolated dose reaches the level only between voxels that do and their neighbours.
    corners = np.array([reached.min(axis=0) - 1.0, reached.max(axis=0) + 1.0])
    index = structures.grid.to_index(dose.grid.to_point_mm(corners))
    shape = np.array(structures.grid.shape_zyx)
    low = np.clip(np.floor(index[0]), 0, shape).astype(int)
    high = np.clip(np.ceil(index[1]) + 1, 0, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    mask = structures.external.mask[box]
    if not mask.any():
        return 0.0
    start, stop = (int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2]))
    voxels = structure_dose(dose, mask, structures.grid.cropped(start, stop))
    return float(np.sum(voxels >= level_gy)) * structures.grid.voxel_cc


def hot_point(structures: StructureSet, dose: Dose) -> HotPoint:
    """The voxel of the dose grid with the highest dose, and the structures that hold its centre."""
    index = np.unravel_index(int(np.argmax(dose.dose_gy)), dose.grid.shape_zyx)
    point = dose.grid.to_point_mm(np.array(index, dtype=np.float64))
    where = np.rint(structures.grid.to_index(point)).astype(int)
    inside = bool(np.all((where >= 0) & (where < structures.grid.shape_zyx)))
    holding = [s.name for s in structures if inside and s.kind not in _HIDDEN_KINDS and s.mask[tuple(where)]]
    xyz: Float3 = (float(point[0]), float(point[1]), float(point[2]))
    return HotPoint(float(dose.dose_gy[index]), xyz, tuple(holding))
