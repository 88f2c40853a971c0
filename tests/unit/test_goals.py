"""Generalised means as a metric: between the mean and the extremes, and refused where they mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from rtplan.domain.goals import evaluate_metric, parse_metric

DOSE = np.random.default_rng(1).uniform(5.0, 70.0, 200)


def eud(exponent, dose_gy=DOSE):
    return evaluate_metric(parse_metric(f"EUD{exponent}[Gy]"), dose_gy, 0.05, 60.0)


def test_an_even_dose_is_its_own_equivalent():
    for exponent in (1, 8, 2.5, -10, -0.5):
        assert eud(exponent, np.full(50, 42.0)) == pytest.approx(42.0)


def test_the_exponent_leads_from_the_coldest_to_the_hottest_voxel():
    # mutant: the exponent not inverted
    values = [eud(a) for a in (-400, -10, -1, 1, 2, 8, 400)]
    assert np.all(np.diff(values) > 0)
    assert values[3] == pytest.approx(DOSE.mean())
    assert values[4] == pytest.approx(np.sqrt(np.mean(DOSE**2)))
    assert values[0] == pytest.approx(DOSE.min(), rel=0.02) and values[-1] == pytest.approx(DOSE.max(), rel=0.02)


def test_a_cold_spot_of_nothing_leaves_nothing():
    # mutant: the scale not looked at
    assert eud(-10, np.append(DOSE, 0.0)) == 0.0
    assert eud(8, np.zeros(5)) == 0.0


@pytest.mark.parametrize("text", ["EUD0[Gy]", "EUD0.5[Gy]", "EUD[Gy]", "EUD8[cGy]", "EUD-[Gy]", "EUD8 [Gy]"])
def test_exponents_without_meaning_are_refused(text):
    # mutant: 0.5 taken
    with pytest.raises(ValueError, match="EUD"):
        parse_metric(text)
