"""A MONAI bundle whose 1x1x1 convolution tells tissues by their HU, and a phantom whose organs are told that way exactly."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segmentation.bundle.files import config_sha256
from segmentation.bundle.spec import BundleSpec, NameTable
from segmentation.contract import CtVolume

CHANNELS = ("background", "lung_low", "lung_high", "kidney_l", "kidney_r", "odd_thing")
EDGES_HU = (-900.0, -700.0, -400.0, 200.0, 600.0)  # between one channel and the next
NAMES = NameTable({"Lung_L": ("lung_low",), "Lung_R": ("lung_high",), "Kidney_L": ("kidney_l",), "Kidney_R": ("kidney_r",)})
HU = {"Lung_L": -800, "Lung_R": -500, "Kidney_L": 0, "Kidney_R": 400}
SHARPNESS = 200.0
ORIENTATIONS = tuple(
    (axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
)


def step(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


def inference(**changes: Any) -> dict[str, Any]:
    """The parts of an inference configuration that a bundle of MONAI's model zoo has, small."""
    image, pred = {"keys": "@image_key"}, {"keys": "pred"}
    config: dict[str, Any] = {
        "imports": ["$import glob", "$import os"],
        "image_key": "image",
        "bundle_root": ".",
        "datalist": "$list(sorted(glob.glob('nowhere/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": step("torch.nn.Conv3d", in_channels=1, out_channels=len(CHANNELS), kernel_size=1),
        "network": "$@network_def.to(@device)",
        "preprocessing": step(
            "Compose",
            transforms=[
                step("LoadImaged", **image),
                step("EnsureTyped", **image),
                step("EnsureChannelFirstd", **image),
                step("Orientationd", **image, axcodes="LPS"),
                step("ScaleIntensityRanged", **image, a_min=-1000, a_max=1000, b_min=-1.0, b_max=1.0),
            ],
        ),
        "dataset": step("Dataset", data="$[{'image': i} for i in @datalist]", transform="@preprocessing"),
        "inferer": step(
            "SlidingWindowInferer", roi_size=[16, 16, 16], sw_batch_size=4, overlap=0.25, mode="gaussian", device="@device"
        ),
        "postprocessing": step(
            "Compose",
            transforms=[
                step("Activationsd", **pred, softmax=True),
                step("AsDiscreted", **pred, argmax=True),
                step("Invertd", **pred, transform="@preprocessing", orig_keys="image", nearest_interp=True),
                step("SaveImaged", **pred, output_dir="nowhere"),
            ],
        ),
        "initialize": ["$1 / 0"],
        "run": ["$1 / 0"],
    }
    return config | changes


def metadata(channels: tuple[str, ...] = CHANNELS, version: str = "0.1.0") -> dict[str, Any]:
    names = {str(number): name for number, name in enumerate(channels)}
    return {
        "version": version,
        "network_data_format": {"outputs": {"pred": {"num_channels": len(channels), "channel_def": names}}},
    }


def tissue_weights() -> dict[str, torch.Tensor]:
    """Lines whose maximum changes at each edge: the k-th has k times the slope."""
    slopes = SHARPNESS * torch.arange(len(CHANNELS), dtype=torch.float32)
    offsets = -SHARPNESS * torch.tensor([sum(edge / 1000 for edge in EDGES_HU[:k]) for k in range(len(CHANNELS))])
    return {"weight": slopes.reshape(-1, 1, 1, 1, 1), "bias": offsets}


def write_bundle(
    folder: Path, *, config: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, weights: Any = None
) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config if config is not None else inference()))
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta if meta is not None else metadata()))
    torch.save(tissue_weights() if weights is None else weights, folder / "models" / "model.pt")
    return folder


def pinned(folder: Path, *, names: NameTable = NAMES, version: str = "0.1.0", weights_file: str = "models/model.pt"):
    """The spec of a bundle as it lies there."""
    return BundleSpec(
        id="small",
        path=folder,
        weights_file=weights_file,
        weights_sha256=hashlib.sha256((folder / weights_file).read_bytes()).hexdigest(),
        config_sha256=config_sha256(folder),
        version=version,
        names=names,
    )


def organs(shape_zyx: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Blocks that no mirror or turn brings back to themselves, the left ones at high x."""
    z, y, x = (np.arange(n) / n for n in shape_zyx)
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")

    def block(low_z, high_z, low_y, high_y, low_x, high_x):
        inside = (zz >= low_z) & (zz < high_z) & (yy >= low_y) & (yy < high_y)
        return inside & (xx >= low_x) & (xx < high_x)

    return {
        "Lung_L": block(0.55, 0.95, 0.1, 0.45, 0.6, 0.9),
        "Lung_R": block(0.5, 0.9, 0.1, 0.5, 0.1, 0.4),
        "Kidney_L": block(0.1, 0.4, 0.55, 0.8, 0.65, 0.85),
        "Kidney_R": block(0.15, 0.35, 0.6, 0.9, 0.15, 0.3),
    }


def phantom(shape_zyx: tuple[int, int, int], spacing_zyx_mm=(3.0, 2.0, 1.5)) -> tuple[CtVolume, dict[str, np.ndarray]]:
    truth = organs(shape_zyx)
    hu = np.full(shape_zyx, -1000, np.int16)
    for name, mask in truth.items():
        hu[mask] = HU[name]
    return CtVolume.standard(hu, spacing_zyx_mm, (-31.0, 17.5, -220.25)), truth


def turned(volume: CtVolume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> CtVolume:
    """The same CT with its array's axes in another order and sense."""
    affine = volume.affine_lps_mm[:, [*axes, 3]].copy()
    hu = turned_array(volume.hu, axes, flips)
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1
    return CtVolume(np.ascontiguousarray(hu), affine)


def turned_array(array: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    return array.transpose(axes)[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
