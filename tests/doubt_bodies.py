"""Bodies for the tests of doubt: the drawn head and neck as evidence of a sure network, and CTs of another kind."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sample_data.head_neck import head_neck
from sample_data.phantom import Phantom, centred_grid, ellipsoid, noise_hu
from segmentation.doubt import Assessment, Calibration, Envelopes, assess, load_envelopes
from segmentation.doubt.calibration import INPUTS, Limits
from segmentation.evidence import Evidence
from segmentation.preprocess import to_working_grid

SHIPPED = Path(__file__).resolve().parents[1] / "segmentation" / "shipped" / "head_neck_oar"
WORKING_ZYX_MM = (3.0, 3.9, 3.9)
NAMES = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", "External")

Volume = NDArray[np.float32]

# What a sure network says is taken at its word: no structure's own offset, a mild slope on the expected Dice.
CALIBRATION = Calibration((0.7, *[0.0] * (len(INPUTS) - 1)), 0.0, {}, Limits(0.6, 0.4, 1.0, 3.0, 0.5))


@cache
def envelopes() -> Envelopes:
    """The ranges that ship."""
    return load_envelopes(SHIPPED)


@cache
def patient() -> Evidence:
    """The drawn head and neck, all organs where they belong, from a network that is sure of each."""
    from rtplan.library.names import tg263_name

    phantom = head_neck()
    masks = {tg263_name(name): mask for name, mask in phantom.masks.items()}
    given = np.stack([working(masks[name].astype(np.float32), phantom) > 0.5 for name in NAMES])
    return sure(working(phantom.hu, phantom), given)


def working(array: NDArray[np.generic], phantom: Phantom) -> Volume:
    """An array of a phantom on the working grid."""
    return to_working_grid(array, phantom.grid.spacing_zyx_mm, WORKING_ZYX_MM).hu


def sure(hu: Volume, masks: NDArray[np.bool_]) -> Evidence:
    """Evidence of a network whose members all say the same and nearly 1."""
    probability = np.where(masks, np.float32(0.97), np.float32(0.01))
    return Evidence(NAMES, hu, WORKING_ZYX_MM, probability, np.stack([masks, masks]), masks)


def changed(name: str, mask: NDArray[np.bool_]) -> Evidence:
    """The patient with another mask of one structure, of which the network is as sure."""
    masks = patient().masks.copy()
    masks[NAMES.index(name)] = mask
    return sure(patient().hu, masks)


def mask_of(name: str) -> NDArray[np.bool_]:
    """The patient's mask of a structure."""
    return patient().masks[NAMES.index(name)]


def moved(mask: NDArray[np.bool_], zyx_voxels: tuple[int, int, int]) -> NDArray[np.bool_]:
    """A mask shifted by whole voxels, cut at the edges."""
    return ndimage.shift(mask.astype(np.uint8), zyx_voxels, order=0).astype(bool)


def judged(evidence: Evidence) -> Assessment:
    """What is said of it with the envelopes that ship."""
    return assess(evidence, envelopes(), CALIBRATION)


def codes(evidence: Evidence, structure: str | None = "any") -> set[str]:
    """Codes of the flags and holds about a structure, about the CT (None), or about anything."""
    return {d.code for d in judged(evidence).doubts if d.severity != "info" and structure in ("any", d.structure)}


def turned(axis: int) -> Evidence:
    """The patient with one axis of the array reversed: CT, answers and masks together."""
    p = patient()
    turned_arrays = {
        field: np.flip(array, axis=array.ndim - 3 + axis)
        for field in ("hu", "probability", "members", "masks")
        for array in (getattr(p, field),)
    }
    return replace(p, **turned_arrays)


def slices(first: int, last: int | None) -> Evidence:
    """A stretch of the patient along z, as if the scan had been shorter."""
    return _part((slice(first, last), slice(None), slice(None)))


def columns(last: int) -> Evidence:
    """The patient's right part, as if the picture ended in the left one."""
    return _part((slice(None), slice(None), slice(0, last)))


def _part(box: tuple[slice, slice, slice]) -> Evidence:
    p, every = patient(), slice(None)
    masks, members = p.masks[every, *box], p.members[every, every, *box]
    return replace(p, hu=p.hu[box], probability=p.probability[every, *box], members=members, masks=masks)


def nothing_found(hu: Volume) -> Evidence:
    """A CT in which the network sees nothing."""
    return sure(hu.astype(np.float32), np.zeros((len(NAMES), *hu.shape), bool))


def child() -> Evidence:
    """The patient at 0.6 of its size."""
    small = [ndimage.zoom(m.astype(np.float32), 0.6, order=1) > 0.5 for m in patient().masks]
    return sure(ndimage.zoom(patient().hu, 0.6, order=1), np.stack(small))


def pelvis() -> Volume:
    """An ellipse of 350 x 230 mm with a rim of fat, femoral heads, iliac bones, sacrum, bladder and rectal gas."""
    grid = centred_grid((80, 70, 110), WORKING_ZYX_MM)
    hu = _trunk(grid.shape_zyx, grid.y_mm(), grid.x_mm())
    for side in (1, -1):
        hu[ellipsoid(grid, (side * 95, 0, -20), (24, 24, 24)) < 0] = 500
        hu[ellipsoid(grid, (side * 95, 20, 30), (20, 50, 50)) < 0] = 400
    hu[ellipsoid(grid, (0, 75, 20), (45, 20, 60)) < 0] = 400
    hu[ellipsoid(grid, (0, -20, 0), (40, 35, 35)) < 0] = 5
    hu[ellipsoid(grid, (0, 45, 0), (15, 12, 40)) < 0] = -700
    return (hu + noise_hu(grid.shape_zyx, 10.0)).astype(np.float32)


def thorax() -> Volume:
    """The same trunk with two lungs and a spine."""
    grid = centred_grid((80, 70, 110), WORKING_ZYX_MM)
    hu = _trunk(grid.shape_zyx, grid.y_mm(), grid.x_mm())
    for side in (1, -1):
        hu[ellipsoid(grid, (side * 75, -5, 0), (60, 80, 140)) < 0] = -800
    spine = np.hypot(grid.x_mm()[None, :] / 18, (grid.y_mm()[:, None] - 75) / 18) < 1
    hu[:, spine] = 500
    return (hu + noise_hu(grid.shape_zyx, 10.0)).astype(np.float32)


def _trunk(shape_zyx: tuple[int, int, int], y_mm: NDArray[np.float64], x_mm: NDArray[np.float64]) -> Volume:
    hu = np.full(shape_zyx, -1000.0, np.float32)
    for semi_x, semi_y, value in ((175.0, 115.0, -100.0), (150.0, 90.0, 40.0)):
        hu[:, np.hypot(x_mm[None, :] / semi_x, y_mm[:, None] / semi_y) < 1] = value
    return hu
