"""Both doses of a patient, ours and the data set's reference, by the data set's own criteria on the same voxels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.openkbp.records import Criterion, Distance, Judged, PlanFigures
from rtplan.dicom.read_rtdose import read_rtdose
from rtplan.domain.dose import Dose, dose_at_index
from rtplan.domain.grid import Grid

PARTS = 32  # in which the dose is interpolated, so that memory stays small
TARGETS = ("PTV56", "PTV63", "PTV70")
FIGURES = (
    *(f"{target}+.{metric}" for target in TARGETS[::-1] for metric in ("D99", "D95", "D1")),
    *("HI70", "CI95_all", "CI95_70", "Dmax"),
)
BODY_MEAN = "body.Dmean"
Floats = NDArray[np.float64]
Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class PatientVolumes:
    """A patient's npz: grid, CT (z, y, x) HU, masks with disjoint targets, and the reference dose (z, y, x) Gy."""

    grid: Grid
    hu: NDArray[np.int16]
    masks: Masks
    reference_gy: Floats

    @property
    def nested(self) -> Masks:
        """The masks with each target holding the higher ones."""
        nested = dict(self.masks)
        for index, name in enumerate(TARGETS):
            nested[name] = np.logical_or.reduce([self.masks[other] for other in TARGETS[index:]])
        return nested


def load_patient(criteria: ModuleType, path: Path) -> PatientVolumes:
    """The npz by the data set's own loader."""
    npz, masks, reference = criteria.load(str(path))
    dz, dy, dx = (float(v) for v in npz["spacing"])
    x, y, z = (float(v) for v in npz["origin"])
    hu = npz["ct"]
    return PatientVolumes(Grid(hu.shape, (dz, dy, dx), (x, y, z)), hu, masks, reference)


def on_patient_grid(dose: Dose, grid: Grid) -> tuple[Floats, NDArray[np.bool_]]:
    """The plan's dose at the centres of the patient's voxels (z, y, x) Gy, and which of them lie in the dose grid."""
    index = np.indices(grid.shape_zyx).reshape(3, -1).T.astype(np.float64)
    values, inside = [], []
    for part in np.array_split(index, PARTS):
        at = dose.grid.to_index(grid.to_point_mm(part))
        values.append(dose_at_index(dose, at))
        inside.append(np.all((at >= -0.5) & (at <= np.array(dose.grid.shape_zyx) - 0.5), axis=1))
    shape = grid.shape_zyx
    return np.concatenate(values).reshape(shape).astype(np.float64), np.concatenate(inside).reshape(shape)


def judged(criteria: ModuleType, patient: PatientVolumes, dose_gy: Floats, covered: NDArray[np.bool_] | None) -> Judged:
    """A dose by criteria and figures. The body's mean is over its `covered` voxels, where rtplan has a dose; None: no mean.

    The criteria take every voxel of their structure: what a dose grid leaves out counts as zero.
    """
    metrics = criteria.metrics(patient.masks, dose_gy, np.array(patient.grid.spacing_zyx_mm))
    verdicts = {name: Criterion(float(value), bool(met)) for name, (value, met) in criteria.criteria(metrics).items()}
    figures = {name: float(metrics[name]) for name in FIGURES if name in metrics}
    if covered is not None:
        figures[BODY_MEAN] = float(dose_gy[patient.masks["External"] & covered].mean())
    return Judged(verdicts, figures)


def plan_dose(folder: Path, grid: Grid) -> tuple[Floats, NDArray[np.bool_]]:
    """Dose of the files that a plan left in `folder`, as `on_patient_grid`."""
    return on_patient_grid(read_rtdose(folder / "RTDOSE.dcm"), grid)


def plan_report(folder: Path) -> dict[str, Any]:
    """report.json of a plan."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def plan_figures(report: dict[str, Any]) -> PlanFigures:
    """What the report says of the plan."""
    return PlanFigures(
        mu=float(report["plan"]["mu_per_fraction"]),
        segments=int(report["plan"]["segments"]),
        beams=int(report["plan"]["beams"]),
        goals_met=int(report["goals_met"]),
        goals_judged=int(report["goals_judged"]),
        steps_s={step["step"]: float(step["seconds"]) for step in report["timings_s"]},
        distances=distances_to_bounds(report["goals"]),
    )


def distances_to_bounds(goals: list[dict[str, Any]]) -> tuple[Distance, ...] | None:
    """Distance of each goal's value from its certificate's `bound`; None where no goal carries one.

    Below 0 the value is better than what was proven impossible: the certificate is wrong.
    """
    found = []
    for goal in goals:
        value, bound = goal.get("value"), goal.get("bound")
        if value is not None and bound is not None:
            distance = value - bound if goal["sense"] == "<=" else bound - value
            name = f"{goal['structure']} {goal['metric']} {goal['sense']} {goal['limit']:g}"
            found.append(Distance(name, goal["unit"], float(distance)))
    return tuple(found) or None
