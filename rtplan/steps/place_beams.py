"""Where the beams stand: isocentre, static fields, arcs and named arrangements; and which beamlets each beam has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtplan.domain.beams import Beam, beam_frame
from rtplan.domain.grid import Float3, Grid
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import Machine
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.prescription import Arc, Prescription, Protocol
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected, PlanningFailed
from rtplan.steps.tangents import tangents

PIXEL_MM = 1.0  # resolution of the target's projection


def target_union(prescription: Prescription, structures: StructureSet) -> NDArray[np.bool_]:
    """Voxels of any prescribed target, (z, y, x) on the structures' grid."""
    union = np.zeros(structures.grid.shape_zyx, dtype=bool)
    for target in prescription.targets:
        union |= structures[target.name].mask
    return union


def isocentre_mm(target: NDArray[np.bool_], body: NDArray[np.bool_], grid: Grid) -> Float3:
    """Centre of the targets' bounding box, rounded to 1 mm, so that jaws and leaves reach both ends alike.

    LPS mm. Raises CaseRejected ISO when that point lies outside the body: a beam axis in air cannot be set up or checked.
    """
    index = np.argwhere(target)
    point = np.round(grid.to_point_mm((index.min(axis=0) + index.max(axis=0)) / 2.0))
    iso = float(point[0]), float(point[1]), float(point[2])
    _require_inside(iso, body, grid)
    return iso


def _require_inside(iso: Float3, body: NDArray[np.bool_], grid: Grid) -> None:
    nearest = tuple(np.clip(np.rint(grid.to_index(np.array(iso))).astype(int), 0, np.array(grid.shape_zyx) - 1))
    if not body[nearest]:
        raise CaseRejected(
            "ISO",
            f"the isocentre {list(iso)} mm, from the targets' extent, lies outside the body",
            "one target region inside the body: a plan has one isocentre",
            "plan separate targets one by one",
        )


def place_beams(prescription: Prescription, structures: StructureSet, machine: Machine) -> tuple[Beam, ...]:
    """The protocol's static beams around one isocentre. Angles are IEC 61217 degrees, couch 0.

    Tangents choose angles and isocentre themselves (`steps.tangents`); all others stand around the targets' centre.
    Raises CaseRejected ISO; PlanningFailed BEAMS_MISSING when the protocol has arcs only or is to be planned with them.
    """
    if prescription.protocol.technique == "vmat":
        raise PlanningFailed("BEAMS_MISSING", "static beams for an arc technique", "arcs")
    arrangement = prescription.protocol.beams.arrangement
    angles: tuple[float, ...]
    if arrangement is not None and arrangement.kind == "tangents":
        found = tangents(target_union(prescription, structures), prescription, structures)
        angles, iso = found.gantry_angles_deg, found.isocentre_xyz_mm
        _require_inside(iso, structures.external.mask, structures.grid)
    else:
        angles, iso = static_angles_deg(prescription.protocol), _isocentre(prescription, structures)
    if not angles:
        raise PlanningFailed("BEAMS_MISSING", f"{prescription.protocol.protocol_id} has no static beams", "gantry angles")
    collimator = prescription.protocol.beams.collimator_angle_deg
    return tuple(_beam(f"G{angle:03.0f}", angle, collimator, iso, machine) for angle in angles)


def static_angles_deg(protocol: Protocol) -> tuple[float, ...]:
    """Gantry angles of the protocol's static fields that do not depend on the patient, IEC 61217 degrees."""
    arrangement = protocol.beams.arrangement
    if arrangement is None:
        return protocol.beams.gantry_angles_deg
    match arrangement.kind:
        case "opposed_laterals":
            tilt_deg = arrangement.posterior_tilt_deg or 0.0
            return (90.0 + tilt_deg, 270.0 - tilt_deg)
        case "ap_pa":
            return (0.0, 180.0)
        case "pa":
            return (180.0,)
        case "tangents":
            raise ValueError("the angles of tangents come from the patient")


@dataclass(frozen=True, slots=True, eq=False)
class ArcBeams:
    """An arc of the protocol as beams around the targets' centre: one at its start, and one for every few intervals between
    its control angles `angles_deg` (n_intervals + 1,), at the middle of these, in order of delivery."""

    arc: Arc
    start: Beam
    angles_deg: NDArray[np.float64]
    middles: tuple[Beam, ...]


def place_arcs(
    prescription: Prescription, structures: StructureSet, machine: Machine, *, spacing_deg: float, intervals_per_beam: int
) -> tuple[ArcBeams, ...]:
    """The protocol's arcs, with beams at most `spacing_deg` apart that stand for `intervals_per_beam` equal intervals each.
    All beams' names are unique in the plan.

    Raises CaseRejected ISO; PlanningFailed BEAMS_MISSING when the protocol has no arcs.
    """
    arcs = prescription.protocol.beams.arcs
    if not arcs:
        raise PlanningFailed("BEAMS_MISSING", f"{prescription.protocol.protocol_id} has no arcs", "one to three arcs")
    iso = _isocentre(prescription, structures)
    found = []
    for number, arc in enumerate(arcs, start=1):
        count, turned = len(arc_angles_deg(arc, spacing_deg)) - 1, arc.collimator_angle_deg
        angles = arc_angles_deg(arc, arc.length_deg / (count * intervals_per_beam))
        half = arc.length_deg / count / 2
        middles = wrapped_deg(angles[:-1:intervals_per_beam] + (half if arc.direction == "CW" else -half))
        found.append(
            ArcBeams(
                arc,
                _beam(f"ARC{number}", float(angles[0]), turned, iso, machine),
                angles,
                tuple(_beam(f"A{number} G{angle:05.1f}", float(angle), turned, iso, machine) for angle in middles),
            )
        )
    return tuple(found)


def arc_angles_deg(arc: Arc, spacing_deg: float) -> NDArray[np.float64]:
    """Gantry angles along an arc (n,), IEC degrees in [0, 360): both ends, and equal steps of at most `spacing_deg`."""
    steps = max(1, int(np.ceil(arc.length_deg / spacing_deg - 1e-9)))
    turned = np.linspace(0.0, arc.length_deg, steps + 1)
    return wrapped_deg(arc.start_deg + (turned if arc.direction == "CW" else -turned))


def wrapped_deg(angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles in [0, 360): what rounding leaves below 0 is 0, not 360."""
    angles: NDArray[np.float64] = np.mod(np.round(angles_deg, 9), 360.0)
    return angles


def _isocentre(prescription: Prescription, structures: StructureSet) -> Float3:
    return isocentre_mm(target_union(prescription, structures), structures.external.mask, structures.grid)


def _beam(name: str, gantry_deg: float, collimator_deg: float, iso: Float3, machine: Machine) -> Beam:
    return Beam(name, gantry_deg, collimator_deg, 0.0, iso, machine.sad_mm)


def place_beamlets(
    beams: tuple[Beam, ...], target: NDArray[np.bool_], grid: Grid, machine: Machine, protocol: Protocol
) -> Beamlets:
    """Beamlets that cover the targets' projection and the protocol's margin, row by row of leaf pairs.

    Columns are `protocol.beamlet_mm` wide on a raster through the axis. A row is contiguous from its first to its last
    beamlet, because a leaf pair opens one interval and whatever lies inside it is irradiated.
    Raises CaseRejected TARGET_TOO_LARGE when the projection exceeds what leaves and jaws can open; PlanningFailed
    FIELD_TOO_SMALL when no beam's whole opening reaches the machine's smallest segment.
    """
    parts: list[tuple[int, int, float, float, float, float]] = []
    points = surface_points_mm(target, grid)
    width = protocol.beamlet_mm
    bounds = machine.mlc.leaf_boundaries_mm
    reach = min(machine.mlc.max_position_mm, -machine.jaws.x1_range_mm[0], machine.jaws.x2_range_mm[1])
    for index, beam in enumerate(beams):
        bitmap, x0, y0 = projection(points, beam, protocol.target_margin_mm, max(grid.spacing_zyx_mm))
        rows_mm = y0 + (np.arange(bitmap.shape[0]) + 0.5) * PIXEL_MM
        if rows_mm[bitmap.any(axis=1)].min() < bounds[0] or rows_mm[bitmap.any(axis=1)].max() > bounds[-1]:
            raise too_large(beam)
        for pair in range(machine.mlc.n_pairs):
            inside = (rows_mm > bounds[pair]) & (rows_mm < bounds[pair + 1])
            hit = np.flatnonzero(bitmap[inside].any(axis=0))
            if not hit.size:
                continue
            first = int(np.floor((x0 + hit[0] * PIXEL_MM) / width + 1e-9))
            last = int(np.ceil((x0 + (hit[-1] + 1) * PIXEL_MM) / width - 1e-9))
            if first * width < -reach or last * width > reach:
                raise too_large(beam)
            parts += [(index, pair, c * width, (c + 1) * width, bounds[pair], bounds[pair + 1]) for c in range(first, last)]
    beam_index, leaf_pair, *edges = (np.array(column) for column in zip(*parts, strict=True))
    x1, x2, y1, y2 = edges
    _require_an_opening(np.bincount(beam_index, (x2 - x1) * (y2 - y1)) / 100.0, machine)
    return Beamlets(beams, beam_index, leaf_pair, x1, x2, y1, y2)


def _require_an_opening(area_cm2: NDArray[np.float64], machine: Machine) -> None:
    """Refuse before the long calculation what could have no segment after it; `area_cm2` (n_beams,) with all beamlets."""
    least = machine.min_segment_area_cm2
    if area_cm2.max() < least:
        found = f"the target and its margin open {area_cm2.max():.2f} cm² at most"
        raise PlanningFailed("FIELD_TOO_SMALL", found, f"at least {least:g} cm²", "check that the whole target is drawn")


def too_large(beam: Beam) -> CaseRejected:
    """The refusal of a target that one isocentre cannot cover."""
    return CaseRejected(
        "TARGET_TOO_LARGE",
        f"the target's projection at gantry {beam.gantry_angle_deg:g} deg exceeds the collimator's opening",
        "a target that one isocentre can cover",
        "split the target or use another technique",
    )


def surface_points_mm(target: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Centres of the voxels at a volume's surface, (n, 3) LPS mm: all that its projection needs."""
    shell = target & ~ndimage.binary_erosion(target)
    return grid.to_point_mm(np.argwhere(shell).astype(np.float64))


def projection(
    points_mm: NDArray[np.float64], beam: Beam, margin_mm: float, voxel_mm: float
) -> tuple[NDArray[np.bool_], float, float]:
    """Bitmap (ny, nx) of the points' projection grown by the margin and half a voxel, and its lower corner in mm."""
    x, y, _ = beam_frame(beam).to_bev(points_mm)
    grow = margin_mm + voxel_mm / 2
    x0, y0 = np.floor(x.min() - grow) - 1.0, np.floor(y.min() - grow) - 1.0
    shape = (int(np.ceil(y.max() + grow - y0)) + 1, int(np.ceil(x.max() + grow - x0)) + 1)
    empty = np.ones(shape, dtype=bool)
    empty[((y - y0) / PIXEL_MM).astype(int), ((x - x0) / PIXEL_MM).astype(int)] = False
    # Only the shell is projected: the filled outline is what the beam must open.
    near = ndimage.distance_transform_edt(empty) * PIXEL_MM <= grow
    return ndimage.binary_fill_holes(near), float(x0), float(y0)


def unused_beams(beams: tuple[Beam, ...], plan: DeliverablePlan) -> tuple[Finding, ...]:
    """A finding for each beam of the protocol that kept no segment and is therefore not in the plan."""
    kept = {b.beam.name for b in plan.beams}
    return tuple(
        Finding("BEAM_UNUSED", "flag", f"beam {beam.name} of the protocol carries no segment and is left out")
        for beam in beams
        if beam.name not in kept
    )
