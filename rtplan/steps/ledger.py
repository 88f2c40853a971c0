"""The deliverability ledger: every goal at every stage of the plan, and its worst value when the patient lies a little off.

Each stage is a full dose on the grid on which the plan is judged, evaluated on the CT's own voxels like the final one, so
that the differences between columns are what the plan lost or gained and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.dose import Dose
from rtplan.domain.goals import GoalResult
from rtplan.domain.grid import Float3, Grid
from rtplan.domain.ledger import Ledger, LedgerRow, Stage, StageValue, Towards, WorstShift
from rtplan.domain.prescription import Prescription
from rtplan.domain.structures import StructureSet
from rtplan.steps.verify import judge_goals, judged, structure_dose

SHIFT_MM = 3.0
DIRECTIONS_XYZ: Mapping[Towards, Float3] = {
    "left": (1.0, 0.0, 0.0),
    "right": (-1.0, 0.0, 0.0),
    "posterior": (0.0, 1.0, 0.0),
    "anterior": (0.0, -1.0, 0.0),
    "superior": (0.0, 0.0, 1.0),
    "inferior": (0.0, 0.0, -1.0),
}


def ledger(prescription: Prescription, structures: StructureSet, before: Mapping[Stage, Dose], final: Dose) -> Ledger:
    """Every goal of the prescription in the doses `before` the final one, in their order, in the final one, and shifted.

    All doses are of the whole course; each may have its own grid. A technique without earlier stages leaves `before` empty.
    """
    goals = prescription.goals
    doses: dict[Stage, Dose] = {**before, "final": final}
    stages = {stage: judge_goals(goals, structures, dose, prescription) for stage, dose in doses.items()}
    shifted = {towards: _judged_shifted(prescription, structures, final, towards) for towards in DIRECTIONS_XYZ}
    rows = []
    for i, goal in enumerate(goals):
        values = tuple(StageValue(stage, v) for stage, results in stages.items() if (v := results[i].value) is not None)
        rows.append(LedgerRow(goal, values, _worst({towards: results[i] for towards, results in shifted.items()})))
    return Ledger(tuple(rows), SHIFT_MM)


def _judged_shifted(
    prescription: Prescription, structures: StructureSet, final: Dose, towards: Towards
) -> tuple[GoalResult, ...]:
    x, y, z = DIRECTIONS_XYZ[towards]
    shift = (SHIFT_MM * x, SHIFT_MM * y, SHIFT_MM * z)
    wanted = {g.structure for g in prescription.goals}
    doses = {s.name: dose_when_shifted(final, s.mask, structures.grid, shift) for s in structures if s.name in wanted}
    return judged(prescription.goals, doses, structures.grid.voxel_cc, prescription)


def _worst(results: Mapping[Towards, GoalResult]) -> WorstShift | None:
    """The worst of the shifts; the first of equals."""
    found: WorstShift | None = None
    for towards, result in results.items():
        if result.value is None or result.met is None:
            continue
        sign = 1.0 if result.goal.sense == "<=" else -1.0
        if found is None or sign * result.value > sign * found.value:
            found = WorstShift(towards, result.value, result.met)
    return found


def dose_when_shifted(dose: Dose, mask: NDArray[np.bool_], grid: Grid, shift_xyz_mm: Float3) -> NDArray[np.float32]:
    """Dose of a mask's voxels when the patient lies `shift_xyz_mm` off and the dose stays where it is. Returns (n,) Gy.

    Tissue at p receives what the plan gives at p + shift: the static dose cloud. Densities do not move with it, so air that
    tissue moves into has the dose of air. A voxel outside the dose grid counts as zero, shifted or not, as in the final
    dose; one inside that the shift takes out keeps the dose of the grid's edge.
    """
    low, high = dose.grid.bounds_mm()
    axes = (grid.z_mm(), grid.y_mm(), grid.x_mm())
    inside = [(c >= low[2 - axis]) & (c <= high[2 - axis]) for axis, c in enumerate(axes)]
    known = mask & inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
    voxels = structure_dose(_moved(dose, shift_xyz_mm), known, grid)
    return np.concatenate([voxels, np.zeros(int(mask.sum()) - len(voxels), dtype=np.float32)])


def _moved(dose: Dose, shift_xyz_mm: Float3) -> Dose:
    """The dose as the shifted patient sees it: its grid stands the other way off and goes on at the dose of its edge."""
    grid = dose.grid
    more = [math.ceil(abs(s) / spacing) for s, spacing in zip(shift_xyz_mm[::-1], grid.spacing_zyx_mm, strict=True)]
    values = np.pad(dose.dose_gy, [(n, n) for n in more], mode="edge")
    corner = grid.to_point_mm(-np.array(more, dtype=np.float64)) - np.array(shift_xyz_mm)
    nz, ny, nx = values.shape
    moved = replace(grid, shape_zyx=(nz, ny, nx), origin_xyz_mm=(float(corner[0]), float(corner[1]), float(corner[2])))
    return Dose(moved, values)
