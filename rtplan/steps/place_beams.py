"""Where the beams stand, and which beamlets each of them has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtplan.domain.beams import Beam, beam_frame
from rtplan.domain.grid import Float3, Grid
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import Machine
from rtplan.domain.prescription import Prescription, Protocol
from rtplan.domain.structures import StructureSet
from rtplan.errors import CaseRejected

_PIXEL_MM = 1.0  # resolution of the target's projection


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
    centre = grid.to_point_mm((index.min(axis=0) + index.max(axis=0)) / 2.0)
    point = np.round(centre)
    nearest = tuple(np.clip(np.rint(grid.to_index(point)).astype(int), 0, np.array(grid.shape_zyx) - 1))
    if not body[nearest]:
        raise CaseRejected(
            "ISO",
            f"the centre of the targets {point.tolist()} mm lies outside the body",
            "one target region inside the body",
            "plan separate targets one by one",
        )
    return float(point[0]), float(point[1]), float(point[2])


def place_beams(prescription: Prescription, structures: StructureSet, machine: Machine) -> tuple[Beam, ...]:
    """The protocol's beams around one isocentre. Angles are IEC 61217 degrees, couch 0."""
    protocol = prescription.protocol
    iso = isocentre_mm(target_union(prescription, structures), structures.external.mask, structures.grid)
    return tuple(
        Beam(
            name=f"G{angle:03.0f}",
            gantry_angle_deg=angle,
            collimator_angle_deg=protocol.beams.collimator_angle_deg,
            couch_angle_deg=0.0,
            isocentre_xyz_mm=iso,
            sad_mm=machine.sad_mm,
        )
        for angle in protocol.beams.gantry_angles_deg
    )


def place_beamlets(
    beams: tuple[Beam, ...], target: NDArray[np.bool_], grid: Grid, machine: Machine, protocol: Protocol
) -> Beamlets:
    """Beamlets that cover the targets' projection and the protocol's margin, row by row of leaf pairs.

    Columns are `protocol.beamlet_mm` wide on a raster through the axis. A row is contiguous from its first to its last
    beamlet, because a leaf pair opens one interval and whatever lies inside it is irradiated.
    Raises CaseRejected TARGET_TOO_LARGE when the projection exceeds what leaves and jaws can open.
    """
    parts: list[tuple[int, int, float, float, float, float]] = []
    points = _surface_points_mm(target, grid)
    width = protocol.beamlet_mm
    bounds = machine.mlc.leaf_boundaries_mm
    reach = min(machine.mlc.max_position_mm, -machine.jaws.x1_range_mm[0], machine.jaws.x2_range_mm[1])
    for index, beam in enumerate(beams):
        bitmap, x0, y0 = _projection(points, beam, protocol.target_margin_mm, max(grid.spacing_zyx_mm))
        rows_mm = y0 + (np.arange(bitmap.shape[0]) + 0.5) * _PIXEL_MM
        if rows_mm[bitmap.any(axis=1)].min() < bounds[0] or rows_mm[bitmap.any(axis=1)].max() > bounds[-1]:
            raise _too_large(beam)
        for pair in range(machine.mlc.n_pairs):
            inside = (rows_mm > bounds[pair]) & (rows_mm < bounds[pair + 1])
            hit = np.flatnonzero(bitmap[inside].any(axis=0))
            if not hit.size:
                continue
            first = int(np.floor((x0 + hit[0] * _PIXEL_MM) / width + 1e-9))
            last = int(np.ceil((x0 + (hit[-1] + 1) * _PIXEL_MM) / width - 1e-9))
            if first * width < -reach or last * width > reach:
                raise _too_large(beam)
            parts += [(index, pair, c * width, (c + 1) * width, bounds[pair], bounds[pair + 1]) for c in range(first, last)]
    beam_index, leaf_pair, *edges = (np.array(column) for column in zip(*parts, strict=True))
    x1, x2, y1, y2 = edges
    return Beamlets(beams, beam_index, leaf_pair, x1, x2, y1, y2)


def _too_large(beam: Beam) -> CaseRejected:
    return CaseRejected(
        "TARGET_TOO_LARGE",
        f"the target's projection at gantry {beam.gantry_angle_deg:g} deg exceeds the collimator's opening",
        "a target that one isocentre can cover",
        "split the target or use another technique",
    )


def _surface_points_mm(target: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    shell = target & ~ndimage.binary_erosion(target)
    return grid.to_point_mm(np.argwhere(shell).astype(np.float64))


def _projection(
    points_mm: NDArray[np.float64], beam: Beam, margin_mm: float, voxel_mm: float
) -> tuple[NDArray[np.bool_], float, float]:
    """Bitmap (ny, nx) of the points' projection grown by the margin and half a voxel, and its lower corner in mm."""
    x, y, _ = beam_frame(beam).to_bev(points_mm)
    grow = margin_mm + voxel_mm / 2
    x0, y0 = np.floor(x.min() - grow) - 1.0, np.floor(y.min() - grow) - 1.0
    shape = (int(np.ceil(y.max() + grow - y0)) + 1, int(np.ceil(x.max() + grow - x0)) + 1)
    empty = np.ones(shape, dtype=bool)
    empty[((y - y0) / _PIXEL_MM).astype(int), ((x - x0) / _PIXEL_MM).astype(int)] = False
    # Only the shell is projected: the filled outline is what the beam must open.
    near = ndimage.distance_transform_edt(empty) * _PIXEL_MM <= grow
    return ndimage.binary_fill_holes(near), float(x0), float(y0)
