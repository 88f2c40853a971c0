"""An arc all the way: dose, checks, files that are read back, report, and the dose of the written plan calculated anew."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_series import write_series

from rtplan.checks import run_checks
from rtplan.cli.main import run
from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.read_rtdose import read_rtdose
from rtplan.dicom.read_rtplan import read_rtplan
from rtplan.domain.beams import Beam
from rtplan.domain.context import PlanContext
from rtplan.domain.dose import dose_at_index
from rtplan.domain.example_context import example_context
from rtplan.domain.plan import Aperture, ControlPoint, DeliverablePlan, PlanBeam, arc_beam
from rtplan.domain.prescription import Normalisation
from rtplan.domain.structures import Structure, StructureSet
from rtplan.errors import CaseRejected, SafetyStop
from rtplan.library.calibrations import load_calibration
from rtplan.library.machines import load_machine
from rtplan.pipeline import deliver
from rtplan.steps.final_dose import normalisation_factor, part_doses, plan_dose, scaled_dose, scaled_plan
from rtplan.steps.ingest import body_mask, densities, dose_grid, resample_density
from rtplan.steps.ledger import ledger
from rtplan.steps.report import DoseSummary, ReportData, SolverSummary
from rtplan.steps.reread import confirm_deliverable
from rtplan.steps.verify import verify

MACHINE = load_machine("generic_6mv")
ISO = (4.0, -6.0, 0.0)
SPACING_ZYX_MM = (3.0, 3.0, 3.0)
NOW = datetime(2025, 3, 4, 5, 6, 7)


def aperture(i: int) -> Aperture:
    """About the target's width, breathing by a few mm from control point to control point."""
    bounds = MACHINE.mlc.leaf_boundaries_mm
    is_open = (bounds[:-1] >= -25.0) & (bounds[1:] <= 25.0)
    half = 24.0 + 3.0 * np.sin(0.9 * i)
    return Aperture(np.where(is_open, -half, 60.0), np.where(is_open, half, 60.5), -30.0, 30.0, -25.0, 25.0)


def turn(number: int, rotation: str, first_deg: float) -> PlanBeam:
    """40 degrees on from the first angle, control points 4 degrees apart."""
    angles = first_deg + np.arange(11) * (4.0 if rotation == "CW" else -4.0)
    points = tuple(ControlPoint(10.0 * i, float(a % 360.0), aperture(i)) for i, a in enumerate(angles))
    return arc_beam(number, Beam(f"Arc {number}", first_deg, 10.0 * number, 0.0, ISO, 1000.0), rotation, points)


@pytest.fixture(scope="module")
def ct_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, y, x = np.meshgrid(*(np.arange(n) * 3.0 - (n - 1) * 1.5 for n in (25, 50, 60)), indexing="ij")
    hu = np.where((x / 70) ** 2 + (y / 55) ** 2 < 1, 0, -1000).astype(np.int16)
    hu += np.random.default_rng(1).integers(-4, 5, hu.shape, dtype=np.int16) * (hu > -500)
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, hu, spacing_zyx_mm=SPACING_ZYX_MM, origin_xyz_mm=(-88.5, -73.5, -36.0))
    return folder


@pytest.fixture(scope="module")
def context(ct_dir: Path) -> PlanContext:
    ct = read_ct(ct_dir)
    body = body_mask(ct)
    z, y, x = np.meshgrid(ct.grid.z_mm(), ct.grid.y_mm(), ct.grid.x_mm(), indexing="ij")
    target = (x - ISO[0]) ** 2 + (y - ISO[1]) ** 2 + (z - ISO[2]) ** 2 < 15.0**2
    structures = StructureSet(ct.grid, (Structure("External", "EXTERNAL", body), Structure("PTV_60", "PTV", target)))
    prescription = example_context().prescription
    density = resample_density(densities(ct, body, load_calibration("generic_120kvp")), dose_grid(ct, body, 4.0))
    plan = DeliverablePlan("generic_6mv", "6X", 30, (turn(1, "CW", 340.0), turn(2, "CC", 170.0)))
    first = plan_dose(density, plan, MACHINE, quality="quick", backend="cpu")
    factor = normalisation_factor(Normalisation("PTV_60", "D50[Gy]", 60.0), first, structures, prescription)
    plan, dose = scaled_plan(plan, factor), scaled_dose(first, factor)
    parts = part_doses(density, plan, MACHINE, quality="quick", backend="cpu")
    return PlanContext(plan, MACHINE, density, dose, parts, structures, prescription)


@pytest.fixture(scope="module")
def out(ct_dir: Path, context: PlanContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = ReportData(
        created=NOW,
        ct=read_ct(ct_dir),
        structures=context.structures,
        prescription=context.prescription,
        machine=MACHINE,
        plan=context.plan,
        dose=context.dose,
        verification=verify(context),
        findings=(),
        assumptions=(),
        timings_s=(("final_dose", 1.0),),
        solver=SolverSummary(0.5, 0.001, 10, True),
        dose_summary=DoseSummary("collapsed_cone", "quick", 50, "cpu"),
        provenance=(("code", "0.1.0"),),
        ledger=ledger(context.prescription, context.structures, {}, context.dose),
        normalisation_factor=1.0,
    )
    folder = tmp_path_factory.mktemp("out")
    deliver(data, context, folder)
    return folder


def test_two_arcs_pass_the_whole_gate(context: PlanContext):
    # mutant: an arc in both parts: DOSE_SUM; mutant: GANTRY_PATH as for fixed beams
    assert [r.message for r in run_checks(context) if not r.passed] == []
    assert context.plan.mu > 100


def test_what_is_written_is_deliverable_and_is_the_plan(out: Path, context: PlanContext):
    found = confirm_deliverable(out / "RTPLAN.dcm", MACHINE, context.density)
    assert [(b.rotation, len(b.control_points)) for b in found.beams] == [("CW", 11), ("CC", 11)]
    assert found.mu == pytest.approx(context.plan.mu, abs=1e-5)
    report = json.loads((out / "report.json").read_text())
    assert (report["plan"]["arcs"], report["plan"]["segments"]) == (2, 0)
    assert [b["arc_deg"] for b in report["beams"]] == pytest.approx([40.0, 40.0])
    # Two turns of 40 degrees and the way from 20 to 170 degrees.
    assert report["plan"]["delivery_s"] > (2 * 40.0 + 150.0) / MACHINE.max_gantry_speed_deg_s


def test_the_written_arcs_give_the_written_dose(out: Path, ct_dir: Path, tmp_path: Path):
    # mutants: the direction of reading turned; the first interval's leaves for all
    again_file = tmp_path / "RD.dcm"
    assert run(["dose", str(ct_dir), "--plan", str(out / "RTPLAN.dcm"), "-o", str(again_file)]) == 0
    again, written = read_rtdose(again_file), read_rtdose(out / "RTDOSE.dcm")
    index = np.argwhere(written.dose_gy > 0.3 * written.dose_gy.max()).astype(float)
    new = dose_at_index(again, again.grid.to_index(written.grid.to_point_mm(index)))
    old = written.dose_gy[tuple(index.astype(int).T)]
    assert new.mean() == pytest.approx(old.mean(), rel=0.01)
    assert np.median(np.abs(new - old)) < 0.02 * written.dose_gy.max()


def test_a_file_with_a_step_back_is_stopped(out: Path, context: PlanContext, tmp_path: Path):
    dataset = pydicom.dcmread(out / "RTPLAN.dcm")
    points = dataset.BeamSequence[1].ControlPointSequence
    points[-1].GantryAngle = float(points[-2].GantryAngle) + 0.5  # CC goes down
    path = tmp_path / "p.dcm"
    dataset.save_as(path)
    # Read as CC it would turn by more than a full turn.
    with pytest.raises(CaseRejected, match=r"RTPLAN_GANTRY.*beam 2"):
        confirm_deliverable(path, MACHINE, context.density)


def test_a_machine_without_arcs_is_not_given_one(out: Path, context: PlanContext):
    plain = replace(MACHINE, arc=None)
    assert read_rtplan(out / "RTPLAN.dcm", {"generic_6mv": plain}).plan.beams[0].is_arc
    with pytest.raises(SafetyStop, match="delivers no arcs"):
        confirm_deliverable(out / "RTPLAN.dcm", plain, context.density)
