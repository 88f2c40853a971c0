"""A quick look at how good a network is, on the working grid."""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray

from segmentation.models.head_neck_oar import WINDOWS_HU
from segmentation.preprocess import network_input
from segmentation.training.data import LABELS, Case


def probabilities(
    network: torch.nn.Module, hu: NDArray[np.int16], patch: tuple[int, int, int], device: str
) -> NDArray[np.float32]:
    """(labels, z, y, x) float32 of a CT (z, y, x) HU on the working grid, without an ensemble."""
    inferer = SlidingWindowInferer(roi_size=patch, overlap=0.25, mode="gaussian", padding_mode="constant", cval=-1.0)
    x = torch.from_numpy(network_input(hu.astype(np.float32), WINDOWS_HU))[None].to(device)
    with torch.inference_mode(), torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
        logits = inferer(x, network.eval())
    return np.asarray(torch.sigmoid(logits[0].float()).cpu().numpy())


def mean_dice(network: torch.nn.Module, cases: list[Case], patch: tuple[int, int, int], device: str) -> dict[str, float]:
    """Mean Dice by structure over the cases that have it, in the slices where the reference is known."""
    found: dict[str, list[float]] = {name: [] for name in LABELS}
    for case in cases:
        answer = probabilities(network, case.hu, patch, device) > 0.5
        for b, name in enumerate(LABELS):
            truth, slices = (case.bits >> b & 1).astype(bool)[case.known[b]], case.known[b]
            if case.has[b] and truth.any():
                given = answer[b][slices]
                found[name].append(2 * float((given & truth).sum()) / float(given.sum() + truth.sum()))
    return {name: float(np.mean(values)) for name, values in found.items() if values}
