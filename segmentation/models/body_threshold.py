"""External contour by threshold: the patient without the couch, with airways and lungs inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import CtVolume, Example, Float3, Segmentation
from segmentation.orientation import standard_spacing_mm, turn_of
from segmentation.shapes import Mask, box_around, filled_plane, grown, shrunk

TISSUE_HU = -350  # between foam and clothes (below -600) and fat (-100), so that thin partial-volume skin stays
OPENING_MM = 6.0  # parts thinner than this (and than two voxels), such as couch shells and masks, are cut off
CLOSING_MM = 3.0  # half-width: nostrils narrower than twice this do not open the airway to the outside
COUCH_MAX_MM = 60.0  # height of a couch top
COUCH_CLEAR_MM = 10.0  # air above it where the patient is not
COUCH_FLAT_MM = 2.0
COUCH_MIN_WIDTH_MM = 60.0
COUCH_PERSISTENCE = 0.6  # a couch is at the same place in most slices
PLATE_MAX_MM = 30.0
PART_MIN_CC = 50.0
PART_MIN_FRACTION = 0.002
SHELL_MM = 3.0
AIR_VOXELS = 8  # around the tissue that is looked at


@dataclass(frozen=True, slots=True)
class BodyThreshold:
    """Segmenter of the External. Accurate to about a voxel where skin borders air; a couch touched is cut at its top."""

    kind: str = "body_threshold"
    labels: tuple[str, ...] = ("External",)
    version: str = "1"

    def segment(self, volume: CtVolume, *, device: str = "cpu") -> Segmentation:
        """External of a CT. Nothing is returned when no voxel is tissue. It always runs on the CPU.

        Confidence is 1 minus the fraction of the 3 mm around the body that is as dense as tissue: what touches the body
        there (couch, mask, cushion) had to be told from it by shape.
        """
        turn, spacing_zyx_mm = turn_of(volume), standard_spacing_mm(volume)
        tissue = turn.forward(volume.hu) > TISSUE_HU
        box = box_around(tissue, (len(tissue), AIR_VOXELS, AIR_VOXELS))
        if box is None:
            return Segmentation({}, {})
        inner = tissue[box]
        body = np.zeros(tissue.shape, bool)
        body[box] = _fill_slices(_patient_parts(_without_couch(inner, spacing_zyx_mm), spacing_zyx_mm), spacing_zyx_mm)
        shell = grown(body[box], _reach(SHELL_MM, spacing_zyx_mm)) & ~body[box]
        contact = float(inner[shell].mean()) if shell.any() else 1.0
        mask = np.ascontiguousarray(turn.back(body))
        return Segmentation({"External": mask}, {"External": 1.0 - contact})

    def example(self) -> Example:
        """An elliptic water body with a lung, on a 15 mm plate that touches its back."""
        spacing = (5.0, 2.0, 2.0)
        y, x = np.meshgrid(np.arange(-100, 100) * 2.0, np.arange(-128, 128) * 2.0, indexing="ij")
        ellipse = (x / 150) ** 2 + (y / 100) ** 2 < 1
        lung = (x - 60) ** 2 + y**2 < 40**2
        plate = (y >= 98) & (y < 113) & (np.abs(x) < 220)
        hu = np.where(ellipse & ~lung, 0, np.where(lung, -800, np.where(plate, -100, -1000))).astype(np.int16)
        volume = np.repeat(hu[None], 12, axis=0)
        inside = ndimage.binary_erosion(ellipse & (y < 96), iterations=2)
        outside = ~ndimage.binary_dilation(ellipse, iterations=2)
        return Example(
            CtVolume.standard(volume, spacing),
            {"External": np.repeat(inside[None], 12, axis=0)},
            {"External": np.repeat(outside[None], 12, axis=0)},
        )


def _reach(reach_mm: float, spacing_zyx_mm: Float3) -> tuple[int, int, int]:
    """Odd box sizes (z, y, x) that reach so far to each side of a slice, at least one voxel; nothing along z."""
    ny, nx = (2 * max(1, round(reach_mm / spacing)) + 1 for spacing in spacing_zyx_mm[1:])
    return 1, ny, nx


def _without_couch(tissue: Mask, spacing_zyx_mm: Float3) -> Mask:
    """Tissue above a flat couch top, found where it sticks out beside the patient at one height in most slices."""
    persistent = ndimage.binary_fill_holes(tissue.mean(axis=0) >= COUCH_PERSISTENCE)
    found = _couch_top(persistent, spacing_zyx_mm[1], spacing_zyx_mm[2])
    if found is None:
        return tissue
    top, columns = found
    depth = max(1, round(COUCH_MAX_MM / spacing_zyx_mm[1]))
    present = tissue[:, top : top + depth][:, :, columns].any(axis=1).mean(axis=1) > 0.5
    cut = tissue.copy()
    cut[present, top:] = False
    return cut


def _couch_top(persistent: Mask, dy_mm: float, dx_mm: float) -> tuple[int, NDArray[np.intp]] | None:
    """Row of a couch's upper face, and the columns that show it, in a (y, x) picture of what most slices share.

    In such columns everything lies within COUCH_MAX_MM of the lowest tissue, with clear air above it.
    """
    columns = np.flatnonzero(persistent.any(axis=0))
    if not len(columns):
        return None
    n_rows = persistent.shape[0]
    bottom = n_rows - 1 - np.argmax(persistent[::-1, columns], axis=0)
    zone, clear = round(COUCH_MAX_MM / dy_mm), round(COUCH_CLEAR_MM / dy_mm)
    row = np.arange(n_rows)[:, None]
    in_zone = persistent[:, columns] & (row > bottom - zone)
    top = np.argmax(in_zone, axis=0)
    above = persistent[:, columns] & (row < top) & (row >= top - max(1, clear))
    beside = ~above.any(axis=0) & (top > bottom - zone + 1)
    if not beside.any():
        return None
    level = int(np.median(top[beside]))
    flat = beside & (np.abs(top - level) * dy_mm <= COUCH_FLAT_MM)
    wide_enough = flat.sum() * dx_mm >= COUCH_MIN_WIDTH_MM and flat.sum() >= 0.5 * beside.sum()
    outermost = flat[0] or flat[-1]
    posterior = level > np.average(np.arange(n_rows), weights=persistent.sum(axis=1))
    if not (wide_enough and outermost and posterior):
        return None
    return int(top[flat].min()), columns[flat]


def _patient_parts(tissue: Mask, spacing_zyx_mm: Float3) -> Mask:
    """The largest connected part and every other of a meaningful volume that can belong to it, after thin contacts are cut.

    A body is one piece: a limb stands apart only where the image ends before they join. What begins and ends inside the
    image apart from the patient is a cushion, a head rest or a clip board.
    """
    ny, nx = (max(2, round(OPENING_MM / spacing)) for spacing in spacing_zyx_mm[1:])
    core = grown(shrunk(tissue, (1, ny, nx)), (1, ny, nx))
    labels, count = ndimage.label(core)
    if count == 0:
        return tissue
    volume_cc = np.bincount(labels.ravel(), minlength=count + 1)[1:] * float(np.prod(spacing_zyx_mm)) / 1000.0
    boxes = ndimage.find_objects(labels)
    order = np.argsort(-volume_cc, kind="stable")
    # Small parts are never kept, so only the large ones are worth the look at their shape.
    large = [i for i in order if volume_cc[i] >= max(PART_MIN_CC, PART_MIN_FRACTION * volume_cc[order[0]])] or [order[0]]
    bodily = [i for i in large if not _is_plate(labels[boxes[i]] == i + 1, len(tissue), spacing_zyx_mm)] or [order[0]]
    kept = [bodily[0], *(i for i in bodily[1:] if boxes[i][0].start == 0 or boxes[i][0].stop == len(tissue))]
    keep = np.zeros(count + 1, bool)
    keep[np.array(kept) + 1] = True
    # The opening rounded corners off; within its own reach they come back.
    return tissue & grown(keep[labels], _reach(OPENING_MM / 2 + 1, spacing_zyx_mm))


def _is_plate(part: Mask, n_slices: int, spacing_zyx_mm: Float3) -> bool:
    """A flat thing of one shape along the whole scan: a couch, not a limb."""
    thickness_mm = part.sum() / max(1, part.any(axis=1).sum()) * spacing_zyx_mm[1]
    width_mm = part.shape[2] * spacing_zyx_mm[2]
    constant = np.sum(part.mean(axis=0) > 0.9) > 0.7 * np.sum(part.any(axis=0))
    spans = part.shape[0] >= 0.8 * n_slices
    return bool(thickness_mm <= PLATE_MAX_MM and width_mm >= 4 * thickness_mm and constant and spans)


def _fill_slices(body: Mask, spacing_zyx_mm: Float3) -> Mask:
    """Body with its air cavities, slice by slice. A cavity counts when openings of up to 2 CLOSING_MM are shut."""
    box = _reach(CLOSING_MM, spacing_zyx_mm)
    closed = shrunk(grown(body, box), box) | body
    filled = np.stack([filled_plane(plane) for plane in closed])
    cavity = grown(filled & ~closed, box) & filled
    return np.stack([filled_plane(plane) for plane in body | cavity])


PLUGIN = BodyThreshold()
