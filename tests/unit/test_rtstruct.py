"""Structure sets survive the way through DICOM voxel for voxel, and name the CT they belong to."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from small_rtstruct import BODY, CORD, GRID, TARGET, Drawing, Roi, rectangle, small_ct, write_drawing

from rtplan.dicom.read_rtstruct import read_rtstruct
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtstruct import write_rtstruct
from rtplan.domain.contours import rasterise
from rtplan.domain.grid import Grid
from rtplan.domain.roi_names import is_target_roi, printable, safe_name
from rtplan.domain.structures import Structure, StructureSet
from rtplan.errors import SafetyStop

CT = small_ct()
IDS = new_output_ids(datetime(2025, 3, 4, 5, 6, 7))


def ball(centre_xyz_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    z, y, x = np.meshgrid(GRID.z_mm(), GRID.y_mm(), GRID.x_mm(), indexing="ij")
    return (x - centre_xyz_mm[0]) ** 2 + (y - centre_xyz_mm[1]) ** 2 + (z - centre_xyz_mm[2]) ** 2 < radius_mm**2


def structures() -> StructureSet:
    body = ball((0, 0, 0), 58)
    shell = ball((0, 0, 0), 14) & ~ball((0, 0, 0), 8)
    noise = np.random.default_rng(5).random(GRID.shape_zyx) < 0.3
    noise[3:12] = False
    noise[:, :, 20:] = False
    speck = np.zeros(GRID.shape_zyx, bool)
    speck[7, 30, 30] = True
    return StructureSet(
        GRID,
        (
            Structure("External", "EXTERNAL", body, "BODY", "engine"),
            Structure("PTV_7000", "PTV", shell, "Boost, \\ 70 <b>"),
            Structure("Noise", "ORGAN", noise),
            Structure("Lens_L", "ORGAN", speck),
            Structure("zRing_1", "CONTROL", np.zeros(GRID.shape_zyx, bool), "", "engine"),
        ),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtstruct") / "RS.dcm"
    write_rtstruct(path, structures(), CT, IDS)
    return path


def test_what_is_written_is_read_back_voxel_for_voxel(written: Path):
    # mutant: contours half a pixel off; drop the holes
    found = read_rtstruct(written, CT)
    assert [r.name for r in found.rois] == ["External", "PTV_7000", "Noise", "Lens_L"]
    assert [r.interpreted_type for r in found.rois] == ["EXTERNAL", "PTV", "ORGAN", "ORGAN"]
    for roi in found.rois:
        assert np.array_equal(rasterise(roi.contours, GRID), structures()[roi.name].mask), roi.name
    assert found.sha256 == hashlib.sha256(written.read_bytes()).hexdigest()
    assert found.sop_instance_uid == IDS.structure_set_uid


def test_every_contour_refers_to_the_image_of_its_slice(written: Path):
    ds = pydicom.dcmread(written)
    z_of = dict(zip(CT.series.sop_instance_uids, GRID.z_mm(), strict=True))
    contours = [c for roi in ds.ROIContourSequence for c in roi.ContourSequence]
    assert len(contours) > 50
    for c in contours:
        assert c.ContourData[2] == pytest.approx(z_of[c.ContourImageSequence[0].ReferencedSOPInstanceUID])
    frame = ds.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == CT.series.frame_of_reference_uid
    assert study.ReferencedSOPInstanceUID == ds.StudyInstanceUID == CT.series.study_instance_uid
    assert series.SeriesInstanceUID == CT.series.series_instance_uid
    assert tuple(i.ReferencedSOPInstanceUID for i in series.ContourImageSequence) == CT.series.sop_instance_uids


def test_the_proposal_is_unapproved_and_says_what_the_engine_drew(written: Path):
    ds = pydicom.dcmread(written)
    assert ds.ApprovalStatus == "UNAPPROVED"
    by_name = {r.ROIName: r for r in ds.StructureSetROISequence}
    assert by_name["External"].ROIGenerationAlgorithm == "AUTOMATIC"
    assert not by_name["PTV_7000"].ROIGenerationAlgorithm
    assert by_name["PTV_7000"].ROIDescription == "from Boost, / 70 <b>"
    assert ds.PatientID == CT.series.patient.patient_id
    assert ds.SOPInstanceUID == IDS.structure_set_uid


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(written: Path):
    done = subprocess.run(["dciodvfy", str(written)], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert "RTStructureSet" in text
    assert [line for line in text.splitlines() if line.startswith("Error")] == []


def test_a_long_contour_keeps_all_its_points(tmp_path: Path):
    grid = Grid((2, 300, 300), (2.0, 1.0, 1.0), (-149.5, -149.5, 0.0))
    ct = small_ct(grid)
    comb = np.zeros(grid.shape_zyx, bool)
    comb[:, 10:290:4, 10:290] = True
    comb[:, 11:290:4, 12:290:8] = True
    comb[:, 10:290, 10] = True  # one outline whose coordinates do not fit the 64 kB of an explicit decimal string
    write_rtstruct(tmp_path / "RS.dcm", StructureSet(grid, (Structure("Comb", "ORGAN", comb),)), ct, IDS)
    found = read_rtstruct(tmp_path / "RS.dcm", ct)
    assert [len(c.points_xy_mm) > 5000 for c in found.rois[0].contours] == [True, True]
    assert np.array_equal(rasterise(found.rois[0].contours, grid), comb)


def test_structures_of_another_grid_are_not_written(tmp_path: Path):
    moved = replace(GRID, origin_xyz_mm=(-62.0, -59.0, -20.0))
    with pytest.raises(SafetyStop, match="STRUCTURE_GRID"):
        write_rtstruct(tmp_path / "RS.dcm", StructureSet(moved, ()), CT, IDS)


def test_a_sound_structure_set_is_read_without_findings(tmp_path: Path):
    found = read_rtstruct(write_drawing(tmp_path / "RS.dcm", CT), CT)
    assert [r.name for r in found.rois] == ["BODY", "PTV70", "SpinalCord"]
    assert found.findings == ()
    expected = np.zeros(GRID.shape_zyx, bool)
    expected[4:10, 24:35, 26:37] = True
    assert np.array_equal(rasterise(found.rois[1].contours, GRID), expected)


def test_contours_less_than_a_tenth_of_a_millimetre_off_are_moved_onto_their_slice(tmp_path: Path):
    near = replace(TARGET, z_offset_mm=0.09)
    found = read_rtstruct(write_drawing(tmp_path / "RS.dcm", CT, Drawing([BODY, near])), CT)
    assert [c.z_mm for c in found.rois[1].contours] == pytest.approx(list(GRID.z_mm()[4:10]))


def test_what_does_not_matter_is_left_out_with_a_finding(tmp_path: Path):
    polygons = {k: [rectangle(-20, -20, -10, -10)] for k in range(3, 6)}
    polygons[4] = [rectangle(-20, -20, -10, -10), rectangle(-20, -20, -10, -10), [(0, 0), (1, 1), (2, 2)], [(3, 3), (4, 4)]]
    messy = Roi("Messy", "ORGAN", polygons)
    point = Roi("Norm point", "ORGAN", {5: [[(0.0, 0.0)]]}, geometric_type="POINT")
    eight = Roi("Eight", "ORGAN", {5: [[(0, 0), (10, 10), (10, 0), (0, 10)]], 7: [rectangle(0, 0, 9, 9)]})
    found = read_rtstruct(write_drawing(tmp_path / "RS.dcm", CT, Drawing([BODY, TARGET, messy, point, eight])), CT)
    codes = {f.code for f in found.findings}
    assert codes == {"SS_DEGENERATE", "SS_DOUBLED", "SS_CONTOUR_TYPE", "SS_SELF_CROSSING", "SS_GAP"}
    assert [len(r.contours) for r in found.rois] == [14, 6, 3, 0, 2]
    assert rasterise(found.rois[2].contours, GRID)[4].sum() == 25


def test_hostile_names_become_harmless(tmp_path: Path):
    names = ["../../etc/passwd", "a\nb\x1b[31m", "<script>x</script>", "=cmd()|'/C calc'!A0", "😀" * 70, "Ö\\Ä", "‮evil"]
    rois = [BODY, TARGET, *(replace(CORD, name=name) for name in names)]
    found = read_rtstruct(write_drawing(tmp_path / "RS.dcm", CT, Drawing(rois)), CT)
    shown = [r.name for r in found.rois[2:]]
    assert len(shown) == len(names)
    assert all(name.isprintable() and len(name) <= 64 for name in shown)
    assert shown[5] == "Ö\\Ä"
    taken: set[str] = set()
    for name in [*shown, *shown]:
        safe = safe_name(name, taken)
        assert safe.lower() not in taken
        assert 0 < len(safe) <= 16
        assert set(safe) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-~!")
        assert safe[0].isalnum()
        taken.add(safe.lower())


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("PTV70", "", True),
        ("ptv_high", "ORGAN", True),
        ("_CTVn", "", True),
        ("iGTV", "", True),
        ("zPTV_Opt", "", False),
        ("Boost", "PTV", True),
        ("Boost", "ORGAN", False),
        ("Rectum-PTV", "ORGAN", False),
    ],
)
def test_targets_are_known_by_type_or_name(name: str, kind: str, expected: bool):
    assert is_target_roi(name, kind) is expected


def test_printable_escapes_instead_of_dropping():
    assert printable("a\nb") == "a\\nb"
    assert printable("x" * 80) == "x" * 63 + "…"


def test_masks_of_a_real_patient_come_back_exactly(tmp_path: Path):
    shared = Path(__file__).resolve().parents[2].parent / "shared"
    npz = shared / "data/openkbp/dev/pt_2.npz"
    if not npz.exists():
        pytest.skip("../shared/data/openkbp is not at hand")
    sys.path.insert(0, str(shared / "tools"))
    import openkbp_to_dicom as openkbp

    patient = openkbp.Patient(str(npz))
    patient.keep_slices(patient.body_z[0], patient.body_z[1] + 1)
    names = ["BODY", *(name for name in patient.masks if name not in ("External", "possible_dose_mask"))]
    openkbp.save(openkbp.rtstruct(patient, names, "edge", False), tmp_path / "RS.dcm")
    ct = small_ct(Grid(patient.raw.shape, tuple(patient.spacing.tolist()), tuple(patient.origin.tolist())))
    series = replace(
        ct.series,
        patient=replace(ct.series.patient, patient_id=patient.pid, birth_date=""),
        series_instance_uid=openkbp.uid(patient.pid, "series", "ct"),
        frame_of_reference_uid=openkbp.uid(patient.pid, "frame"),
        sop_instance_uids=tuple(openkbp.ct_uid(patient, k) for k in range(patient.raw.shape[0])),
    )
    found = read_rtstruct(tmp_path / "RS.dcm", replace(ct, series=series))
    assert len(found.rois) == 10
    for roi in found.rois:
        expected = patient.masks["External" if roi.name == "BODY" else roi.name]
        assert np.array_equal(rasterise(roi.contours, ct.grid), expected), roi.name
