"""A model's evidence on patients with a reference, also under conditions in which it fails: what confidence is fitted on.

A few patients whom a network draws well say nothing about those whom it draws badly. So each patient is also shown noisy,
blurred, with shifted CT numbers, tilted, cut short, and front to back; the reference is turned and cut with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.device import torch_device
from segmentation.evidence import Evidence
from segmentation.inference import Model, load_model
from segmentation.models.head_neck_oar import WINDOWS_HU
from segmentation.network import build_network
from segmentation.postprocess import cleaned
from segmentation.training.data import LABELS, PATCH_ZYX, SPACING_ZYX_MM
from segmentation.training.truth import Truth
from segmentation.weights import ModelDescription, read_description

AIR_HU = -1000.0

Volume = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A patient under one condition: what the model knows, the reference (n, z, y, x) and where it is known (n, z)."""

    case_id: str
    condition: str
    evidence: Evidence
    reference: NDArray[np.bool_]
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A CT (z, y, x) HU as it is shown to the network, with its reference and where that is known."""

    hu: Volume
    reference: NDArray[np.bool_]
    known: NDArray[np.bool_]


def as_it_is(shown: Shown, _: np.random.Generator) -> Shown:
    """Unchanged."""
    return shown


def noisy(shown: Shown, rng: np.random.Generator) -> Shown:
    """Noise of 60 to 200 HU."""
    noise = rng.standard_normal(shown.hu.shape).astype(np.float32) * np.float32(rng.uniform(60, 200))
    return Shown(shown.hu + noise, shown.reference, shown.known)


def blurred(shown: Shown, rng: np.random.Generator) -> Shown:
    """Blurred by 1 to 2 voxels, CT numbers shifted by up to 200 HU."""
    hu = ndimage.gaussian_filter(shown.hu, rng.uniform(1.0, 2.0)) + np.float32(rng.uniform(-200, 200))
    return Shown(hu.astype(np.float32), shown.reference, shown.known)


def tilted(shown: Shown, rng: np.random.Generator) -> Shown:
    """Turned by 12 to 30 degrees about one axis."""
    axes = ((0, 1), (0, 2), (1, 2))[int(rng.integers(3))]
    angle_deg = float(rng.uniform(12, 30) * rng.choice([-1, 1]))
    turned: Volume = ndimage.rotate(shown.hu, angle_deg, axes, reshape=False, order=1, cval=AIR_HU)
    masks = [ndimage.rotate(m.astype(np.float32), angle_deg, axes, reshape=False, order=1) > 0.5 for m in shown.reference]
    return Shown(turned, np.stack(masks), shown.known)


def cut_short(shown: Shown, rng: np.random.Generator) -> Shown:
    """Only a stretch of 40 to 60 % of the scan."""
    slices = len(shown.hu)
    kept = max(16, round(slices * rng.uniform(0.4, 0.6)))
    first = int(rng.integers(0, max(1, slices - kept)))
    stretch = slice(first, first + kept)
    return Shown(shown.hu[stretch], shown.reference[:, stretch], shown.known[:, stretch])


def front_to_back(shown: Shown, _: np.random.Generator) -> Shown:
    """Mirrored front to back."""
    return Shown(shown.hu[:, ::-1], shown.reference[:, :, ::-1], shown.known)


CONDITIONS: dict[str, Callable[[Shown, np.random.Generator], Shown]] = {
    "as it is": as_it_is,
    "noisy": noisy,
    "blurred": blurred,
    "tilted": tilted,
    "cut short": cut_short,
    "front to back": front_to_back,
}


def model_of_checkpoint(path: Path, device: str) -> Model:
    """The running average of a training's checkpoint. Raises OSError or RuntimeError when it is none."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = build_network(state["config"])
    network.load_state_dict(state["average"])
    step = str(state["step"])
    description = ModelDescription(
        folder=path.parent,
        model_id="head_neck_oar",
        version=step,
        labels=LABELS,
        working_spacing_zyx_mm=SPACING_ZYX_MM,
        windows_hu=WINDOWS_HU,
        roi_zyx=PATCH_ZYX,
        network=state["config"],
        weights_file=path.name,
        weights_sha256="",
    )
    where = torch_device(device)
    return Model(description, network.to(where).eval(), where)


def model_of_folder(folder: Path, model_id: str, device: str) -> Model:
    """A shipped model. Raises ModelUnverified."""
    return load_model(read_description(folder, model_id), device)


def trials(model: Model, tag: str, truths: Sequence[Truth], conditions: Sequence[str], cache: Path) -> Iterator[Trial]:
    """Each patient under each condition. Answers are kept in `cache` under `tag`, so a broken-off run goes on."""
    cache.mkdir(parents=True, exist_ok=True)
    for truth in truths:
        for condition in conditions:
            seed = int.from_bytes(hashlib.sha256(f"{truth.case_id} {condition}".encode()).digest()[:4], "big")
            start = Shown(truth.evidence.hu, truth.evidence.masks, truth.known)
            shown = CONDITIONS[condition](start, np.random.default_rng(seed))
            kept = cache / f"{tag} {truth.case_id.replace('/', '_')} {condition}.npz"
            probability, members = _answers(model, shown.hu, kept)
            masks = cleaned(probability, LABELS, SPACING_ZYX_MM).masks
            evidence = Evidence(LABELS, shown.hu, SPACING_ZYX_MM, probability, members, masks)
            yield Trial(truth.case_id, condition, evidence, shown.reference, shown.known)


def _answers(model: Model, hu: Volume, kept: Path) -> tuple[Volume, NDArray[np.bool_]]:
    if not kept.exists():
        answers = model.ask(np.ascontiguousarray(hu))
        levels = np.rint(answers.probability * 250).astype(np.uint8)
        np.savez_compressed(kept, levels=levels, members=np.packbits(answers.members, axis=-1))
    with np.load(kept) as file:
        members = np.unpackbits(file["members"], axis=-1, count=hu.shape[-1]).astype(bool)
        return file["levels"].astype(np.float32) / np.float32(250), members
