"""A model's files: what model.json says, and weights that are read only when they are what it says.

A model's folder holds `model.json` and a safetensors file (tensors and text, nothing that runs). model.json:

    {"id": "head_neck_oar", "version": "1.0.0", "labels": ["Brainstem", ...], "working_spacing_zyx_mm": [3.0, 3.9, 3.9],
     "windows_hu": [[-1000, 1500], ...], "roi_zyx": [64, 64, 96], "network": {...},
     "weights": {"file": "weights.safetensors", "sha256": "..."}}

Each of `windows_hu` is an input channel. `roi_zyx` is the largest part of a CT that the network is given at once. The
weights carry id and version too, so that a newer model.json beside older weights does not pass. Anything that does not fit
raises ModelUnverified and nothing was run.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.contract import VOCABULARY, Float3, ModelUnverified

if TYPE_CHECKING:
    import torch

MODEL_FILE = "model.json"
MAX_MODEL_BYTES = 1 << 20
MAX_WEIGHT_BYTES = 64 << 20
MAX_HEADER_BYTES = 1 << 20
_LENGTH_BYTES = 8  # of the header's length, before the header
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model.json says. `labels` are the network's channels in order."""

    folder: Path
    model_id: str
    version: str
    labels: tuple[str, ...]
    working_spacing_zyx_mm: Float3
    windows_hu: tuple[tuple[float, float], ...]
    roi_zyx: tuple[int, int, int]
    network: Mapping[str, Any]
    weights_file: str
    weights_sha256: str

    @property
    def full_version(self) -> str:
        """What tells this model from every other: its version and the start of its weights' SHA-256."""
        return f"{self.version}+{self.weights_sha256[:12]}"


def read_description(folder: Path, model_id: str, version: str | None = None) -> ModelDescription:
    """model.json of a folder. Raises ModelUnverified: absent, too large, not as it must be, another id or `version`."""
    text = _read(folder / MODEL_FILE, MAX_MODEL_BYTES)
    try:
        found = _description(folder, json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise ModelUnverified(f"{folder / MODEL_FILE} is not a model's description: {problem!r}") from problem
    if found.model_id != model_id:
        raise ModelUnverified(f"{folder} holds the model {found.model_id!r}, expected {model_id!r}")
    if version is not None and found.version != version:
        raise ModelUnverified(f"{folder} holds version {found.version} of {model_id}, expected {version}")
    return found


def read_weights(description: ModelDescription) -> dict[str, torch.Tensor]:
    """Tensors by name, as the file has them. Raises ModelUnverified: absent, too large, another hash, id or version.

    Sizes are looked at before anything is read, and the bytes that were hashed are those that are used.
    """
    path = description.folder / description.weights_file
    data = _read(path, MAX_WEIGHT_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if digest != description.weights_sha256:
        raise ModelUnverified(f"{path} has SHA-256 {digest}, expected {description.weights_sha256}")
    about = _header(path, data).get("__metadata__") or {}
    expected = {"id": description.model_id, "version": description.version}
    if {key: about.get(key) for key in expected} != expected:
        raise ModelUnverified(f"{path} was written for {about}, expected {expected}")
    from safetensors.torch import load

    try:
        return load(data)
    except Exception as problem:  # the format's own errors share no class
        raise ModelUnverified(f"{path} cannot be read: {problem}") from problem


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], model_id: str, version: str) -> str:
    """Writes tensors, each under one name, with the model's id and version; returns the file's SHA-256 in hex."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"id": model_id, "version": version})
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _description(folder: Path, said: Mapping[str, Any]) -> ModelDescription:
    z_mm, y_mm, x_mm = (float(value) for value in said["working_spacing_zyx_mm"])
    nz, ny, nx = (int(value) for value in said["roi_zyx"])
    labels, weights = tuple(said["labels"]), said["weights"]
    if not labels or len(set(labels)) != len(labels) or not set(labels) <= VOCABULARY:
        raise ValueError(f"labels {labels} are not different names of the vocabulary")
    unpaired = {label[:-2] for label in labels if label[-2:] == "_L"} ^ {
        label[:-2] for label in labels if label[-2:] == "_R"
    }
    if unpaired:
        raise ValueError(f"labels {labels}: {sorted(unpaired)} on one side only")
    if not all(math.isfinite(value) and 0.1 <= value <= 20 for value in (z_mm, y_mm, x_mm)):
        raise ValueError(f"working_spacing_zyx_mm {(z_mm, y_mm, x_mm)}")
    if not all(16 <= side <= 512 and side % 16 == 0 for side in (nz, ny, nx)):
        raise ValueError(f"roi_zyx {(nz, ny, nx)}: expected multiples of 16 up to 512")
    version, file, digest = str(said["version"]), str(weights["file"]), str(weights["sha256"])
    if not _VERSION.match(version) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"version {version!r}, sha256 {digest!r}")
    if Path(file).name != file:
        raise ValueError(f"weights file {file!r} is not in the model's own folder")
    windows, network = tuple((float(low), float(high)) for low, high in said["windows_hu"]), dict(said["network"])
    if not all(-2000 <= low < high <= 20000 for low, high in windows) or len(windows) != network["in_channels"]:
        raise ValueError(f"windows_hu {windows}: expected {network['in_channels']} rising pairs")
    return ModelDescription(
        folder, str(said["id"]), version, labels, (z_mm, y_mm, x_mm), windows, (nz, ny, nx), network, file, digest
    )


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as problem:
        raise ModelUnverified(f"{path} cannot be read: {problem}; restore it from the release") from problem
    if len(data) > most_bytes:
        raise ModelUnverified(f"{path} is larger than {most_bytes} bytes")
    return data


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """The safetensors header, read only when its length is one that a header can have."""
    length = struct.unpack("<Q", data[:_LENGTH_BYTES])[0] if len(data) >= _LENGTH_BYTES else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES):
        raise ModelUnverified(f"{path} is not a safetensors file: header of {length} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (ValueError, RecursionError) as problem:
        raise ModelUnverified(f"{path} is not a safetensors file: {problem}") from problem
    if not isinstance(header, dict):
        raise ModelUnverified(f"{path} is not a safetensors file: its header is no table")
    return header
