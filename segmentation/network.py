"""The network that a model.json describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import DynUNet

_SIDE = 3  # of every convolution, voxels
_SECOND_NAMES = "skip_layers."  # DynUNet holds most of its layers under two names


def build_network(config: Mapping[str, Any]) -> torch.nn.Module:
    """MONAI DynUNet (the U-Net of nnU-Net, Isensee, Nat Methods 18:203, 2021), one input channel per window of HU, one
    sigmoid channel per structure, not yet trained.

    `config` holds in_channels, out_channels and filters (one number of channels a level; each level halves the grid of the
    one above). Raises KeyError when one is missing. Sides of the input must be multiples of 2 ** (len(filters) - 1).
    """
    filters = [int(n) for n in config["filters"]]
    strides = [1, *[2] * (len(filters) - 1)]
    network: torch.nn.Module = DynUNet(
        spatial_dims=3,
        in_channels=int(config["in_channels"]),
        out_channels=int(config["out_channels"]),
        kernel_size=[_SIDE] * len(filters),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=filters,
        norm_name=("INSTANCE", {"affine": True}),
    )
    return network


def own_tensors(network_state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's state with every tensor once."""
    return {name: tensor for name, tensor in network_state.items() if not name.startswith(_SECOND_NAMES)}


def load_tensors(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a network its tensors. Raises ValueError when one is missing, unknown or of another shape."""
    try:
        missing, unknown = network.load_state_dict(dict(tensors), strict=False, assign=True)
    except RuntimeError as problem:
        raise ValueError(str(problem)) from problem
    missing = [name for name in missing if not name.startswith(_SECOND_NAMES)]
    if missing or unknown:
        raise ValueError(f"tensors missing: {missing}; unknown: {unknown}")
