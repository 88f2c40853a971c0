"""The sample data: reproducible, of the dimensions that were promised, and readable by the engine and by SimpleITK."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import yaml
from scipy.ndimage import center_of_mass, distance_transform_edt, label

SAMPLE_DATA = Path(__file__).resolve().parents[2] / "sample_data"
if str(SAMPLE_DATA.parent) not in sys.path:
    sys.path.insert(0, str(SAMPLE_DATA.parent))

from rtplan.dicom.read_ct import read_ct  # noqa: E402
from rtplan.dicom.read_rtstruct import read_rtstruct  # noqa: E402
from rtplan.domain.contours import rasterise  # noqa: E402
from rtplan.library.protocols import load_protocol  # noqa: E402
from rtplan.steps.ingest import body_mask  # noqa: E402
from rtplan.steps.segment import structures_from_contours  # noqa: E402
from sample_data.head_neck import head_neck  # noqa: E402
from sample_data.make_phantoms import folder_sha256  # noqa: E402
from sample_data.phantom import Phantom, noise_hu  # noqa: E402
from sample_data.tg119 import c_shape, multi_target  # noqa: E402
from sample_data.write_dicom import outlines, write_phantom  # noqa: E402

MANIFEST = yaml.safe_load((SAMPLE_DATA / "manifest.yaml").read_text(encoding="utf-8"))
DRAW: dict[str, Callable[[], Phantom]] = {
    "tg119_c_shape": c_shape,
    "tg119_multi_target": multi_target,
    "head_neck": head_neck,
}


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Phantom]:
    return {name: draw() for name, draw in DRAW.items()}


def committed(name: str) -> list[Path]:
    return [*(SAMPLE_DATA / name / "CT").glob("*.dcm"), *(SAMPLE_DATA / name).glob("RS*.dcm")]


def area_mm2(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def contoured_cc(phantom: Phantom, name: str) -> float:
    """Volume inside the contours (not of the voxels)."""
    field = next(r.field for r in phantom.rois if r.name == name)
    planes = [outlines(plane, phantom.grid.x_mm(), phantom.grid.y_mm()) for plane in field if (plane < 0).any()]
    return sum(area_mm2(p) for plane in planes for p in plane) * phantom.grid.spacing_zyx_mm[0] / 1000


@pytest.mark.parametrize("name", DRAW)
def test_committed_files_are_those_of_the_manifest(name):
    entry = MANIFEST["sets"][name]
    files = committed(name)
    assert len(files) == entry["slices"] + 1 + ("targets_alone" in entry)
    assert folder_sha256(SAMPLE_DATA / name, files) == entry["sha256"]
    assert entry["licence"] == "Apache-2.0" and "no patient" in entry["origin"]


def test_everything_committed_is_below_ten_megabytes():
    assert sum(path.stat().st_size for name in DRAW for path in committed(name)) < 10e6


@pytest.mark.parametrize("name", DRAW)
def test_writing_again_gives_the_same_bytes(name, phantoms, tmp_path):
    files = write_phantom(phantoms[name], tmp_path)
    assert folder_sha256(tmp_path, files) == MANIFEST["sets"][name]["sha256"]


@pytest.mark.parametrize("name", DRAW)
def test_simpleitk_reads_the_drawn_voxels_in_place(name, phantoms):
    grid = phantoms[name].grid
    image = SimpleITK.ReadImage(sorted((str(p) for p in (SAMPLE_DATA / name / "CT").glob("*.dcm")), reverse=True))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), phantoms[name].hu)
    assert image.GetOrigin() == pytest.approx(grid.origin_xyz_mm)
    assert image.GetSpacing() == pytest.approx(grid.spacing_zyx_mm[::-1])
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize("name", DRAW)
def test_the_engine_reads_back_every_mask_and_maps_every_name(name, phantoms):
    phantom = phantoms[name]
    ct = read_ct(SAMPLE_DATA / name / "CT")
    contours = read_rtstruct(SAMPLE_DATA / name / "RS.dcm", ct)
    body = body_mask(ct)
    protocol = load_protocol(phantom.protocol_id)
    structures = structures_from_contours(contours, ct, body, protocol)
    assert {s.source_name for s in structures} == set(phantom.masks)
    for s in structures:
        assert np.array_equal(s.mask, phantom.masks[s.source_name]), s.name
    known = {"External", *(level.target for level in protocol.levels), *(organ.name for organ in protocol.organs)}
    assert set(structures.names) <= known
    assert {level.target for level in protocol.levels} <= set(structures.names)
    # The couch and the head rest are not the patient.
    drawn = phantom.masks["BODY"]
    assert 2 * np.sum(body & drawn) / (body.sum() + drawn.sum()) > 0.998


def test_the_set_of_targets_alone_holds_the_same_targets_and_nothing_else(phantoms):
    # mutant: all regions in RS_targets.dcm
    folder = SAMPLE_DATA / "head_neck"
    ct = read_ct(folder / "CT")
    alone, whole = (read_rtstruct(folder / name, ct) for name in ("RS_targets.dcm", "RS.dcm"))
    assert [r.name for r in alone.rois] == ["PTV70", "PTV63", "PTV56"]
    assert alone.sop_instance_uid != whole.sop_instance_uid
    for roi in alone.rois:
        assert np.array_equal(rasterise(roi.contours, ct.grid), phantoms["head_neck"].masks[roi.name])


@pytest.mark.parametrize("name", DRAW)
def test_every_structure_is_in_the_body(name, phantoms):
    masks = phantoms[name].masks
    for other, mask in masks.items():
        assert mask.any() and not np.any(mask & ~masks["BODY"]), other


def test_c_shape_has_the_dimensions_of_tg119(phantoms):
    phantom = phantoms["tg119_c_shape"]
    assert contoured_cc(phantom, "PTV") == pytest.approx(0.75 * np.pi * (37**2 - 15**2) * 80 / 1000, rel=0.005)
    assert contoured_cc(phantom, "Core") == pytest.approx(np.pi * 10**2 * 100 / 1000, rel=0.015)
    z, y, x = np.nonzero(phantom.masks["PTV"])
    radius = np.hypot(phantom.grid.x_mm()[x], phantom.grid.y_mm()[y])
    assert 15 < radius.min() < 16.5 and 35.5 < radius.max() < 37
    assert np.ptp(z) + 1 == 80 / 2.5
    # Open posteriorly, whole anteriorly, and the same on both sides.
    middle = phantom.masks["PTV"][34]
    behind, ahead = phantom.grid.y_mm() > 0, phantom.grid.y_mm() < 0
    assert not middle[behind][:, 79:81].any() and middle[ahead][:, 79:81].any()
    assert np.array_equal(phantom.masks["PTV"], phantom.masks["PTV"][:, :, ::-1])
    # Gap of 5 mm to the core.
    distance = distance_transform_edt(~phantom.masks["Core"], sampling=phantom.grid.spacing_zyx_mm)
    assert 4 < distance[phantom.masks["PTV"]].min() < 8


def test_the_three_targets_are_stacked_centre_between(phantoms):
    phantom = phantoms["tg119_multi_target"]
    names = ("Inferior Target", "Central Target", "Superior Target")
    heights = [phantom.grid.z_mm()[np.nonzero(phantom.masks[name])[0]] for name in names]
    assert [float(h.mean()) for h in heights] == pytest.approx([-40, 0, 40], abs=1e-9)
    for name in names:
        assert contoured_cc(phantom, name) == pytest.approx(np.pi * 20**2 * 40 / 1000, rel=0.01)
    total = sum(phantom.masks[name].astype(int) for name in names)
    assert total.max() == 1


def test_water_is_water(phantoms):
    for name in ("tg119_c_shape", "tg119_multi_target"):
        assert set(np.unique(phantoms[name].hu)) == {-1000, 0}


def test_left_is_left_and_the_nose_points_forward(phantoms):
    phantom = phantoms["head_neck"]

    def centre(name: str) -> np.ndarray:
        return phantom.grid.to_point_mm(np.array(center_of_mass(phantom.masks[name])))

    assert centre("Parotid L")[0] > 30 and centre("Parotid R")[0] < -30
    assert centre("PTV70")[0] > 10  # the tumour is on the left
    assert centre("Mandible")[1] < centre("Larynx")[1] < centre("Oesophagus")[1] < centre("Spinal Cord")[1]
    assert centre("Brain Stem")[2] > centre("Parotid L")[2] > centre("Larynx")[2] > centre("Oesophagus")[2]
    assert phantom.grid.y_mm()[np.nonzero(phantom.masks["BODY"])[1].min()] < -105  # the tip of the nose
    lungs = phantom.hu[phantom.grid.z_mm() < -120][:, :, 88] < -500
    assert lungs.any()


def test_head_and_neck_targets_are_nested_below_the_skin_and_off_the_cord(phantoms):
    phantom = phantoms["head_neck"]
    masks, spacing = phantom.masks, phantom.grid.spacing_zyx_mm
    assert not np.any(masks["PTV70"] & ~masks["PTV63"]) and not np.any(masks["PTV63"] & ~masks["PTV56"])
    depth_mm = distance_transform_edt(masks["BODY"], sampling=spacing)
    assert depth_mm[masks["PTV56"]].min() > 3.5
    from_cord_mm = distance_transform_edt(~masks["Spinal Cord"], sampling=spacing)
    assert from_cord_mm[masks["PTV56"]].min() > 5
    for name in ("PTV70", "PTV63", "PTV56"):
        assert label(masks[name])[1] == (2 if name == "PTV56" else 1)  # the right neck stands alone


def test_head_and_neck_volumes_are_those_of_people(phantoms):
    phantom = phantoms["head_neck"]
    ranges = {
        "Parotid L": (15, 40),
        "Parotid R": (15, 40),
        "Brain Stem": (12, 40),
        "Larynx": (15, 60),
        "Mandible": (40, 90),
        "PTV70": (50, 200),
        "PTV63": (120, 400),
        "PTV56": (250, 700),
        "BODY": (5000, 12000),
    }
    for name, (low, high) in ranges.items():
        assert low < phantom.masks[name].sum() * phantom.grid.voxel_cc < high, name


def test_tissues_have_their_ct_numbers(phantoms):
    phantom = phantoms["head_neck"]
    medians = {name: float(np.median(phantom.hu[mask])) for name, mask in phantom.masks.items()}
    assert 25 < medians["Spinal Cord"] < 45 and 20 < medians["Brain Stem"] < 40
    assert 400 < medians["Mandible"] < 1300
    assert -20 < medians["Parotid L"] < 10
    assert np.percentile(phantom.hu[phantom.masks["Larynx"]], 5) < -700  # the airway
    couch = (phantom.hu > -400) & ~phantom.masks["BODY"] & (phantom.grid.y_mm()[None, :, None] > 104)
    assert couch.any(axis=(1, 2)).all()


def test_noise_is_a_function_of_the_voxel_alone():
    first = noise_hu((4, 50, 50), 8.0)
    assert np.array_equal(first, noise_hu((4, 50, 50), 8.0))
    assert np.array_equal(first[:2], noise_hu((2, 50, 50), 8.0))
    assert abs(first.mean()) < 0.3 and first.std() == pytest.approx(8.0, rel=0.03)
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.06
