"""Reads back what was written and compares it with what was meant (I-26 to I-28, I-43)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtplan.checks import run_delivery_checks
from rtplan.dicom.read_rtdose import read_rtdose
from rtplan.dicom.read_rtplan import read_rtplan
from rtplan.dicom.read_rtstruct import read_rtstruct
from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.contours import rasterise
from rtplan.domain.dose import Dose
from rtplan.domain.image import CtImage, DensityImage
from rtplan.domain.machine import Machine
from rtplan.domain.plan import ControlPoint, DeliverablePlan
from rtplan.errors import SafetyStop
from rtplan.steps.verify import structure_dose

_MU_TOLERANCE_MU = 1e-3
_POSITION_TOLERANCE_MM = 1e-4
_ANGLE_TOLERANCE_DEG = 1e-4
_DVH_TOLERANCE_FRACTION = 0.005  # of the highest prescribed dose
_LARGEST_16_BIT = 65535
_COMPARED_KINDS = ("PTV", "CTV", "GTV", "ORGAN", "AVOIDANCE")
_PERCENTILES = (1, 2, 5, 50, 98, 99)


def confirm_written(rtstruct: Path, rtplan: Path, rtdose: Path, context: PlanContext, ct: CtImage) -> None:
    """Raise SafetyStop when a written file differs from the plan, the dose or the histograms that it should hold.

    Codes: WRITTEN_PLAN, WRITTEN_DOSE, WRITTEN_DVH, WRITTEN_LIMITS.
    """
    machine = context.machine
    found = read_rtplan(rtplan, {machine.machine_id: machine}).plan
    difference = plan_difference(found, context.plan)
    if difference:
        raise SafetyStop("WRITTEN_PLAN", f"{rtplan.name}: {difference}", "the plan as it was made")
    _refuse_undeliverable(Delivery(found, machine, context.density), rtplan.name)
    dose = read_rtdose(rtdose)
    _confirm_dose(dose, context.dose, rtdose.name)
    _confirm_histograms(doses_from_files(rtdose, rtstruct, ct), context, rtstruct.name)


def confirm_deliverable(rtplan: Path, machine: Machine, density: DensityImage) -> DeliverablePlan:
    """The plan as a written file holds it, once it has passed every check of a delivery.

    What a machine will be given is the file, not what it was made from. Raises SafetyStop WRITTEN_LIMITS with every limit
    that the file breaks; CaseRejected as `read_rtplan`.
    """
    plan = read_rtplan(rtplan, {machine.machine_id: machine}).plan
    _refuse_undeliverable(Delivery(plan, machine, density), rtplan.name)
    return plan


def _refuse_undeliverable(delivery: Delivery, name: str) -> None:
    failed = [r for r in run_delivery_checks(delivery) if not r.passed]
    if failed:
        broken = "; ".join(f"{r.check_id}: {r.message}" for r in failed)
        raise SafetyStop("WRITTEN_LIMITS", f"{name}: {broken}", f"what {delivery.machine.machine_id} can deliver")


def doses_from_files(rtdose: Path, rtstruct: Path, ct: CtImage) -> dict[str, NDArray[np.float32]]:
    """Voxel doses (n,) Gy of every region of a written structure set in a written dose, by name, empty regions left out."""
    dose = read_rtdose(rtdose)
    masks = {roi.name: rasterise(roi.contours, ct.grid) for roi in read_rtstruct(rtstruct, ct).rois}
    return {name: structure_dose(dose, mask, ct.grid) for name, mask in masks.items() if mask.any()}


def plan_difference(found: DeliverablePlan, meant: DeliverablePlan) -> str:
    """The first difference between two plans in words, empty when they agree within 1e-3 MU, 1e-4 mm and 1e-4 degrees."""
    if (found.fractions, found.energy_id, len(found.beams)) != (meant.fractions, meant.energy_id, len(meant.beams)):
        return f"{found.fractions} fractions, {found.energy_id}, {len(found.beams)} beams"
    for a, b in zip(found.beams, meant.beams, strict=True):
        where = f"beam {b.number}"
        if a.number != b.number or len(a.control_points) != len(b.control_points):
            return f"{where}: number {a.number}, {len(a.control_points)} control points"
        shift = np.abs(np.array(a.beam.isocentre_xyz_mm) - np.array(b.beam.isocentre_xyz_mm)).max()
        angles = (
            (a.beam.collimator_angle_deg, b.beam.collimator_angle_deg),
            (a.beam.couch_angle_deg, b.beam.couch_angle_deg),
        )
        if a.rotation != b.rotation:
            return f"{where}: the gantry turns {a.rotation}, not {b.rotation}"
        if shift > _POSITION_TOLERANCE_MM or any(_turned_deg(x, y) > _ANGLE_TOLERANCE_DEG for x, y in angles):
            return f"{where}: isocentre or fixed angles differ"
        for index, (p, q) in enumerate(zip(a.control_points, b.control_points, strict=True)):
            if not _same_point(p, q):
                return f"{where}, control point {index} differs"
    return ""


def _turned_deg(a_deg: float, b_deg: float) -> float:
    """Smallest turn between two angles."""
    return abs((a_deg - b_deg + 180.0) % 360.0 - 180.0)


def _same_point(p: ControlPoint, q: ControlPoint) -> bool:
    """Whether two control points agree within the tolerances."""
    a, b = p.aperture, q.aperture
    jaws = np.array(
        [a.jaw_x1_mm - b.jaw_x1_mm, a.jaw_x2_mm - b.jaw_x2_mm, a.jaw_y1_mm - b.jaw_y1_mm, a.jaw_y2_mm - b.jaw_y2_mm]
    )
    return bool(
        abs(p.cumulative_mu - q.cumulative_mu) <= _MU_TOLERANCE_MU
        and _turned_deg(p.gantry_angle_deg, q.gantry_angle_deg) <= _ANGLE_TOLERANCE_DEG
        and a.leaf_x1_mm.shape == b.leaf_x1_mm.shape
        and np.abs(a.leaf_x1_mm - b.leaf_x1_mm).max() <= _POSITION_TOLERANCE_MM
        and np.abs(a.leaf_x2_mm - b.leaf_x2_mm).max() <= _POSITION_TOLERANCE_MM
        and np.abs(jaws).max() <= _POSITION_TOLERANCE_MM
    )


def _confirm_dose(found: Dose, meant: Dose, name: str) -> None:
    """Same grid, and every voxel within one quantum."""
    far = np.abs(np.array(found.grid.affine) - meant.grid.affine).max()
    if found.grid.shape_zyx != meant.grid.shape_zyx or far > _POSITION_TOLERANCE_MM:
        raise SafetyStop("WRITTEN_DOSE", f"{name}: another grid", "the grid of the calculated dose")
    quantum_gy = float(meant.dose_gy.max()) / _LARGEST_16_BIT
    worst_gy = float(np.abs(found.dose_gy - meant.dose_gy).max())
    if worst_gy > quantum_gy:
        raise SafetyStop("WRITTEN_DOSE", f"{name}: a voxel differs by {worst_gy:g} Gy", f"at most {quantum_gy:g} Gy")


def _confirm_histograms(written: Mapping[str, NDArray[np.float32]], context: PlanContext, name: str) -> None:
    """Mean and percentiles of every target's and organ's dose within 0.5 % of the highest prescription."""
    allowed_gy = _DVH_TOLERANCE_FRACTION * context.prescription.targets[0].dose_gy
    for structure in context.structures:
        if structure.kind not in _COMPARED_KINDS or not structure.mask.any():
            continue
        found = written.get(structure.name)
        if found is None:
            raise SafetyStop("WRITTEN_DVH", f"{name} lacks {structure.name}", "every structure that was planned on")
        meant = structure_dose(context.dose, structure.mask, context.structures.grid)
        worst_gy = float(np.abs(_figures(found) - _figures(meant)).max())
        if worst_gy > allowed_gy:
            raise SafetyStop("WRITTEN_DVH", f"{name}: {structure.name} differs by {worst_gy:.3f} Gy", f"{allowed_gy:g} Gy")


def _figures(voxels_gy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Percentiles and mean of voxel doses, Gy."""
    return np.append(np.percentile(voxels_gy.astype(np.float64), _PERCENTILES), voxels_gy.mean(dtype=np.float64))
