"""TG-119's mock cases: the dimensions of its description, and a protocol that knows every structure."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label

from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.read_rtstruct import read_rtstruct
from rtplan.library.protocols import load_protocol
from rtplan.steps.ingest import body_mask
from rtplan.steps.segment import structures_from_contours
from sample_data.phantom import Phantom, centred_grid, ellipsoid
from sample_data.tg119_mock import distance_mm, head_neck_mock, prostate
from sample_data.write_dicom import write_phantom

DRAW = {"tg119_prostate": prostate, "tg119_head_neck": head_neck_mock}


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Phantom]:
    return {name: draw() for name, draw in DRAW.items()}


def extent_mm(phantom: Phantom, mask: np.ndarray) -> list[float]:
    """Right-left, anterior-posterior, superior-inferior."""
    sizes = [(np.ptp(axis) + 1) * s for axis, s in zip(np.nonzero(mask), phantom.grid.spacing_zyx_mm, strict=True)]
    return sizes[::-1]


def gap_mm(phantom: Phantom, first: str, second: str) -> float:
    """Smallest distance between voxel centres of two structures."""
    away = distance_transform_edt(~phantom.masks[first], sampling=phantom.grid.spacing_zyx_mm)
    return float(away[phantom.masks[second]].min())


def share(phantom: Phantom, organ: str, other: str) -> float:
    """How much of an organ lies in another structure."""
    mask = phantom.masks[organ]
    return float((mask & phantom.masks[other]).sum() / mask.sum())


@pytest.mark.parametrize("name", DRAW)
def test_the_engine_reads_back_every_mask_under_a_name_of_the_protocol(name, phantoms, tmp_path):
    phantom = phantoms[name]
    write_phantom(phantom, tmp_path)
    ct = read_ct(tmp_path / "CT")
    protocol = load_protocol(phantom.protocol_id)
    structures = structures_from_contours(read_rtstruct(tmp_path / "RS.dcm", ct), ct, body_mask(ct), protocol)
    assert {s.source_name for s in structures} == set(phantom.masks)
    for s in structures:
        assert np.array_equal(s.mask, phantom.masks[s.source_name]), s.name
    known = {"External", *(level.target for level in protocol.levels), *(organ.name for organ in protocol.organs)}
    assert set(structures.names) == known
    assert set(np.unique(phantom.hu)) == {-1000, 0}
    for mask in phantom.masks.values():
        assert label(mask)[1] == 1 and not np.any(mask & ~phantom.masks["BODY"])


def test_the_prostate_has_the_dimensions_of_the_description(phantoms):
    # mutant: margin of 6 mm left out; axes of the ellipsoid swapped; rectum in front
    phantom = phantoms["tg119_prostate"]
    masks = phantom.masks
    right_left, front_back, along = extent_mm(phantom, masks["PTV"])
    assert right_left == pytest.approx(40 + 12, abs=2.1) and along == pytest.approx(65 + 12, abs=2.6)
    # The concavity takes a part of what the margin adds behind.
    assert 26 + 6 < front_back <= 26 + 12
    assert extent_mm(phantom, masks["Rectum"])[:2] == pytest.approx([15, 15], abs=2.1)
    bladder = extent_mm(phantom, masks["Bladder"])
    assert bladder[0] == pytest.approx(50, abs=2.1) and bladder[1] == pytest.approx(40, abs=2.1)
    y = {name: phantom.grid.y_mm()[np.nonzero(mask)[1]].mean() for name, mask in masks.items()}
    z = {name: phantom.grid.z_mm()[np.nonzero(mask)[0]].mean() for name, mask in masks.items()}
    assert y["Bladder"] < y["PTV"] < y["Rectum"] and z["Bladder"] > z["PTV"] + 20


def test_the_rectum_reaches_into_the_target_as_described(phantoms):
    # mutant: the rectum 4 mm further back; the PTV kept out of it
    phantom = phantoms["tg119_prostate"]
    ptv, rectum = phantom.masks["PTV"], phantom.masks["Rectum"]
    widest = int(ptv.sum(axis=(1, 2)).argmax())
    assert 0.3 < (ptv & rectum)[widest].sum() / rectum[widest].sum() < 0.45
    assert 0.05 < share(phantom, "Bladder", "PTV") < 0.12


def test_the_target_of_the_neck_keeps_off_skin_cord_and_parotids(phantoms):
    # mutant: retracted by 3 mm; cord's 15 mm left out; parotids not cut out
    phantom = phantoms["tg119_head_neck"]
    masks, spacing = phantom.masks, phantom.grid.spacing_zyx_mm
    depth = distance_transform_edt(masks["BODY"], sampling=spacing)[masks["PTV"]]
    assert 5.5 < depth.min() < 8.5
    assert 14.5 < gap_mm(phantom, "Cord", "PTV") < 18
    for side in ("L", "R"):
        assert 3.5 < gap_mm(phantom, f"Parotid {side}", "PTV") < 7
    assert extent_mm(phantom, masks["PTV"])[2] == 90
    assert 500 < masks["PTV"].sum() * phantom.grid.voxel_cc < 800


def test_the_neck_is_in_front_of_the_cord_and_the_parotids_at_its_superior_sides(phantoms):
    # mutant: left and right swapped; parotids at the inferior end
    phantom = phantoms["tg119_head_neck"]

    def centre_mm(name: str) -> np.ndarray:
        return phantom.grid.to_point_mm(np.argwhere(phantom.masks[name]).mean(axis=0))

    assert centre_mm("PTV")[1] < centre_mm("Cord")[1] - 20
    assert centre_mm("Parotid L")[0] > 40 and centre_mm("Parotid R")[0] < -40
    assert centre_mm("Parotid L")[2] == pytest.approx(30, abs=1.3)
    assert np.array_equal(phantom.masks["Parotid L"][:, :, ::-1], phantom.masks["Parotid R"])
    assert np.array_equal(phantom.masks["PTV"][:, :, ::-1], phantom.masks["PTV"])
    # The posterior nodes lie on both sides of the cord, and nothing behind it.
    behind = phantom.masks["PTV"][34] & (phantom.grid.y_mm() > 28)[:, None]
    x = phantom.grid.x_mm()[np.nonzero(behind)[1]]
    assert (x > 21).any() and (x < -21).any() and np.abs(x).min() > 20


def test_distances_to_a_shape_hold_to_half_a_millimetre():
    # mutant: the fine grid shifted by a voxel; a quarter of a fine voxel not taken off
    grid = centred_grid((20, 24, 28), (2.5, 2.0, 2.0))
    ball = distance_mm(grid, lambda g: ellipsoid(g, (1.0, 2.0, -1.0), (9.0, 9.0, 9.0)), reach_mm=10.0)
    true = np.maximum(ellipsoid(grid, (1.0, 2.0, -1.0), (9.0, 9.0, 9.0)), 0.0)
    near = true < 8.0
    assert np.abs(ball - true)[near].max() < 0.55
    assert abs((ball - true)[near & (true > 1.0)].mean()) < 0.1
    assert (ball[true > 14.0] > 10.0).all()
