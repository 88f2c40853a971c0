"""The engine against Monte Carlo and against the machines' calibration, absolutely."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dose_comparison import compare
from benchmarks.egsnrc_cases import load_field
from rtplan.engines.collapsed_cone import dose, reference_output
from rtplan.library.machines import list_machines, load_machine

CASES = Path(__file__).parents[3] / "shared" / "data" / "egsnrc"


def figures_of(case, spacing_mm):
    """The final dose of a case's field against Monte Carlo, see `benchmarks.dose_comparison`."""
    path = CASES / f"{case}.npz"
    if not path.exists():
        pytest.skip("Monte Carlo reference fields are not here (../shared)")
    field = load_field(path, spacing_mm)
    return compare(field, dose(field.density, [field.fluence], field.model, quality="final", backend="cpu"))


@pytest.mark.physics
@pytest.mark.parametrize(("case", "spacing_mm", "gamma_limit"), [("dose/w10", 5.0, 96.0), ("dose/w03", 2.5, 99.5)])
def test_depth_dose_in_water_is_that_of_monte_carlo(case, spacing_mm, gamma_limit):
    """EGSnrc DOSXYZnrc, point source, Mohan 6 MV: Gy per energy fluence on the axis beyond the maximum, % of the maximum."""
    # mutant: attenuation without coherent scatter; local share of the kernels left out
    figures = figures_of(case, spacing_mm)
    assert abs(figures["axis_2.5cm_mean"]) < 0.5
    assert abs(figures["axis_2.5cm_worst_3cm"]) < 1.0
    assert figures["gamma_2pct_2mm"] > gamma_limit


@pytest.mark.physics
def test_small_field_through_lung_is_that_of_monte_carlo():
    """3x3 through 15 cm of lung, 0.26 g/cm³: lateral equilibrium is lost there."""
    # mutant: lines stepped without the density between source and voxel
    figures = figures_of("dose/lung03", 2.5)
    assert abs(figures["axis_2.5cm_worst_3cm"]) < 2.0
    assert figures["gamma_2pct_2mm"] > 99.0


@pytest.mark.physics
def test_small_field_in_a_real_neck_is_that_of_monte_carlo():
    """3x3 beside the airway of an OpenKBP patient, on the CT's voxels halved."""
    # mutant: dose over the mass of water instead of the voxel's own
    figures = figures_of("patients/d068_g040_3x3", 2.5)
    assert figures["gamma_2pct_2mm"] > 97.0
    assert figures["gamma_3pct_2mm"] > 99.0


@pytest.mark.physics
@pytest.mark.parametrize("machine_id", list_machines())
def test_a_monitor_unit_is_a_centigray_at_the_reference_conditions(machine_id):
    # mutant: energy fluence per MU 1 % off
    machine = load_machine(machine_id)
    assert reference_output(machine.beam, sad_mm=machine.sad_mm) == pytest.approx(0.01, rel=3e-3)
