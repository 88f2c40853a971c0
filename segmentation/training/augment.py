"""What training does to a patient before the network sees it: where it lies, how it looks, and what lies around it.

Everything is drawn from one numpy generator, so a step is the same whenever it is repeated.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import GaussianSmooth
from numpy.typing import NDArray

from segmentation.models.head_neck_oar import WINDOWS_HU
from segmentation.preprocess import AIR_HU, network_input
from segmentation.training.data import LABELS, Case

Shape3 = tuple[int, int, int]
EXTERNAL = LABELS.index("External")
LEFT, RIGHT = LABELS.index("Parotid_L"), LABELS.index("Parotid_R")
TURN_DEG, SCALE, STRETCH, BEND_VOXELS = 8.0, 0.12, 0.04, 1.2
KNOTS: Shape3 = (5, 5, 6)  # of the smooth deformation


def sample(
    case: Case, patch: Shape3, rng: np.random.Generator, mirror_chance: float = 0.5
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """A patch of a patient: input (windows, z, y, x), labels (n, z, y, x) of 0 and 1, and what is known (n, z, 1, 1)."""
    hu, bits, known = _moved(case, patch, rng)
    if rng.random() < mirror_chance:
        hu, bits, known = _mirrored(hu, bits, known)
    hu = _surrounded(_recoloured(hu, bits, case.phantom, rng), (bits >> EXTERNAL & 1).astype(bool), rng)
    labels = (bits[None] >> np.arange(len(LABELS), dtype=np.uint8)[:, None, None, None] & 1).astype(np.float32)
    return network_input(hu, WINDOWS_HU), labels, known[:, :, None, None].astype(np.float32)


def _moved(
    case: Case, patch: Shape3, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
    """A patch at a random place, turned, scaled and bent. What lies outside the scan is air and teaches nothing but that."""
    shape = np.array(case.hu.shape, float)
    size = np.array(patch, float)
    room = np.abs(shape - size) / 2 + np.array([4.0, 3.0, 4.0])
    centre = (shape - 1) / 2 + rng.uniform(-room, room)
    matrix = np.diag(np.exp(rng.uniform(-SCALE, SCALE) + rng.uniform(-STRETCH, STRETCH, 3)))
    if rng.random() < 0.8:
        matrix = _rotation(np.deg2rad(rng.uniform(-TURN_DEG, TURN_DEG, 3))) @ matrix
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) @ torch.from_numpy(matrix.T.astype(np.float32))
    grid += torch.from_numpy(centre.astype(np.float32))
    if rng.random() < 0.6:
        amplitude = BEND_VOXELS * (2.5 if case.phantom else 1.0) * rng.uniform(0.3, 1.0)
        knots = torch.from_numpy(rng.normal(0, amplitude, (1, 3, *KNOTS)).astype(np.float32))
        bend = torch.nn.functional.interpolate(knots, size=patch, mode="trilinear", align_corners=True)
        grid += bend[0].permute(1, 2, 3, 0)
    unit = (grid * (2.0 / (torch.from_numpy(shape.astype(np.float32)) - 1)) - 1.0).flip(-1)[None]
    hu = _sampled(case.hu.astype(np.float32) - AIR_HU, unit, "bilinear") + np.float32(AIR_HU)
    bits = _sampled(case.bits.astype(np.float32), unit, "nearest").astype(np.uint8)
    # A slice of the patch is known where the slice at its centre is, and beyond the scan, where there is only air.
    z = np.rint(centre[0] + (np.arange(patch[0]) - (patch[0] - 1) / 2) * matrix[0, 0]).astype(int)
    beyond = np.flatnonzero((z < 0) | (z >= len(case.hu)))
    known = case.known[:, np.clip(z, 0, len(case.hu) - 1)].copy()
    known[:, beyond] = case.known.any(axis=1, keepdims=True)
    return hu, bits, known


def _sampled(volume: NDArray[np.float32], unit: torch.Tensor, mode: str) -> NDArray[np.float32]:
    out = torch.nn.functional.grid_sample(
        torch.from_numpy(volume)[None, None], unit, mode=mode, padding_mode="zeros", align_corners=True
    )
    return np.asarray(out[0, 0].numpy())


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """About the z, y and x axes of an array (z, y, x)."""
    turned = np.eye(3)
    for angle, (i, j) in zip(angles, ((1, 2), (0, 2), (0, 1)), strict=True):
        plane = np.eye(3)
        plane[i, i] = plane[j, j] = np.cos(angle)
        plane[i, j], plane[j, i] = -np.sin(angle), np.sin(angle)
        turned = turned @ plane
    return turned


def _mirrored(
    hu: NDArray[np.float32], bits: NDArray[np.uint8], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
    """The mirror image in x: left organs are right ones then."""
    pair = np.uint8((1 << LEFT) | (1 << RIGHT))
    swapped = ((bits >> LEFT & 1) << RIGHT) | ((bits >> RIGHT & 1) << LEFT)
    order = np.arange(len(LABELS))
    order[[LEFT, RIGHT]] = order[[RIGHT, LEFT]]
    return hu[:, :, ::-1].copy(), ((bits & ~pair) | swapped).astype(np.uint8)[:, :, ::-1].copy(), known[order]


def _recoloured(
    hu: NDArray[np.float32], bits: NDArray[np.uint8], phantom: bool, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Another scanner: offset, contrast, noise and sharpness. A phantom's organs also change one by one."""
    if phantom:
        for b in range(len(LABELS) - 1):
            hu = hu + np.float32(rng.normal(0, 25)) * (bits >> b & 1)
        hu = hu + np.where(hu > -300, np.float32(rng.normal(0, 30)), np.float32(0))
    if rng.random() < 0.5:
        hu = np.where(hu > -950, hu * np.float32(rng.uniform(0.93, 1.07)) + np.float32(rng.normal(0, 10)), hu)
    if rng.random() < 0.4:
        hu = hu + rng.standard_normal(hu.shape, np.float32) * np.float32(rng.uniform(3, 35))
    if rng.random() < 0.2:
        hu = np.asarray(GaussianSmooth(sigma=float(rng.uniform(0.3, 0.8)))(torch.from_numpy(hu)[None])[0])
    return hu.astype(np.float32)


def _surrounded(hu: NDArray[np.float32], body: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """What lies around a patient and is not of the patient: a couch, a mask, a head rest, air that is not quite -1000 HU."""
    outside = ~body
    if rng.random() < 0.5:
        air = rng.normal(-995, 12) + rng.standard_normal(hu.shape, np.float32) * np.float32(rng.uniform(0, 25))
        hu = np.where(outside, np.maximum(hu, air.astype(np.float32)), hu)
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    if not len(rows):
        return hu
    z, y, x = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    if rng.random() < 0.6:
        hollow = (x - hu.shape[2] / 2) ** 2 * rng.choice([0.0, rng.uniform(0, 0.004)])
        depth = y - (rows[-1] + rng.uniform(-1, 3)) + hollow
        shell, thick = rng.uniform(0.5, 1.5), rng.uniform(2, 14)
        couch = (depth > 0) & (depth < thick)
        core = (depth > shell) & (depth < thick - shell)
        hu = np.where(couch & outside, np.float32(rng.uniform(-600, 250)), hu)
        hu = np.where(core & outside, np.float32(rng.uniform(-980, -600)), hu)
    if rng.random() < 0.3:
        near = (
            torch.nn.functional.max_pool3d(torch.from_numpy(body.astype(np.float32))[None, None], 3, 1, 1)[0, 0].numpy() > 0
        )
        start, stop = np.sort(rng.integers(0, hu.shape[0], 2))
        shell_mask = near & outside & (z >= start) & (z <= stop)
        hu = np.where(shell_mask, np.maximum(hu, np.float32(rng.uniform(-850, -250))), hu)
    if rng.random() < 0.3:
        start, height = rng.integers(0, hu.shape[0]), rng.integers(10, 35)
        rest = (z >= start) & (z < start + height) & (y > rng.uniform(0.5, 0.9) * rows[-1])
        hu = np.where(rest & outside, np.float32(rng.uniform(-950, -300)), hu)
    return hu.astype(np.float32)
