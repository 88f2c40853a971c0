"""A finished training as a model's folder.

`python -m segmentation.training.export RUN/checkpoint.pt FOLDER --version 1.0.0`

The running average of the weights is kept, as fp16: 14 MB. Probabilities change by less than 1e-2 against float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from segmentation.models.head_neck_oar import WINDOWS_HU
from segmentation.network import own_tensors
from segmentation.training.data import LABELS, PATCH_ZYX, SPACING_ZYX_MM
from segmentation.training.train import Settings
from segmentation.weights import MODEL_FILE, write_weights

MODEL_ID, WEIGHTS_FILE = "head_neck_oar", "weights.safetensors"


def export(checkpoint: Path, folder: Path, version: str) -> str:
    """Write weights and model.json; returns the weights' SHA-256."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half() for name, tensor in own_tensors(state["average"]).items()}
    digest = write_weights(folder / WEIGHTS_FILE, tensors, MODEL_ID, version)
    description = {
        "id": MODEL_ID,
        "version": version,
        "labels": list(LABELS),
        "working_spacing_zyx_mm": list(SPACING_ZYX_MM),
        "windows_hu": [list(window) for window in WINDOWS_HU],
        "roi_zyx": list(PATCH_ZYX),
        "network": state["config"],
        "weights": {"file": WEIGHTS_FILE, "sha256": digest},
        "training": {"steps": int(state["step"]), "seed": Settings().seed, "split": "segmentation/training/split.json"},
    }
    (folder / MODEL_FILE).write_text(json.dumps(description, indent=1) + "\n")
    return digest


def main() -> None:
    """Export a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", required=True)
    args = parser.parse_args()
    export(args.checkpoint, args.folder, args.version)


if __name__ == "__main__":
    main()
