"""Arcs as RT Plan: written as accelerators expect them, read as they stand, refused where that would be another arc."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from small_plan import NOW, ct, machine, plan, prescription, sound_aperture

from rtplan.dicom.read_rtplan import read_rtplan
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtplan import write_rtplan
from rtplan.domain.beams import Beam
from rtplan.domain.plan import ControlPoint, PlanBeam, arc_beam
from rtplan.errors import CaseRejected, SafetyStop

N = 90


def arc(number: int, first_deg: float, last_deg: float, rotation: str, n: int = N) -> PlanBeam:
    """Control points evenly spread over an arc in which leaves move and MU are uneven; one aperture repeats."""
    whole = (last_deg - first_deg) % 360.0 if rotation == "CW" else -((first_deg - last_deg) % 360.0)
    angles = (first_deg + whole * np.arange(n) / (n - 1)) % 360.0
    mu = np.concatenate([[0.0], np.cumsum(np.random.default_rng(number).uniform(1.0, 3.0, n - 1))])
    points = tuple(
        ControlPoint(float(m), float(a), sound_aperture(max(i, 1))) for i, (m, a) in enumerate(zip(mu, angles, strict=True))
    )
    beam = Beam(f"Arc {number}", float(angles[0]), 15.0, 0.0, (3.25, -1.5, 2.75), 1000.0)
    return arc_beam(number, beam, rotation, points)


PLAN = plan((arc(1, 181.0, 179.0, "CW"), arc(2, 179.0, 181.0, "CC"), arc(3, 181.0, 179.0, "CW", 2)))


def written(folder: Path, the_plan=PLAN) -> Path:
    path = folder / "RTPLAN.dcm"
    write_rtplan(path, the_plan, prescription(), machine(), ct(), new_output_ids(NOW))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("arcs"))


def test_arcs_come_back_to_a_millionth(file: Path):
    # mutants: angles rounded to 3 decimals; direction lost; the second control point's aperture left out as unchanged
    found = read_rtplan(file, {"test_machine": machine()}).plan
    assert [b.rotation for b in found.beams] == ["CW", "CC", "CW"]
    for a, b in zip(found.beams, PLAN.beams, strict=True):
        assert a.beam.gantry_angle_deg == pytest.approx(b.beam.gantry_angle_deg, abs=1e-6)
        np.testing.assert_allclose(a.turns_deg, b.turns_deg, rtol=0, atol=2e-6)
        for p, q in zip(a.control_points, b.control_points, strict=True):
            assert p.cumulative_mu == pytest.approx(q.cumulative_mu, abs=1e-6)
            np.testing.assert_allclose(p.aperture.leaf_x1_mm, q.aperture.leaf_x1_mm, rtol=0, atol=1e-6)
            np.testing.assert_allclose(p.aperture.leaf_x2_mm, q.aperture.leaf_x2_mm, rtol=0, atol=1e-6)
            assert p.aperture.jaw_x2_mm == pytest.approx(q.aperture.jaw_x2_mm, abs=1e-6)


def test_every_control_point_of_an_arc_stands_for_itself(file: Path):
    # mutant: only what changed, as in step and shoot
    for item, meant in zip(pydicom.dcmread(file).BeamSequence, PLAN.beams, strict=True):
        assert item.BeamType == "DYNAMIC"
        points = item.ControlPointSequence
        assert item.NumberOfControlPoints == len(points) == len(meant.control_points)
        assert float(points[0].DoseRateSet) == 600
        for i, point in enumerate(points):
            kinds = [d.RTBeamLimitingDeviceType for d in point.BeamLimitingDevicePositionSequence]
            assert kinds == ["ASYMX", "ASYMY", "MLCX"]
            assert 0 <= float(point.GantryAngle) < 360
            assert point.GantryRotationDirection == (meant.rotation if i + 1 < len(points) else "NONE")
        assert float(points[-1].CumulativeMetersetWeight) == 1
        assert points[0].BeamLimitingDeviceRotationDirection == "NONE"


def test_the_meterset_of_an_arc_is_in_the_fraction_group(file: Path):
    group = pydicom.dcmread(file).FractionGroupSequence[0]
    for item, meant in zip(group.ReferencedBeamSequence, PLAN.beams, strict=True):
        assert float(item.BeamMeterset) == pytest.approx(meant.mu, abs=1e-6)
        # An accelerator may end the beam by it; an estimate must not.
        assert "BeamDeliveryDurationLimit" not in item


def test_dciodvfy_finds_no_error(file: Path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    assert "RTPlan" in done.stderr + done.stdout
    assert [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")] == []


def changed(file: Path, tmp_path: Path, change) -> PlanBeam:
    dataset = pydicom.dcmread(file)
    change(dataset.BeamSequence[0].ControlPointSequence)
    path = tmp_path / "p.dcm"
    dataset.save_as(path)
    return read_rtplan(path, {"test_machine": machine()}).plan.beams[0]


def state(keyword: str, value: object, *indices: int):
    def change(points):
        for i in indices or range(len(points)):
            setattr(points[i], keyword, value)

    return change


def dropped(keyword: str, first: int = 0):
    def change(points):
        for point in points[first:]:
            delattr(point, keyword)

    return change


def test_a_direction_holds_until_another_is_stated(file: Path, tmp_path: Path):
    assert changed(file, tmp_path, dropped("GantryRotationDirection", 1)).rotation == "CW"


@pytest.mark.parametrize(
    "change",
    [
        dropped("GantryRotationDirection"),
        state("GantryRotationDirection", "NONE"),
        state("GantryRotationDirection", "NONE", 40),
        state("GantryRotationDirection", "CC", 40),
        state("GantryRotationDirection", "CC"),
        state("GantryAngle", 184.0, 2),
        state("GantryRotationDirection", "SIDEWAYS"),
    ],
)
def test_angles_and_directions_that_do_not_fit_are_refused(file: Path, tmp_path: Path, change):
    # mutants: any direction read as the shorter way; the first direction taken for all; more than a full turn accepted
    with pytest.raises(CaseRejected, match="RTPLAN_GANTRY"):
        changed(file, tmp_path, change)


def test_a_reader_must_not_be_left_to_guess(tmp_path: Path):
    # mutant: NONE written for an arc, or a fixed beam with angles that change
    undeclared = replace(PLAN.beams[0], rotation="NONE")
    double = PLAN.beams[0].control_points
    twice = replace(
        PLAN.beams[0], control_points=(*double, *(replace(p, cumulative_mu=p.cumulative_mu + 999.0) for p in double))
    )
    still = replace(PLAN.beams[0], control_points=tuple(replace(p, gantry_angle_deg=181.0) for p in double))
    for beam in (undeclared, twice, still):
        with pytest.raises(SafetyStop, match="GANTRY_PATH"):
            written(tmp_path, plan((beam,)))
