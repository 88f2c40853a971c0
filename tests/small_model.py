"""A small network with random weights in a folder of its own: a model's files without a model's skill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LABELS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", "External")
WINDOWS_HU = [[-1000, 1500], [-160, 240]]
NETWORK = {"in_channels": len(WINDOWS_HU), "out_channels": len(LABELS), "filters": [4, 8, 8]}


def small_model(folder: Path, *, version: str = "0.0.1", seed: int = 3, **changed: Any) -> Path:
    """Writes model.json and random weights of a tiny network; `changed` replaces entries of model.json."""
    import torch

    from segmentation.network import build_network, own_tensors
    from segmentation.weights import write_weights

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(NETWORK)
    digest = write_weights(folder / "weights.safetensors", own_tensors(network.state_dict()), "head_neck_oar", version)
    said = {
        "id": "head_neck_oar",
        "version": version,
        "labels": list(LABELS),
        "working_spacing_zyx_mm": [3.0, 3.9, 3.9],
        "windows_hu": WINDOWS_HU,
        "roi_zyx": [32, 48, 48],
        "network": NETWORK,
        "weights": {"file": "weights.safetensors", "sha256": digest},
    }
    (folder / "model.json").write_text(json.dumps(said | changed))
    return folder


def believing_model(folder: Path, **changed: Any) -> Path:
    """`small_model` with envelopes and a calibration that find nothing odd."""
    small_model(folder, **changed)
    wide = {"n": 99, "quantiles": [-1e9, -1e9, 0.0, 1e9, 1e9]}
    envelopes = {"format": "rtplan-envelopes-1", "structures": {}, "scan": {}, "offsets_zyx_mm": {}}
    envelopes["structures"] = {name: {"volume_cc": wide} for name in LABELS}
    envelopes["scan"] = {"length_mm": wide}
    limits = dict.fromkeys(("flag_confidence", "hold_confidence"), 0.1) | dict.fromkeys(
        ("flag_excess", "hold_excess", "scan_excess"), 9.0
    )
    from segmentation.doubt.calibration import INPUTS

    calibration = {
        "format": "rtplan-calibration-1",
        "inputs": list(INPUTS),
        "weights": [0.0] * len(INPUTS),
        "intercept": 1.0,
        "intercepts": {},
        "limits": limits,
    }
    (folder / "envelopes.json").write_text(json.dumps(envelopes))
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder
