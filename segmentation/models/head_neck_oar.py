"""Organs at risk of the head and neck by a network of MONAI, with the External, and doubt about each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import (
    CtVolume,
    Doubt,
    Example,
    Float3,
    ModelRefused,
    ModelUnverified,
    Segmentation,
    Severity,
)
from segmentation.evidence import Evidence
from segmentation.orientation import Turn, standard_spacing_mm, turn_of
from segmentation.outline import Drawn, drawn_external, drawn_organs
from segmentation.postprocess import BODY, Change, cleaned
from segmentation.preprocess import Working, source_index, to_working_grid
from segmentation.weights import ModelDescription, read_description, read_weights

if TYPE_CHECKING:
    from segmentation.inference import Model

KIND = "head_neck_oar"
LABELS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", BODY)
# What the network is shown, a channel each: air to metal, and fat against gland and muscle, which the first one hides:
# 160 HU are 6 % of its range.
WINDOWS_HU = ((-1000.0, 1500.0), (-160.0, 240.0))
SHIPPED = Path(__file__).parents[1] / "shipped" / KIND

MIN_SLICES, MIN_LENGTH_MM = 6, 40.0
TISSUE_HU = -350
MIN_TISSUE_CC = 100.0  # less is no patient
WRONG_SIDE_SHARE = 0.1  # of what remains: less on the wrong side is a speck
# Of what remains: less removed is information, since the confidence counts it; in the calibration patients it was no organ.
APART_SHARE = 0.5
BRIDGE_HOLD_SLICES = 4


@dataclass(frozen=True, slots=True)
class HeadNeckOar:
    """Segmenter with the network in `folder` (model.json, weights, envelopes, calibration), read when first asked."""

    folder: Path
    kind: str = KIND
    labels: tuple[str, ...] = LABELS

    @property
    def version(self) -> str:
        """Version and start of the weights' SHA-256. Raises ModelUnverified when model.json is not there or not sound."""
        return _described(self.folder).full_version

    def verify(self) -> None:
        """Raises ModelUnverified unless every file of the model is there and as it was released. Runs nothing."""
        from segmentation.doubt import load_calibration, load_envelopes

        read_weights(read_description(self.folder, KIND))
        load_envelopes(self.folder)
        load_calibration(self.folder)

    def segment(self, volume: CtVolume, *, device: str = "cpu") -> Segmentation:
        """Organs and External of a CT of head and neck.

        Raises ModelUnverified before anything else, ModelRefused (device, input), OutputInvalid. An organ that was not
        found is left out and has its doubt.
        """
        from segmentation.doubt import assess, load_calibration, load_envelopes

        model = _loaded(self.folder, device)
        envelopes, calibration = load_envelopes(self.folder), load_calibration(self.folder)
        turn, spacing = turn_of(volume), standard_spacing_mm(volume)
        hu = np.ascontiguousarray(turn.forward(volume.hu))
        _refuse_what_is_no_patient(hu, spacing)
        working = to_working_grid(hu, spacing, model.description.working_spacing_zyx_mm)
        answers = model.ask(working.hu)
        clean = cleaned(answers.probability, self.labels, working.spacing_zyx_mm)
        evidence = Evidence(
            self.labels, working.hu, working.spacing_zyx_mm, answers.probability, answers.members, clean.masks
        )
        assessment = assess(evidence, envelopes, calibration)
        drawn = _drawn(evidence, hu, working)
        said = {(doubt.code, doubt.structure) for doubt in assessment.doubts}
        own = (*(_doubt_of(change) for change in clean.changes), *_lost(evidence, drawn))
        doubts = (*assessment.doubts, *(doubt for doubt in own if (doubt.code, doubt.structure) not in said))
        return Segmentation(
            {name: _turned(part.mask, turn) for name, part in drawn.items()},
            {name: assessment.confidence[name] for name in drawn},
            {name: _turned(part.confidence, turn) for name, part in drawn.items()},
            tuple(_on_volume(doubt, working, turn) for doubt in doubts),
        )

    def example(self) -> Example:
        """A head on a neck and shoulders with spine, jaw and airway, in air. What is sure of any model is its External."""
        return _phantom()


def _drawn(evidence: Evidence, hu: NDArray[np.int16], working: Working) -> dict[str, Drawn]:
    """Everything found, on the CT's grid, in the order of the labels."""
    body = evidence.names.index(BODY)
    organs = evidence.masks.copy()
    organs[body] = False
    drawn = drawn_organs(evidence.probability, organs, evidence.names, working)
    if evidence.masks[body].any():
        drawn[BODY] = drawn_external(evidence.probability[body], evidence.masks[body], hu, working)
        for name in drawn:
            _keep_inside(drawn[name].mask, drawn[BODY].mask)
    return {name: part for name, part in drawn.items() if part.mask.any()}


def _lost(evidence: Evidence, drawn: Mapping[str, Drawn]) -> list[Doubt]:
    """What has voxels on the working grid and none on the CT's."""
    lost = [name for name, mask in zip(evidence.names, evidence.masks, strict=True) if mask.any() and name not in drawn]
    text = "{} is too small to be drawn on the voxels of the CT"
    return [Doubt("ORGAN_NOT_FOUND", name, "hold", text.format(name)) for name in lost]


def _keep_inside(mask: NDArray[np.bool_], body: NDArray[np.bool_]) -> None:
    """An organ without what lies beyond the skin, in every slice of which something is left then."""
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        inside = mask[z] & body[z]
        if inside.any():
            mask[z] = inside


def _turned(array: NDArray, turn: Turn) -> NDArray:  # type: ignore[type-arg]
    return np.ascontiguousarray(turn.back(array))


def _on_volume(doubt: Doubt, working: Working, turn: Turn) -> Doubt:
    """A doubt whose place is that of the volume's own array."""
    if doubt.at is None:
        return doubt
    at = turn.index_back(source_index(working, doubt.at), working.source_shape_zyx)
    return Doubt(doubt.code, doubt.structure, doubt.severity, doubt.message, at)


def _doubt_of(change: Change) -> Doubt:
    """What the reviewer is told of a clean-up. Places are of the working grid."""
    name, found = change.structure, f"{change.cc:.1f} cm3 in {change.slices} slices"
    if change.kind == "wrong_side":
        side = "left" if name.endswith("_L") else "right"
        text = f"{found} were called {name} and do not lie on the patient's {side}; they were removed"
        return Doubt("WRONG_SIDE", name, "hold" if change.share >= WRONG_SIDE_SHARE else "info", text, change.at)
    if change.kind == "part_removed":
        text = f"{found} apart from the rest of {name} were removed"
        return Doubt("ORGAN_PART_REMOVED", name, "flag" if change.share >= APART_SHARE else "info", text, change.at)
    severity: Severity = "hold" if change.slices >= BRIDGE_HOLD_SLICES else "flag"
    text = f"the model found no {name} in {change.slices} slices between others; they were filled from their neighbours"
    return Doubt("SLICES_BRIDGED", name, severity, text, change.at)


def _refuse_what_is_no_patient(hu: NDArray[np.int16], spacing_zyx_mm: Float3) -> None:
    length_mm = hu.shape[0] * spacing_zyx_mm[0]
    if hu.shape[0] < MIN_SLICES or length_mm < MIN_LENGTH_MM:
        raise ModelRefused(
            f"CT of {hu.shape[0]} slices, {length_mm:.0f} mm: expected at least {MIN_SLICES} and {MIN_LENGTH_MM:.0f} mm"
        )
    tissue = hu > TISSUE_HU
    cc = float(np.count_nonzero(tissue)) * float(np.prod(spacing_zyx_mm)) / 1000.0
    if cc < MIN_TISSUE_CC:
        raise ModelRefused(f"CT with {cc:.0f} cm3 of tissue: expected a patient; check the series and its rescale slope")


@cache
def _described(folder: Path) -> ModelDescription:
    description = read_description(folder, KIND)
    if description.labels != LABELS:
        raise ModelUnverified(f"{folder} has channels {description.labels}, expected {LABELS}")
    if description.windows_hu != WINDOWS_HU:
        raise ModelUnverified(f"{folder} shows the network the windows {description.windows_hu}, expected {WINDOWS_HU}")
    return description


@cache
def _loaded(folder: Path, device: str) -> Model:
    from segmentation.inference import load_model

    return load_model(_described(folder), device)


def _phantom() -> Example:
    """Water head of 160 x 200 mm on a neck of 120 mm on shoulders, 192 mm long, voxels of 4 mm."""
    spacing: Float3 = (4.0, 4.0, 4.0)
    z, y, x = np.ogrid[:48, :64, :96]
    up, back, left = (z - 24) * 4.0, (y - 32) * 4.0, (x - 48) * 4.0
    head = (left / 80) ** 2 + (back / 100) ** 2 + ((up - 40) / 75) ** 2 < 1
    neck = ((left / 60) ** 2 + ((back - 10) / 62) ** 2 < 1) & (up < 40)
    shoulders = ((left / 175) ** 2 + ((back - 20) / 80) ** 2 < 1) & (up < -60)
    body = head | neck | shoulders
    spine = left**2 + (back - 40) ** 2 + 0 * z < 14**2
    canal = left**2 + (back - 46) ** 2 + 0 * z < 6**2
    jaw = (np.abs(np.hypot(left / 45, (back + 10) / 60) - 1) < 0.15) & (back < 10) & (np.abs(up) < 14)
    airway = (left**2 + (back + 8) ** 2 < 9**2) & (up < 10)
    hu = np.full(body.shape, -1000, np.int16)
    for part, value in ((body, 20), (spine & body, 500), (canal & body, 30), (jaw & body, 900), (airway & body, -1000)):
        hu[part] = value
    core = (left**2 + (back - 10) ** 2 < 40**2) & body
    far = (np.abs(left) > 185) | (np.abs(back - 10) > 115)
    return Example(CtVolume.standard(hu, spacing), {BODY: core}, {BODY: np.broadcast_to(far, body.shape) & ~body})


PLUGIN = HeadNeckOar(SHIPPED)
