"""The network that a model.json describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import SegResNet


def build_network(config: Mapping[str, Any]) -> torch.nn.Module:
    """MONAI SegResNet (Myronenko, BrainLes 2018): one input channel, one sigmoid channel per structure, not yet trained.

    `config` holds out_channels, init_filters, blocks_down and blocks_up. Raises KeyError when one is missing. Sides of the
    input must be multiples of 2 ** (len(blocks_down) - 1).
    """
    return SegResNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=int(config["out_channels"]),
        init_filters=int(config["init_filters"]),
        blocks_down=tuple(config["blocks_down"]),
        blocks_up=tuple(config["blocks_up"]),
    )
