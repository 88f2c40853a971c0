"""A CT to what MONAI's LoadImage would have made of it, and answers on the network's grid back to the CT's own voxels.

NIfTI and MONAI say where voxels are in RAS (x to the patient's right, y to anterior), DICOM and we in LPS: x and y change
sign. Whatever the order of the CT's array, a bundle is handed it with axes to right, anterior and superior, so that a bundle
whose preprocessing does not turn the image still gives every patient the same anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import CtVolume, ModelRefused
from segmentation.orientation import turn_of

Box = tuple[slice, slice, slice]
OBLIQUE_TOLERANCE = 1e-4
OUTSIDE_TOLERANCE = 0.5 + 1e-4  # a resampled grid ends up to half its voxel before the CT does


def ras_view(volume: CtVolume, array: NDArray[Any]) -> NDArray[Any]:
    """A view (x, y, z) of an array of the volume with axes to the patient's right, anterior and superior."""
    return turn_of(volume).forward(array)[:, ::-1, ::-1].transpose(2, 1, 0)


def ras_affine(volume: CtVolume) -> NDArray[np.float64]:
    """(4, 4) from the index of `ras_view` to RAS mm: positive spacings on the diagonal."""
    turn, step = turn_of(volume), volume.affine_lps_mm
    nz, ny, nx = (volume.hu.shape[axis] for axis in turn.axes)
    corner_lps_mm = step @ np.array([*turn.index_back((0, ny - 1, nx - 1), (nz, ny, nx)), 1.0])
    spacing_zyx_mm = np.linalg.norm(step[:3, :3], axis=0)[list(turn.axes)]
    affine = np.diag([*spacing_zyx_mm[::-1], 1.0])
    affine[:3, 3] = -corner_lps_mm[0], -corner_lps_mm[1], corner_lps_mm[2]
    return affine


@dataclass(frozen=True, slots=True, eq=False)
class WayBack:
    """Which network voxel each voxel of a RAS view lies in.

    Axis a of the view runs along axis `axes[a]` of the network's grid; `index[a]` is the network index by view index, and
    `known[a]` whether the grid reaches there.
    """

    axes: tuple[int, int, int]
    index: tuple[NDArray[np.intp], ...]
    known: tuple[NDArray[np.bool_], ...]

    def box_of(self, box: Box) -> Box:
        """Part of the view that lies in a box of the network's grid."""
        out = []
        for axis, index, known in zip(self.axes, self.index, self.known, strict=True):
            there = np.flatnonzero((index >= box[axis].start) & (index < box[axis].stop) & known)
            out.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0))
        return out[0], out[1], out[2]

    def fetched(self, part: NDArray[Any], box: Box, where: Box) -> NDArray[Any]:
        """Values (nearest voxel) in `where` of the view, of an array that covers only `box` of the network's grid."""
        sides = zip(self.axes, self.index, where, strict=True)
        picked = [index[there] - box[axis].start for axis, index, there in sides]
        return part.transpose(self.axes)[np.ix_(*picked)]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where an image (x, y, z in any order) lies: (4, 4) from index to RAS mm, and its shape."""

    affine_ras_mm: NDArray[np.float64]
    shape: tuple[int, ...]

    def standing(self, order: tuple[int, ...]) -> Grid:
        """The same with its axes in another order."""
        return Grid(self.affine_ras_mm[:, [*order, 3]], tuple(self.shape[axis] for axis in order))


def way_back(view: Grid, stages: list[Grid], last: Grid) -> WayBack:
    """From a RAS view's voxels to those of the network's grid, `last`.

    `stages` are the grids in between: what one cut off and a later one padded again was never seen, and is not known.
    Raises ModelRefused when axes are not parallel, or nothing of the CT is left.
    """
    axes, places = _places(view, last)
    index = [np.clip(np.rint(p), 0, last.shape[a] - 1).astype(np.intp) for p, a in zip(places, axes, strict=True)]
    known = [np.ones(n, bool) for n in view.shape]
    for stage in (*stages, last):
        for axis, (place, grid_axis) in enumerate(zip(*reversed(_places(view, stage)), strict=True)):
            end = stage.shape[grid_axis] - 1
            known[axis] &= (place >= -OUTSIDE_TOLERANCE) & (place <= end + OUTSIDE_TOLERANCE)
    if not all(part.any() for part in known):
        raise ModelRefused("its preprocessing leaves nothing of the CT")
    return WayBack(axes, tuple(index), tuple(known))


def _places(view: Grid, grid: Grid) -> tuple[tuple[int, int, int], list[NDArray[np.float64]]]:
    """The grid's axis along each axis of the view, and the index along it by view index."""
    try:
        matrix = np.linalg.inv(grid.affine_ras_mm) @ view.affine_ras_mm
    except np.linalg.LinAlgError as error:
        raise ModelRefused("its preprocessing leaves no geometry") from error
    size = np.abs(matrix[:3, :3])
    if not np.all(np.isfinite(matrix)) or np.any((size > OBLIQUE_TOLERANCE * size.max()).sum(axis=0) != 1):
        raise ModelRefused("its preprocessing turns the image by an angle; contours would not come back exactly")
    axes = tuple(int(np.argmax(size[:, axis])) for axis in range(3))
    if sorted(axes) != [0, 1, 2]:
        raise ModelRefused("its preprocessing leaves no geometry")
    places = [matrix[g, axis] * np.arange(view.shape[axis]) + matrix[g, 3] for axis, g in enumerate(axes)]
    return (axes[0], axes[1], axes[2]), places
