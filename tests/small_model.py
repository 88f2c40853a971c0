"""A small network with random weights in a folder of its own: a model's files without a model's skill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LABELS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", "External")
NETWORK = {"out_channels": len(LABELS), "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}


def small_model(folder: Path, *, version: str = "0.0.1", seed: int = 3, **changed: Any) -> Path:
    """Writes model.json and random weights of a tiny SegResNet; `changed` replaces entries of model.json."""
    import torch

    from segmentation.network import build_network
    from segmentation.weights import write_weights

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(NETWORK)
    digest = write_weights(folder / "weights.safetensors", network.state_dict(), "head_neck_oar", version)
    said = {
        "id": "head_neck_oar",
        "version": version,
        "labels": list(LABELS),
        "working_spacing_zyx_mm": [3.0, 3.9, 3.9],
        "roi_zyx": [32, 48, 48],
        "network": NETWORK,
        "weights": {"file": "weights.safetensors", "sha256": digest},
    }
    (folder / "model.json").write_text(json.dumps(said | changed))
    return folder
