"""Every model on the shelf: the same patient in any array, the same bits again, and refusal of what is no patient."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtplan.registry import shelf
from segmentation.contract import (
    VOCABULARY,
    CtVolume,
    DeviceMissing,
    ModelRefused,
    ModelUnverified,
    OutputInvalid,
    Segmentation,
    Segmenter,
)
from segmentation.models import head_neck_oar
from segmentation.models.head_neck_oar import SHIPPED, HeadNeckOar
from segmentation.orientation import standard_spacing_mm, turn_of
from tests.small_model import believing_model

PLUGINS = shelf("segmentation.models")
COMPLETE = all((SHIPPED / name).exists() for name in ("model.json", "envelopes.json", "calibration.json"))
# Row and column direction (ImageOrientationPatient) of the eight patient positions; slices run along their product.
POSITIONS = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, 1, 0), (-1, 0, 0)),
    "HFDL": ((0, -1, 0), (1, 0, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "FFDR": ((0, -1, 0), (-1, 0, 0)),
    "FFDL": ((0, 1, 0), (1, 0, 0)),
}

Array = NDArray[Any]


@pytest.fixture(scope="module", params=sorted(PLUGINS))
def model(request, tmp_path_factory) -> Segmenter:
    """A plug-in; one that reads a folder gets a small network with random weights."""
    plugin = PLUGINS[request.param]
    if not hasattr(plugin, "folder"):
        return plugin
    # On coarse voxels, since what is tested is where they come from and go to, some hundred times.
    coarse = {"working_spacing_zyx_mm": [8.0, 10.0, 10.0], "roi_zyx": [32, 32, 48]}
    return replace(plugin, folder=believing_model(tmp_path_factory.mktemp("m"), **coarse))


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> HeadNeckOar:
    return HeadNeckOar(believing_model(tmp_path_factory.mktemp("network")))


def small(model: Segmenter) -> CtVolume:
    """The model's example on every third voxel of each slice and with a mark that breaks every symmetry."""
    volume = model.example().volume
    step = 3 if volume.hu.shape[1] < 100 else 4
    hu = volume.hu[:: 2 if len(volume.hu) > 30 else 1, ::step, ::step].copy()
    z, y, x = (n // 2 for n in hu.shape)
    hu[z + 1 : z + 4, y - 3 : y, x + 2 : x + 6] = 1200
    spacing = standard_spacing_mm(volume)
    return CtVolume.standard(hu, (spacing[0] * volume.hu.shape[0] / len(hu), spacing[1] * step, spacing[2] * step))


def turned(volume: CtVolume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[CtVolume, Callable[[Array], Array]]:
    """The same patient in another array, and how an array of the other comes back to that of the first."""

    def change(array: Array) -> Array:
        return np.flip(array.transpose(axes), [i for i in range(3) if flips[i]])

    affine = volume.affine_lps_mm[:, [*axes, 3]].copy()
    for axis in range(3):
        if flips[axis]:
            affine[:3, 3] += (volume.hu.shape[axes[axis]] - 1) * affine[:3, axis]
            affine[:3, axis] *= -1
    back = np.argsort(axes)
    return (
        CtVolume(np.ascontiguousarray(change(volume.hu)), affine),
        lambda array: np.flip(array, [i for i in range(3) if flips[i]]).transpose(back),
    )


def assert_same(first: Segmentation, other: Segmentation, back: Callable[[Array], Array]) -> None:
    assert first.masks and set(first.masks) == set(other.masks)
    for name, mask in first.masks.items():
        assert np.array_equal(back(other.masks[name]), mask), name
    for name, map_ in first.voxel_confidence.items():
        assert np.array_equal(back(other.voxel_confidence[name]), map_), name
    assert dict(first.confidence) == dict(other.confidence)
    shape = next(iter(other.masks.values())).shape
    for doubt, same in zip(first.doubts, other.doubts, strict=True):
        if doubt.at is not None and same.at is not None:
            mark = np.zeros(shape, bool)
            mark[same.at] = True
            assert back(mark)[doubt.at], doubt  # mutant: the place on the standard array
    assert [(d.code, d.structure, d.severity) for d in first.doubts] == [
        (d.code, d.structure, d.severity) for d in other.doubts
    ]


def test_same_patient_in_all_48_arrays(model):
    """mutants: `back` without reversing the flips; `forward` that transposes by the inverse permutation."""
    volume = small(model)
    first = model.segment(volume)
    assert any(mask.any() and not mask.all() for mask in first.masks.values())
    for axes, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        other, back = turned(volume, axes, flips)
        assert_same(first, model.segment(other), back)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("reversed_slices", [False, True], ids=["", "reversed slices"])
def test_same_patient_in_the_eight_positions(model, position, reversed_slices):
    row, column = (np.array(d) for d in POSITIONS[position])
    normal = np.cross(row, column) * (-1 if reversed_slices else 1)
    volume = small(model)
    lps_of_axis = (2, 1, 0)
    wanted = [(lps_of_axis.index(int(np.abs(d).argmax())), bool(d.sum() < 0)) for d in (normal, column, row)]
    other, back = turned(volume, tuple(axis for axis, _ in wanted), tuple(flip for _, flip in wanted))
    step = other.affine_lps_mm[:3, :3] / np.linalg.norm(other.affine_lps_mm[:3, :3], axis=0)
    np.testing.assert_allclose(step, np.stack([normal, column, row], axis=1), atol=1e-12)
    assert_same(model.segment(volume), model.segment(other), back)


def test_same_bits_again(model):
    volume = small(model)
    assert_same(model.segment(volume), model.segment(volume), lambda array: array)


def test_what_comes_out_is_of_the_vocabulary_and_on_the_volumes_array(model):
    volume = small(model)
    other, _ = turned(volume, (2, 0, 1), (True, False, True))
    found = model.segment(other)
    assert set(found.masks) <= set(model.labels) <= VOCABULARY
    assert len(set(model.labels)) == len(model.labels) and model.version
    for name, mask in found.masks.items():
        assert mask.shape == other.hu.shape and mask.dtype == bool and mask.any(), name
    for name, map_ in found.voxel_confidence.items():
        assert map_.shape == other.hu.shape and map_.dtype == np.uint8 and map_.max() <= 100, name
    for doubt in found.doubts:
        assert doubt.at is None or all(0 <= i < n for i, n in zip(doubt.at, other.hu.shape, strict=True)), doubt


def test_input_is_left_alone(model):
    volume = small(model)
    before = volume.hu.copy()
    model.segment(volume)
    assert np.array_equal(volume.hu, before)


def test_external_of_the_threshold_is_the_same_at_other_spacing():
    plugin = PLUGINS["body_threshold"]
    example = plugin.example()
    fine, spacing = example.volume, standard_spacing_mm(example.volume)
    coarse = CtVolume.standard(np.ascontiguousarray(fine.hu[:, ::2, ::2]), (spacing[0], 2 * spacing[1], 2 * spacing[2]))
    found, expected = plugin.segment(coarse).masks["External"], plugin.segment(fine).masks["External"][:, ::2, ::2]
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) >= 0.95


def _surely(model: Segmenter) -> None:
    example = model.example()
    found = model.segment(example.volume)
    for name, inside in example.inside.items():
        assert found.masks[name][inside].all(), name
    for name, outside in example.outside.items():
        assert not found.masks[name][outside].any(), name


def test_threshold_manages_its_example():
    _surely(PLUGINS["body_threshold"])


@pytest.mark.skipif(not COMPLETE, reason="no weights in segmentation/shipped/head_neck_oar")
def test_shipped_model_manages_its_example_in_any_array():
    plugin = PLUGINS["head_neck_oar"]
    _surely(plugin)
    volume = plugin.example().volume
    other, back = turned(volume, (1, 2, 0), (True, False, True))
    assert_same(plugin.segment(volume), plugin.segment(other), back)


def changed_model(tmp_path, **changed) -> HeadNeckOar:
    folder = believing_model(tmp_path / "changed")
    said = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(said | changed))
    return HeadNeckOar(folder)


def test_model_without_files_is_refused(tmp_path, network):
    volume = small(network)
    for model in (HeadNeckOar(tmp_path / "nothing"), changed_model(tmp_path, version="0.0.2")):
        with pytest.raises(ModelUnverified):
            model.segment(volume)
    with pytest.raises(ModelUnverified):
        _ = HeadNeckOar(tmp_path / "nothing").version


def test_changed_weights_are_refused(tmp_path, network):
    folder = believing_model(tmp_path / "tampered")
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ModelUnverified, match="SHA-256"):
        HeadNeckOar(folder).segment(small(network))


@pytest.mark.parametrize("missing", ["envelopes.json", "calibration.json"])
def test_model_that_cannot_doubt_is_refused(tmp_path, network, missing):
    folder = believing_model(tmp_path / "sure")
    (folder / missing).unlink()
    with pytest.raises(ModelUnverified):
        HeadNeckOar(folder).segment(small(network))


def test_channels_in_another_order_are_refused(tmp_path, network):
    labels = [*reversed(network.labels)]
    with pytest.raises(ModelUnverified, match="channels"):
        changed_model(tmp_path, labels=labels).segment(small(network))


def test_other_windows_than_the_weights_were_trained_on_are_refused(tmp_path, network):
    # mutant: no look at windows_hu, which the weights' hash does not hold
    with pytest.raises(ModelUnverified, match="windows"):
        changed_model(tmp_path, windows_hu=[[-160, 240], [-1000, 1500]]).segment(small(network))


def test_five_slices_a_short_scan_and_air_are_refused(network):
    volume = small(network)
    spacing = standard_spacing_mm(volume)
    with pytest.raises(ModelRefused, match="5 slices"):
        network.segment(CtVolume.standard(volume.hu[:5].copy(), (20.0, *spacing[1:])))
    with pytest.raises(ModelRefused, match="35 mm"):
        network.segment(CtVolume.standard(volume.hu[:7].copy(), (5.0, *spacing[1:])))
    with pytest.raises(ModelRefused, match="tissue"):
        network.segment(CtVolume.standard(np.full_like(volume.hu, -1000), spacing))


def test_absent_device_is_refused(network):
    with pytest.raises(DeviceMissing, match="device"):
        network.segment(small(network), device="cuda:99")


class Fixed:
    """Stands for a loaded model: answers what it is told, on the working grid."""

    def __init__(self, description, answer):
        self.description, self.answer = description, answer

    def ask(self, hu):
        from segmentation.inference import Answers

        probability = self.answer(hu)
        return Answers(probability, np.stack([probability > 0.5] * 3))


def answering(monkeypatch, network: HeadNeckOar, answer: Callable[[Array], Array]) -> Segmentation:
    from segmentation.weights import read_description

    fixed = Fixed(read_description(network.folder, network.kind), answer)
    monkeypatch.setattr(head_neck_oar, "_loaded", lambda folder, device: fixed)
    return network.segment(network.example().volume)


def body_and(network: HeadNeckOar, **organs: Callable[[Array, Array, Array], Array]) -> Callable[[Array], Array]:
    """Probabilities of a body where there is tissue, and of organs given by their voxels (z, y, x)."""

    def answer(hu: Array) -> Array:
        grid = np.ogrid[tuple(slice(n) for n in hu.shape)]
        out = np.full((len(network.labels), *hu.shape), 0.01, np.float32)
        out[network.labels.index("External")] = np.where(hu > -500, 0.99, 0.01)
        for name, inside in organs.items():
            out[network.labels.index(name)][np.broadcast_to(inside(*grid), hu.shape)] = 0.9
        return out

    return answer


def test_organ_that_was_not_found_has_no_mask_and_a_doubt(monkeypatch, network):
    """mutant: an all-false mask for what was not found, which looks like a finished contour."""
    found = answering(monkeypatch, network, body_and(network, Brainstem=lambda z, y, x: ball(z, y, x, (44, 33, 48), 5)))
    assert set(found.masks) == {"Brainstem", "External"}
    missing = {d.structure for d in found.doubts if d.code in ("ORGAN_NOT_FOUND", "ORGAN_OUTSIDE_SCAN")}
    assert {"SpinalCord", "Larynx", "Parotid_L"} <= missing


def ball(z: Array, y: Array, x: Array, at: tuple[int, int, int], radius: float) -> Array:
    return (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < radius**2


def test_left_gland_on_the_right_is_removed_and_held(monkeypatch, network):
    """mutant: x taken to rise to the right; a swap of names in place of a doubt."""
    right_of_middle = lambda z, y, x: ball(z, y, x, (44, 33, 38), 4)  # noqa: E731
    found = answering(monkeypatch, network, body_and(network, Parotid_L=right_of_middle, Parotid_R=right_of_middle))
    assert "Parotid_L" not in found.masks
    found = answering(monkeypatch, network, body_and(network, Parotid_L=right_of_middle))
    assert not {"Parotid_L", "Parotid_R"} & set(found.masks)
    (doubt,) = (d for d in found.doubts if d.code == "WRONG_SIDE")
    assert doubt.structure == "Parotid_L" and doubt.severity == "hold"
    # The place is where the part was: x 38 of 99 working voxels is left of the middle of the array, the patient's right.
    assert doubt.at is not None and doubt.at[2] < network.example().volume.hu.shape[2] / 2 - 5


def test_body_too_thin_to_be_drawn_is_not_found(monkeypatch, network):
    """One voxel of the working grid can vanish on the CT's. mutant: an empty mask for it."""

    def answer(hu: Array) -> Array:
        out = np.full((len(network.labels), *hu.shape), 0.01, np.float32)
        out[network.labels.index("External"), 30, 30, 50] = 0.501
        return out

    found = answering(monkeypatch, network, answer)
    assert "External" not in found.masks
    assert ("ORGAN_NOT_FOUND", "External", "hold") in {(d.code, d.structure, d.severity) for d in found.doubts}


def test_two_halves_of_an_organ_are_told(monkeypatch, network):
    halves = lambda z, y, x: ball(z, y, x, (48, 28, 50), 4) | ball(z, y, x, (36, 40, 50), 4)  # noqa: E731
    found = answering(monkeypatch, network, body_and(network, Larynx=halves))
    codes = {d.code for d in found.doubts if d.structure == "Larynx"}
    assert codes & {"ORGAN_PART_REMOVED", "ORGAN_IN_PIECES", "SLICES_BRIDGED"}


def test_logits_that_are_no_numbers_end_it(monkeypatch, network):
    def broken(hu: Array) -> Array:
        raise OutputInvalid("member 'larger' of head_neck_oar: logits that are not finite")

    with pytest.raises(OutputInvalid, match="larger"):
        answering(monkeypatch, network, broken)


def test_turn_is_its_own_way_back():
    volume = CtVolume.standard(np.arange(24, dtype=np.int16).reshape(2, 3, 4), (3.0, 2.0, 1.0))
    other, _ = turned(volume, (2, 0, 1), (True, False, True))
    assert np.array_equal(turn_of(other).forward(other.hu), volume.hu)
    assert standard_spacing_mm(other) == (3.0, 2.0, 1.0)
