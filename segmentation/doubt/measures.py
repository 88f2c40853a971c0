"""What can be measured of a drawn structure: size, place, shape, density. Masks and CT only, nothing of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import Float3
from segmentation.doubt.body import Body
from segmentation.evidence import Evidence

# They run on beyond a head and neck scan: their length, volume and middle say where the scan ends, not how they are.
OPEN_ENDED = frozenset({"SpinalCord", "Esophagus", "External"})
TOP_MM = 15.0
PAIRS = (("Parotid_L", "Parotid_R"),)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One structure that is not empty. `measures` by name; indices are voxels (z, y, x) of the working grid."""

    measures: Mapping[str, float]
    reference_zyx_mm: Float3  # centroid; the top 15 mm of an open-ended structure. From the centre of voxel (0, 0, 0)
    centre: tuple[int, int, int]  # the mask's voxel nearest to its centroid
    slices: tuple[int, int]
    cut_below: bool  # reaches the first imaged slice
    cut_above: bool
    voxels: int

    @property
    def cut(self) -> bool:
        """Reaches an end of the scan."""
        return self.cut_below or self.cut_above


def shapes_of(evidence: Evidence, body: Body) -> dict[str, Shape]:
    """The structures that have a voxel."""
    found = {}
    middle_x = body.middle_x()
    for name, mask in zip(evidence.names, evidence.masks, strict=True):
        shape = _shape(name, mask, evidence, body, middle_x)
        if shape is not None:
            found[name] = shape
    return found


def box_of(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """The smallest box around a mask (z, y, x)."""
    along_z = np.flatnonzero(mask.any(axis=(1, 2)))
    if not along_z.size:
        return None
    plane = np.asarray(mask[along_z[0] : along_z[-1] + 1].any(axis=0))
    y, x = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return slice(int(along_z[0]), int(along_z[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)


def _shape(
    name: str, mask: NDArray[np.bool_], evidence: Evidence, body: Body, middle_x: NDArray[np.float64]
) -> Shape | None:
    box = box_of(mask)
    if box is None:
        return None
    start = np.array([side.start for side in box])
    inside = mask[box]
    index_zyx = np.argwhere(inside) + start
    spacing = np.array(evidence.spacing_zyx_mm)
    ends = body.ends or (0, mask.shape[0] - 1)
    measures = _size(inside, evidence.spacing_zyx_mm)
    measures |= _place(index_zyx, evidence.spacing_zyx_mm, body, middle_x)
    measures["elongation"] = _elongation(index_zyx * spacing)
    measures["hu_mean"] = float(np.median(evidence.hu[box][inside]))
    middle = index_zyx.mean(axis=0)
    nearest = index_zyx[np.argmin((((index_zyx - middle) * spacing) ** 2).sum(axis=1))]
    slices = (box[0].start, box[0].stop - 1)
    z, y, x = _reference_zyx_mm(name, index_zyx, spacing)
    return Shape(
        measures,
        (z, y, x),
        (int(nearest[0]), int(nearest[1]), int(nearest[2])),
        slices,
        slices[0] <= ends[0],
        slices[1] >= ends[1],
        len(index_zyx),
    )


def _size(inside: NDArray[np.bool_], spacing_zyx_mm: Float3) -> dict[str, float]:
    dz, dy, dx = spacing_zyx_mm
    area_cm2 = inside.sum(axis=(1, 2)) * dy * dx / 100.0
    return {
        "volume_cc": float(area_cm2.sum() * dz / 10.0),
        "extent_z_mm": inside.shape[0] * dz,
        "area_mean_cm2": float(area_cm2.mean()),
        "area_max_cm2": float(area_cm2.max()),
    }


def _place(
    index_zyx: NDArray[np.int64], spacing_zyx_mm: Float3, body: Body, middle_x: NDArray[np.float64]
) -> dict[str, float]:
    """From the body's outline at each voxel's own slice: mm to the left of the midline, and 0 (front) to 1 (back)."""
    z, y, x = index_zyx.T
    depth = np.maximum(body.back[z] - body.front[z], 1)
    return {
        "left_of_middle_mm": float(np.mean(x - middle_x[z]) * spacing_zyx_mm[2]),
        "depth_share": float(np.mean((y - body.front[z]) / depth)),
    }


def _elongation(points_mm: NDArray[np.float64]) -> float:
    """Length over thickness: square root of the largest over the middle variance, with half a voxel's worth added."""
    if len(points_mm) < 2:
        return 1.0
    variances = np.linalg.eigvalsh(np.cov(points_mm.T)) + 1.0
    return float(np.sqrt(variances[2] / variances[1]))


def _reference_zyx_mm(name: str, index_zyx: NDArray[np.int64], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    points = index_zyx * spacing
    if name in OPEN_ENDED:
        points = points[points[:, 0] > points[:, 0].max() - TOP_MM]
    return np.asarray(points.mean(axis=0), np.float64)


def anchors(shapes: Mapping[str, Shape]) -> dict[str, Float3]:
    """Reference points (z, y, x) mm of the structures whose own place is sure: an end of the scan moves the others."""
    return {
        name: shape.reference_zyx_mm
        for name, shape in shapes.items()
        if name != "External" and not (shape.cut_above if name in OPEN_ENDED else shape.cut)
    }


def expected_zyx_mm(
    name: str, points: Mapping[str, Float3], offsets: Mapping[str, Mapping[str, Float3]]
) -> NDArray[np.float64] | None:
    """Where the other structures put `name`: the median over them, so that one misplaced neighbour does not decide.

    None when fewer than two say anything.
    """
    ways = offsets.get(name, {})
    said = [np.array(point) + np.array(ways[other]) for other, point in points.items() if other != name and other in ways]
    return np.asarray(np.median(said, axis=0), np.float64) if len(said) >= 2 else None


def off_mm(shapes: Mapping[str, Shape], offsets: Mapping[str, Mapping[str, Float3]]) -> dict[str, dict[str, float]]:
    """How far each anchor lies from where the others put it: `up_mm`, `back_mm`, `left_mm`."""
    points = anchors(shapes)
    out: dict[str, dict[str, float]] = {}
    for name, point in points.items():
        expected = expected_zyx_mm(name, points, offsets)
        if expected is not None:
            dz, dy, dx = np.array(point) - expected
            out[name] = {"up_mm": float(dz), "back_mm": float(dy), "left_mm": float(dx)}
    return out


def pair_measures(left: Shape, right: Shape) -> dict[str, float]:
    """Of a left and a right organ: ratio of the volumes (left over right) and the distance between their middles."""
    apart = np.linalg.norm(np.array(left.reference_zyx_mm) - np.array(right.reference_zyx_mm))
    ratio = left.measures["volume_cc"] / right.measures["volume_cc"]
    return {"log_volume_ratio": float(np.log(ratio)), "distance_mm": float(apart)}
