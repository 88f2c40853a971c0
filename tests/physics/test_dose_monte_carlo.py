"""The engine against Monte Carlo and against the machines' calibration, absolutely."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dose_comparison import compare
from benchmarks.egsnrc_cases import load_field
from rtplan.engines.collapsed_cone import dose, reference_output
from rtplan.library.machines import list_machines, load_machine

CASES = Path(__file__).parents[3] / "shared" / "data" / "egsnrc" / "dose"


@pytest.mark.physics
@pytest.mark.parametrize(
    ("case", "spacing_mm", "mean_limit", "point_limit", "gamma_limit"),
    [("w10", 5.0, 0.5, 1.5, 92.0), ("w03", 3.0, 0.5, 1.5, 99.0)],
)
def test_depth_dose_in_water_is_that_of_monte_carlo(case, spacing_mm, mean_limit, point_limit, gamma_limit):
    """EGSnrc DOSXYZnrc, point source, Mohan 6 MV: Gy per energy fluence on the axis beyond the maximum, % of the maximum."""
    # mutant: attenuation without coherent scatter; local share of the kernels left out
    if not CASES.exists():
        pytest.skip("Monte Carlo reference fields are not here (../shared)")
    field = load_field(CASES / f"{case}.npz", spacing_mm)
    result = dose(field.density, [field.fluence], field.model, quality="final", backend="cpu")
    figures = compare(field, result)
    assert abs(figures["axis_2.5cm_mean"]) < mean_limit
    assert abs(figures["axis_2.5cm_max"]) < point_limit
    assert figures["gamma_3pct_2mm"] > gamma_limit


@pytest.mark.physics
@pytest.mark.parametrize("machine_id", list_machines())
def test_a_monitor_unit_is_a_centigray_at_the_reference_conditions(machine_id):
    # mutant: energy fluence per MU 1 % off
    machine = load_machine(machine_id)
    assert reference_output(machine.beam, sad_mm=machine.sad_mm) == pytest.approx(0.01, rel=3e-3)
