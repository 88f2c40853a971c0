"""A MONAI bundle as a Segmenter: its answer lies on the CT's own voxels, whatever the order of the array."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SimpleInferer, SlidingWindowInferer
from small_bundle import (
    CHANNELS,
    NAMES,
    ORIENTATIONS,
    inference,
    metadata,
    phantom,
    pinned,
    step,
    tissue_weights,
    turned,
    turned_array,
    write_bundle,
)

from segmentation.bundle.geometry import ras_affine, ras_view
from segmentation.bundle.reduce import EachForItself, OneLabel
from segmentation.bundle.spec import NameTable, shipped_table
from segmentation.bundle.windows import blended, checked, rolling_axis
from segmentation.bundles import BundleSegmenter
from segmentation.contract import CtVolume, DeviceMissing, ModelRefused, ModelUnverified, OutputInvalid

SHAPE = (20, 24, 28)
IMAGE = {"keys": "image"}


def segmenter(folder: Path, *, names: NameTable = NAMES, **changes) -> BundleSegmenter:
    return BundleSegmenter(pinned(write_bundle(folder, **changes), names=names))


def with_transforms(*steps, load=None):
    """A configuration with other preprocessing between LoadImaged and the scaling of intensity."""
    scale = step("ScaleIntensityRanged", **IMAGE, a_min=-1000, a_max=1000, b_min=-1.0, b_max=1.0)
    first = load or step("LoadImaged", **IMAGE)
    channel = [] if load and load.get("ensure_channel_first") else [step("EnsureChannelFirstd", **IMAGE)]
    return inference(preprocessing=step("Compose", transforms=[first, *channel, *steps, scale]))


def codes(segmentation) -> dict[str, str]:
    return {doubt.code: doubt.severity for doubt in segmentation.doubts}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> BundleSegmenter:
    return segmenter(tmp_path_factory.mktemp("bundle") / "small")


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS, ids=lambda value: "".join(str(int(v)) for v in value))
def test_masks_lie_on_the_ct_in_every_order_of_the_array(small, axes, flips):
    # mutant: flip y only in ras_view; mutant: transpose by argsort(axes) in WayBack.fetched
    volume, truth = phantom(SHAPE)
    found = small.segment(turned(volume, axes, flips))
    assert set(found.masks) == set(truth)
    for name, mask in truth.items():
        assert np.array_equal(found.masks[name], turned_array(mask, axes, flips)), name


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS[::5], ids=lambda value: "".join(str(int(v)) for v in value))
def test_ras_is_lps_with_x_and_y_reversed(axes, flips):
    # mutant: leave out the sign of x in ras_affine
    volume = turned(phantom((4, 5, 6))[0], axes, flips)
    numbers = np.arange(volume.hu.size).reshape(volume.hu.shape)
    index = (1, 3, 2)
    there = np.argwhere(numbers == ras_view(volume, numbers)[index])[0]
    x, y, z = (volume.affine_lps_mm @ [*there, 1.0])[:3]
    assert np.allclose((ras_affine(volume) @ [*index, 1.0])[:3], (-x, -y, z))
    assert np.all(np.diag(ras_affine(volume)) > 0)


def test_a_bundle_that_does_not_turn_the_image_still_gets_it_one_way(tmp_path):
    # A network that marks the patient's right half: a ramp along the first axis, which it must always get the same way.
    # mutant: hand the array over as it lies
    config = with_transforms(
        step("Lambdad", **IMAGE, func="$lambda x: x * 0 + torch.linspace(-1000, 1000, x.shape[1])[None, :, None, None]")
    )
    model = segmenter(tmp_path / "ramp", config=config)
    volume, _ = phantom(SHAPE)
    first = model.segment(volume)
    for axes, flips in ORIENTATIONS[5::14]:
        again = model.segment(turned(volume, axes, flips))
        for name, mask in first.masks.items():
            assert np.array_equal(again.masks[name], turned_array(mask, axes, flips))
    # High values, Kidney_R, lie at the patient's right: low x of the standard array.
    assert (
        np.flatnonzero(first.masks["Kidney_R"].any(axis=(0, 1))).max()
        < np.flatnonzero(first.masks["Lung_L"].any(axis=(0, 1))).min()
    )


@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 1.0), (2.0, 3.0, 2.5)], ids=str)
@pytest.mark.parametrize("spacing_zyx_mm", [(3.0, 2.0, 1.5), (1.0, 2.0, 4.0)], ids=str)
def test_resampled_masks_come_back_to_where_the_organ_is(tmp_path, pixdim, spacing_zyx_mm):
    # mutant: half a voxel of offset in way_back; mutant: floor instead of rint
    config = with_transforms(
        step("Orientationd", **IMAGE, axcodes="RAS"), step("Spacingd", **IMAGE, pixdim=pixdim, mode="nearest")
    )
    model = segmenter(tmp_path / "spaced", config=config)
    volume, truth = phantom(SHAPE, spacing_zyx_mm)
    found = model.segment(volume)
    shift_mm = [
        (np.argwhere(found.masks[name]).mean(axis=0) - np.argwhere(mask).mean(axis=0)) * spacing_zyx_mm
        for name, mask in truth.items()
    ]
    # Each edge may move by half a voxel of the network's grid, but not all of them to one side.
    assert np.abs(shift_mm).max() <= 0.5 * max(pixdim)
    assert np.abs(np.mean(shift_mm, axis=0)).max() < 0.3 * max(pixdim)
    if max(pixdim) <= min(spacing_zyx_mm):
        assert all(np.array_equal(found.masks[name], mask) for name, mask in truth.items())


def test_cropping_and_padding_come_back_exactly(tmp_path):
    # mutant: ignore the affine of the preprocessed image; mutant: forget what was cut off before it was padded
    config = with_transforms(
        step("CropForegroundd", **IMAGE, source_key="image", select_fn="$lambda x: x > -999", margin=1),
        step("SpatialPadd", **IMAGE, spatial_size=[40, 40, 40]),  # with 0 HU, which is a kidney here
        step("Orientationd", **IMAGE, axcodes="PIR"),
    )
    volume, truth = phantom(SHAPE)
    found = segmenter(tmp_path / "cropped", config=config).segment(volume)
    assert all(np.array_equal(found.masks[name], mask) for name, mask in truth.items())
    unseen = ~np.any(list(truth.values()), axis=0)
    assert found.voxel_confidence["Lung_L"][unseen].min() == 0


def test_loader_that_puts_channels_first(tmp_path):
    config = with_transforms(load=step("LoadImaged", **IMAGE, ensure_channel_first=True, image_only=True))
    volume, truth = phantom(SHAPE)
    found = segmenter(tmp_path / "first", config=config).segment(volume)
    assert all(np.array_equal(found.masks[name], mask) for name, mask in truth.items())


def test_yaml_and_safetensors(tmp_path):
    import safetensors.torch
    import yaml

    folder = write_bundle(tmp_path / "other")
    (folder / "configs" / "inference.json").unlink()
    (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(inference()))
    safetensors.torch.save_file(tissue_weights(), folder / "models" / "model.safetensors")
    volume, truth = phantom(SHAPE)
    found = BundleSegmenter(pinned(folder, weights_file="models/model.safetensors")).segment(volume)
    assert all(np.array_equal(found.masks[name], mask) for name, mask in truth.items())


def test_union_of_channels_and_one_channel_in_two_structures(tmp_path):
    # mutant: take the first channel of a union only
    names = NameTable({"Lung_L": ("lung_low", "lung_high"), "Lung_LUL": ("lung_high",), "Heart": ("kidney_l", "odd_thing")})
    volume, truth = phantom(SHAPE)
    found = segmenter(tmp_path / "union", names=names).segment(volume)
    assert np.array_equal(found.masks["Lung_L"], truth["Lung_L"] | truth["Lung_R"])
    assert np.array_equal(found.masks["Lung_LUL"], truth["Lung_R"])
    half = [doubt for doubt in found.doubts if doubt.code == "PART_NOT_FOUND"]
    assert [(doubt.structure, doubt.severity) for doubt in half] == [("Heart", "flag")]
    assert "odd_thing" in half[0].message


def test_what_was_not_found_or_not_named_is_said(small):
    volume, truth = phantom(SHAPE)
    hu = np.where(truth["Kidney_R"], 900, np.where(truth["Kidney_L"], -1000, volume.hu)).astype(np.int16)
    found = small.segment(CtVolume(hu, volume.affine_lps_mm))
    assert set(found.masks) == {"Lung_L", "Lung_R"}
    absent = {doubt.structure for doubt in found.doubts if doubt.code == "ORGAN_NOT_FOUND"}
    assert absent == {"Kidney_L", "Kidney_R"}
    (unmapped,) = [doubt for doubt in found.doubts if doubt.code == "CHANNEL_UNMAPPED"]
    assert "odd_thing" in unmapped.message and "background" not in unmapped.message
    assert codes(found)["MODEL_NOT_VALIDATED"] == "flag"


def test_swapped_names_are_held(tmp_path):
    # mutant: compare the sides the other way about
    names = NameTable(
        {"Lung_R": ("lung_low",), "Lung_L": ("lung_high",), "Kidney_L": ("kidney_l",), "Kidney_R": ("kidney_r",)}
    )
    found = segmenter(tmp_path / "swapped", names=names).segment(phantom(SHAPE)[0])
    swapped = {(doubt.structure, doubt.severity) for doubt in found.doubts if doubt.code == "SIDES_SWAPPED"}
    assert swapped == {("Lung_L", "hold"), ("Lung_R", "hold")}


def test_remark_of_the_table_is_passed_on(tmp_path):
    names = NameTable(dict(NAMES.channels), {"Kidney_L": "without its pelvis", "Kidney_R": "without its pelvis"})
    found = segmenter(tmp_path / "remark", names=names).segment(phantom(SHAPE)[0])
    (remark,) = [doubt for doubt in found.doubts if doubt.code == "DEFINITION_DIFFERS"]
    assert remark.message == "Kidney_L, Kidney_R: without its pelvis" and remark.structure is None


def test_step_of_the_bundle_that_is_not_done_is_said(tmp_path):
    config = inference()
    config["postprocessing"]["transforms"].insert(2, step("FillHolesd", keys="pred"))
    found = segmenter(tmp_path / "holes", config=config).segment(phantom(SHAPE)[0])
    (left_out,) = [doubt for doubt in found.doubts if doubt.code == "BUNDLE_STEP_LEFT_OUT"]
    assert "FillHolesd" in left_out.message


def test_confidence_falls_where_the_network_wavers(small):
    # mutant: report 1.0
    volume, truth = phantom(SHAPE)
    hu = volume.hu.copy()
    z, y, x = np.argwhere(truth["Kidney_L"])[0]
    hu[z, y, x] = 199  # one HU from the next channel
    found = small.segment(CtVolume(hu, volume.affine_lps_mm))
    sure = found.voxel_confidence["Kidney_L"]
    assert 50 <= sure[z, y, x] <= 56
    assert sure[truth["Kidney_R"]].min() > 95
    assert 0.9 < found.confidence["Kidney_L"] < small.segment(volume).confidence["Kidney_L"] <= 1.0


def sigmoid_config(threshold: float):
    return inference(
        postprocessing=step(
            "Compose",
            transforms=[
                step("Activationsd", keys="pred", sigmoid=True),
                step("AsDiscreted", keys="pred", threshold=threshold),
            ],
        )
    )


def test_channels_each_for_itself(tmp_path):
    # mutant: use 0.5 whatever the configuration says
    line = {"weight": torch.full((len(CHANNELS), 1, 1, 1, 1), 4.0), "bias": torch.zeros(len(CHANNELS))}
    volume, _ = phantom(SHAPE)
    ramp = np.broadcast_to(np.linspace(-1000, 1000, SHAPE[2]).astype(np.int16), SHAPE).copy()
    for threshold in (0.5, 0.9):
        model = segmenter(tmp_path / str(threshold), config=sigmoid_config(threshold), weights=line)
        found = model.segment(CtVolume(ramp, volume.affine_lps_mm))
        share = 1 / (1 + np.exp(-4 * ramp / 1000.0))
        assert np.array_equal(found.masks["Lung_L"], share >= threshold)
        sure = np.where(share >= threshold, share, 1 - share)
        assert np.abs(found.voxel_confidence["Lung_L"] / 100 - sure).max() < 0.006
        assert found.confidence["Lung_L"] == pytest.approx(
            2 * share[share >= threshold].sum() / ((share >= threshold).sum() + share.sum()), abs=1e-4
        )


@pytest.mark.parametrize("shape", [(13, 40, 21), (33, 17, 29), (9, 11, 10), (64, 8, 8)], ids=str)
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.25, 0.6])
def test_ring_of_windows_gives_what_monai_gives(shape, mode, overlap):
    # mutant: no padding offset; mutant: ring one row too short; mutant: forget to clear finished rows
    torch.manual_seed(1)
    network = torch.nn.Conv3d(1, 3, 3, padding=1)
    image = torch.randn(1, 1, *shape)
    inferer = SlidingWindowInferer((12, 16, 10), 3, overlap, mode, padding_mode="replicate")
    with torch.inference_mode():
        expected = inferer(image, network)[0]
        pieces = list(blended(image, checked(network, 3), inferer, 3))
    axis = rolling_axis(shape)
    assert [start for start, _ in pieces] == [0, *np.cumsum([piece.shape[1] for _, piece in pieces])[:-1]]
    whole = torch.cat([piece for _, piece in pieces], 1).movedim(1, 1 + axis)
    assert torch.allclose(whole, expected, atol=1e-5)


def test_other_inferers_are_used_as_they_are_unless_too_large(monkeypatch):
    network = torch.nn.Conv3d(1, 3, 1)
    image = torch.randn(1, 1, 8, 12, 10)
    with torch.inference_mode():
        whole = torch.cat([p for _, p in blended(image, checked(network, 3), SimpleInferer(), 3)], 1)
        assert torch.equal(whole, network(image)[0].movedim(2, 1))
    monkeypatch.setattr("segmentation.bundle.windows.WHOLE_OUTPUT_MAX_BYTES", 1000)
    with pytest.raises(ModelRefused, match="at once"):
        next(blended(image, checked(network, 3), SimpleInferer(), 3))


def test_labels_do_not_depend_on_the_pieces():
    torch.manual_seed(2)
    output = torch.randn(5, 12, 6, 7)
    unions = [(1,), (2, 3), (4,)]
    for make in (lambda: OneLabel(unions, 5, (12, 6, 7)), lambda: EachForItself(unions, 0.5, (12, 6, 7))):
        whole, cut = make(), make()
        whole.take(0, output)
        for start in (0, 5, 6):
            stop = {0: 5, 5: 6, 6: 12}[start]
            cut.take(start, output[:, start:stop])
        for number in range(3):
            assert whole.box(number) == cut.box(number)
            assert np.array_equal(whole.mask(number), cut.mask(number))
            assert whole.expected_dice(number) == pytest.approx(cut.expected_dice(number), rel=1e-5)


def test_output_that_is_no_segmentation(tmp_path):
    volume, _ = phantom(SHAPE)
    broken = tissue_weights()
    broken["bias"][2] = float("nan")
    with pytest.raises(OutputInvalid, match="not finite"):
        segmenter(tmp_path / "nan", weights=broken).segment(volume)
    with pytest.raises(OutputInvalid, match="6 output channels"):
        segmenter(tmp_path / "count", meta=metadata((*CHANNELS, "one_more"))).segment(volume)
    strided = inference(network_def=step("torch.nn.Conv3d", in_channels=1, out_channels=6, kernel_size=1, stride=2))
    with pytest.raises(OutputInvalid, match="came out as"):
        segmenter(tmp_path / "small", config=strided).segment(volume)


REFUSED = {
    "turned by an angle": with_transforms(step("Rotated", **IMAGE, angle=[0.1, 0.0, 0.0])),
    "left to chance": with_transforms(step("RandFlipd", **IMAGE, prob=0.5)),
    "geometry lost": with_transforms(step("Lambdad", **IMAGE, func="$lambda x: x.as_tensor()", track_meta=False)),
    "not finite": with_transforms(step("Lambdad", **IMAGE, func="$lambda x: x * float('nan')")),
    "no such transform": with_transforms(step("NoSuchTransformd", **IMAGE)),
    "raises": with_transforms(step("Lambdad", **IMAGE, func="$lambda x: 1 / 0")),
    "no loader": inference(preprocessing=step("Compose", transforms=[step("EnsureChannelFirstd", **IMAGE)])),
    "no list": inference(preprocessing="$monai.transforms.Compose([])"),
    "two images": with_transforms(load=step("LoadImaged", keys=["image", "label"])),
    "another file": inference(inferer="%other.json::inferer"),
    "no network": inference(network_def={"a": 1}),
    "no inferer": inference(inferer=None),
    "no activation": inference(postprocessing=step("Compose", transforms=[])),
    "own activation": inference(
        postprocessing=step("Compose", transforms=[step("Activationsd", keys="pred", other="$lambda x: x")])
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bundle_that_cannot_be_used_is_refused(tmp_path, case):
    with pytest.raises(ModelRefused):
        segmenter(tmp_path / "refused", config=REFUSED[case]).segment(phantom(SHAPE)[0])


def test_weights_of_another_network(tmp_path):
    with pytest.raises(ModelUnverified, match="not those of the network"):
        segmenter(tmp_path / "other", weights={"weight": torch.zeros(6, 1, 1, 1, 1)}).segment(phantom(SHAPE)[0])


def test_pickle_that_builds_more_than_tensors_is_refused(tmp_path):
    # mutant: weights_only=False
    marker = tmp_path / "executed"
    folder = write_bundle(tmp_path / "pickle")
    (folder / "models" / "model.pt").write_bytes(pickle.dumps(_Touch(str(marker))))
    with pytest.raises(ModelRefused, match="plain tensors"):
        BundleSegmenter(pinned(folder)).segment(phantom(SHAPE)[0])
    torch.save({"weight": _Touch(str(marker))}, folder / "models" / "model.pt")
    with pytest.raises(ModelRefused, match="plain tensors"):
        BundleSegmenter(pinned(folder)).segment(phantom(SHAPE)[0])
    assert not marker.exists()


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:7", ""])
def test_device_that_is_not_there(small, device):
    with pytest.raises(DeviceMissing, match="device"):
        small.segment(phantom(SHAPE)[0], device=device)


def test_example_is_managed_and_repeatable(small):
    volume = small.example().volume
    first, second = small.segment(volume), small.segment(volume)
    assert first.confidence == second.confidence
    assert all(np.array_equal(first.masks[name], second.masks[name]) for name in first.masks)
    assert set(first.masks) <= set(small.labels)
    assert pickle.loads(pickle.dumps(small)) == small


def test_naming_a_bundle_loads_neither_torch_nor_monai(tmp_path):
    # mutant: import torch at the top of segmentation/bundle/files.py
    folder = write_bundle(tmp_path / "light")
    code = (
        "import sys\nfrom pathlib import Path\nfrom segmentation.bundle.files import pin\nimport segmentation.bundles\n"
        f"pin(Path({str(folder)!r}))\nassert not {{'torch', 'monai'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_table_of_the_whole_body_bundle():
    # mutant: swap two sides in the table
    table = shipped_table("wholeBody_ct_segmentation")
    file = Path(__file__).parents[2] / "segmentation" / "bundle_tables" / "wholeBody_ct_segmentation.json"
    data = json.loads(file.read_text())
    channels = data["channels"]
    assert len(channels) == len(set(channels)) == 105
    used = {part for union in table.channels.values() for part in union}
    assert used | set(data["unmapped"]) | {"background"} == set(channels)
    assert not used & set(data["unmapped"])
    assert len(table.channels["Lung_L"]) == 2 and len(table.channels["Lung_R"]) == 3
    for name, union in table.channels.items():
        side = {"L": "left", "R": "right"}.get(name.rsplit("_", 1)[-1])
        if name.startswith("Lung_"):
            side = {"L": "left", "R": "right"}[name[5]]
        for part in union:
            words = part.split("_")
            assert {"left", "right"} & set(words) == (
                {side} if side and name not in ("Ventricle_L",) else set(words) & {"left", "right"}
            ), (name, part)
