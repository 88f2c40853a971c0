"""The device that a network runs on. torch is imported here at the top: import this module only where a model runs."""

from __future__ import annotations

import re

import torch

from segmentation.contract import DeviceMissing

_NAME = re.compile(r"(?:cpu|(?:gpu|cuda)(?P<number>:[0-9]{1,2})?)")


def torch_device(device: str) -> torch.device:
    """`cpu`, `cuda`, `cuda:N`, or `gpu` for cuda. Raises DeviceMissing when it is unknown or absent: no fallback."""
    match = _NAME.fullmatch(device)
    if match is None:
        raise DeviceMissing(f"device {device!r}: expected cpu, gpu, cuda or cuda:N")
    if device == "cpu":
        return torch.device("cpu")
    number = match["number"] or ""
    if int(number[1:] or 0) >= torch.cuda.device_count():
        raise DeviceMissing(f"device {device!r} was asked for and torch has none; ask for cpu or repair the driver")
    return torch.device("cuda" + number)
