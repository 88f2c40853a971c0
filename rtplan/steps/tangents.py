"""Tangents of the breast: angles and isocentre from the patient's own geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.grid import Float3, Grid
from rtplan.domain.prescription import Prescription, mirrored_deg
from rtplan.domain.structures import StructureSet
from rtplan.errors import CaseRejected

Points = NDArray[np.float64]

MEDIAL_ANGLES_DEG = tuple(range(285, 336))  # tried for the left; sources name 300 to 310 as usual

WITHOUT_GOAL_SHARE = 0.1  # of an organ that the protocol lists without a goal on mean or volume: a choice of this project
HOLDS_TARGET_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Tangents:
    """Medial and lateral gantry angle, exactly opposed, around an isocentre on their common posterior edge."""

    gantry_angles_deg: tuple[float, float]
    isocentre_xyz_mm: Float3


def tangents(target: NDArray[np.bool_], prescription: Prescription, structures: StructureSet) -> Tangents:
    """The pair of opposed half beams whose common posterior plane is kindest to the organs in front of it.

    The plane is parallel to the body's axis and lies `target_margin_mm` behind the target. What lies of an organ in front of
    it, over the target's slices, is compared with what the organ's goals allow (`_allowed_share`). Of all medial angles the
    one is taken whose worst organ is best. The isocentre lies on the plane, in the middle of the body's chord at the
    target's middle slice: both beams close one jaw at it, so that neither diverges into the lung. LPS mm, to 1 mm.
    Raises CaseRejected SS_ORGAN_MISSING without an organ to spare, ISO when the edge misses the body.
    """
    if prescription.side is None:
        raise ValueError("tangents need the target's side")
    grid = structures.grid
    organs = _organs(target, prescription, structures)
    if not organs:
        raise CaseRejected("SS_ORGAN_MISSING", "no organ at risk beside the target", "the lung at least", "contour it")
    at_target = _points_xy(target, grid)
    margin_mm = prescription.protocol.target_margin_mm
    best: tuple[float, float, float] | None = None
    for angle in MEDIAL_ANGLES_DEG:
        medial_deg = float(angle) if prescription.side == "left" else mirrored_deg(float(angle))
        outward = outward_xy(medial_deg)
        edge_mm = float((at_target @ outward).min()) - margin_mm
        worst = max(float((points @ outward > edge_mm).sum()) / allowed for points, allowed in organs)
        if best is None or worst < best[0]:
            best = worst, medial_deg, edge_mm
    assert best is not None
    _, medial_deg, edge_mm = best
    iso = _mid_chord_mm(target, structures, medial_deg, edge_mm)
    return Tangents((medial_deg, (medial_deg + 180.0) % 360.0), iso)


def outward_xy(gantry_deg: float) -> Points:
    """Unit vector (x, y) across a tangential beam, towards the front of the patient."""
    across = np.array([np.cos(np.radians(gantry_deg)), np.sin(np.radians(gantry_deg))])
    return across if across[1] < 0 else -across


def _organs(target: NDArray[np.bool_], prescription: Prescription, structures: StructureSet) -> list[tuple[Points, float]]:
    """For each organ of the protocol its points (n, 2) in the target's slices, and how many voxels may be in the fields.

    An organ that holds a good part of the target, such as the breast itself, is none to spare.
    """
    beyond = np.flatnonzero(~np.any(target, axis=(1, 2)))
    found = []
    for organ in prescription.protocol.organs:
        if organ.name not in structures:
            continue
        mask = structures[organ.name].mask
        if not mask.any() or int((mask & target).sum()) > HOLDS_TARGET_SHARE * int(target.sum()):
            continue
        near = mask.copy()
        near[beyond] = False
        found.append((_points_xy(near, structures.grid), _allowed_share(organ.name, prescription) * float(mask.sum())))
    return found


def _allowed_share(organ: str, prescription: Prescription) -> float:
    """The share of an organ that its goals let the fields cover: the tightest of the mean over the prescription and the
    percentages at a dose."""
    goals = [g for g in prescription.goals if g.structure == organ and g.sense == "<="]
    shares = [g.limit / prescription.targets[0].dose_gy for g in goals if g.metric.kind == "mean_gy"]
    shares += [g.limit / 100.0 for g in goals if g.metric.kind == "percent_at_gy"]
    return max(min(shares, default=WITHOUT_GOAL_SHARE), 1e-6)


def _points_xy(mask: NDArray[np.bool_], grid: Grid) -> Points:
    """Voxel centres (n, 2) mm across the body."""
    return grid.to_point_mm(np.argwhere(mask).astype(np.float64))[:, :2]


def _mid_chord_mm(target: NDArray[np.bool_], structures: StructureSet, medial_deg: float, edge_mm: float) -> Float3:
    """Middle of the body's chord along the posterior edge that holds the target, in the target's middle slice."""
    grid = structures.grid
    slices = np.flatnonzero(target.any(axis=(1, 2)))
    middle = (slices[0] + slices[-1]) // 2
    outward = outward_xy(medial_deg)
    along = np.array([np.sin(np.radians(medial_deg)), -np.cos(np.radians(medial_deg))])
    step_mm = min(grid.spacing_zyx_mm[1:]) / 2.0
    t_mm = np.arange(-600.0, 600.0, step_mm)
    xy = edge_mm * outward + t_mm[:, None] * along
    column = np.rint((xy[:, 0] - grid.origin_xyz_mm[0]) / grid.spacing_zyx_mm[2]).astype(int)
    row = np.rint((xy[:, 1] - grid.origin_xyz_mm[1]) / grid.spacing_zyx_mm[1]).astype(int)
    on_grid = (column >= 0) & (column < grid.shape_zyx[2]) & (row >= 0) & (row < grid.shape_zyx[1])
    inside = np.zeros(len(t_mm), dtype=bool)
    inside[on_grid] = structures.external.mask[middle, row[on_grid], column[on_grid]]
    if not inside.any():
        raise CaseRejected("ISO", "the tangents' posterior edge misses the body", "a target in the body", "check the target")
    held = _run_around(inside, int(np.abs(t_mm - float((_points_xy(target, grid) @ along).mean())).argmin()))
    point = np.round(xy[held].mean(axis=0))
    return float(point[0]), float(point[1]), float(np.round(grid.z_mm()[slices[[0, -1]]].mean()))


def _run_around(inside: NDArray[np.bool_], at: int) -> NDArray[np.int64]:
    """Indices of the run of true values nearest to an index, (n,)."""
    true = np.flatnonzero(inside)
    runs = np.split(true, np.flatnonzero(np.diff(true) > 1) + 1)
    return min(runs, key=lambda run: int(np.abs(run - at).min()))
