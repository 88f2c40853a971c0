"""From a CT image to what the dose engine computes on: the body, its densities, and the dose grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.grid import Grid, grid_over
from rtplan.domain.image import CtImage, DensityImage, HuCalibration
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected, LibraryInvalid
from rtplan.steps.resample import averaged
from segmentation.contract import CtVolume
from segmentation.models import body_threshold

ABOVE_TABLE_CC = 0.1


def body_mask(ct: CtImage) -> NDArray[np.bool_]:
    """External of the patient without the couch, (z, y, x). Raises CaseRejected BODY_NOT_FOUND."""
    masks = body_threshold.PLUGIN.segment(CtVolume.standard(ct.hu, ct.grid.spacing_zyx_mm)).masks
    if "External" not in masks:
        raise CaseRejected("BODY_NOT_FOUND", "no voxel of the CT is as dense as tissue", "a patient", "check the CT series")
    return masks["External"]


def body_findings(ct: CtImage, body: NDArray[np.bool_]) -> tuple[Finding, ...]:
    """FOV_TRUNCATED when the body reaches the lateral, anterior or posterior border of the images.

    Superiorly and inferiorly a body normally goes on beyond the scan.
    """
    touching = body[:, :, 0].any(1) | body[:, :, -1].any(1) | body[:, 0].any(1) | body[:, -1].any(1)
    if not touching.any():
        return ()
    z = ct.grid.z_mm()[touching]
    where = f"{touching.sum()} slices (z = {z.min():g} to {z.max():g} mm)"
    message = f"the body reaches the lateral border of the images in {where}; tissue beyond it is unknown"
    return (Finding("FOV_TRUNCATED", "flag", message),)


def densities(ct: CtImage, body: NDArray[np.bool_], calibration: HuCalibration) -> DensityImage:
    """Mass and electron density on the CT grid, linear in HU between the points of the calibration.

    Zero outside the body; beyond either end of the table the end's density holds (see `density_findings`), so air inside
    the body is never lighter than the table's first point. Raises LibraryInvalid CALIBRATION_INVALID.
    """
    _require_rising(calibration)
    # int16 HU have 65536 values: a table look-up is exact and ten times faster than interpolation per voxel.
    every_hu = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.float64)
    index = np.where(body, ct.hu, np.int16(0)).view(np.uint16)

    def looked_up(points: tuple[float, ...]) -> NDArray[np.float32]:
        table = np.interp(every_hu, calibration.hu, points).astype(np.float32)
        return np.where(body, table[index], np.float32(0))

    return DensityImage(ct.grid, looked_up(calibration.mass_density_g_cm3), looked_up(calibration.electron_density_rel))


def density_findings(ct: CtImage, body: NDArray[np.bool_], calibration: HuCalibration) -> tuple[Finding, ...]:
    """HU_ABOVE_TABLE when 0.1 cc or more of the body are denser than the calibration's last point."""
    above_cc = float(np.sum(body & (ct.hu > calibration.hu[-1]))) * ct.grid.voxel_cc
    if above_cc < ABOVE_TABLE_CC:
        return ()
    message = (
        f"{above_cc:.1f} cc of the body lie above {calibration.hu[-1]:g} HU, the end of calibration "
        f"{calibration.calibration_id}; they are taken as {calibration.mass_density_g_cm3[-1]:g} g/cm³"
    )
    return (Finding("HU_ABOVE_TABLE", "flag", message),)


def calibration_finding(ct: CtImage, calibration: HuCalibration) -> Finding:
    """That the densities come from a calibration which nobody measured on this scanner."""
    scanner = f"{ct.series.manufacturer} {ct.series.model_name}"
    message = f"densities by the generic calibration {calibration.calibration_id}, which was not measured on {scanner}"
    return Finding("HU_CALIBRATION_GENERIC", "flag", message.rstrip())


def _require_rising(calibration: HuCalibration) -> None:
    rising = all(
        np.all(np.diff(v) > 0) for v in (calibration.hu, calibration.mass_density_g_cm3, calibration.electron_density_rel)
    )
    if (
        len(calibration.hu) < 2
        or not rising
        or min(calibration.mass_density_g_cm3[0], calibration.electron_density_rel[0]) < 0
    ):
        raise LibraryInvalid(
            "CALIBRATION_INVALID",
            f"calibration {calibration.calibration_id} does not rise from point to point",
            "at least two points, HU and densities strictly rising",
            "correct the calibration file",
        )


def dose_grid(ct: CtImage, body: NDArray[np.bool_], spacing_mm: float) -> Grid:
    """Isotropic grid over the box of the body and one voxel around it."""
    if not body.any():
        raise CaseRejected("BODY_NOT_FOUND", "the body is empty", "a patient", "check the CT series")
    start, stop = zip(*(_extent(body, axis) for axis in range(3)), strict=True)
    low, high = ct.grid.cropped(start, stop).bounds_mm()
    return grid_over(
        (low[0] - spacing_mm, low[1] - spacing_mm, low[2] - spacing_mm),
        (high[0] + spacing_mm, high[1] + spacing_mm, high[2] + spacing_mm),
        spacing_mm,
    )


def _extent(body: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    others = tuple(a for a in range(3) if a != axis)
    used = np.flatnonzero(body.any(axis=others))
    return int(used[0]), int(used[-1]) + 1


def resample_density(density: DensityImage, grid: Grid) -> DensityImage:
    """Volume average of densities over the voxels of another grid, coarser or finer; nothing beyond the source.

    ρ'(v) = Σ_u ρ(u) |u ∩ v| / |v|, which is separable for axis-aligned grids. Mass is conserved to 1e-5 where the grid
    covers the body.
    """
    mass = averaged(density.mass_density_g_cm3, density.grid, grid)
    electron = averaged(density.electron_density_rel, density.grid, grid)
    return DensityImage(grid, mass, electron)
