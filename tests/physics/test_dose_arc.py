"""Beams of an arc share kernels at nodes: the dose is theirs all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from water_beam import beam_model, block, open_field, patchwork

from rtplan.engines._sectors import NODE_DEG, kernel_sources
from rtplan.engines.collapsed_cone import dose


def arc(n, first_deg=3.0, last_deg=100.0):
    return [replace(open_field(float(a % 360), 25.0, 15.0), of_arc=True) for a in np.linspace(first_deg, last_deg, n)]


def fixed(fields):
    return [replace(f, of_arc=False) for f in fields]


@pytest.mark.parametrize("last_deg", [100.0, 363.0])
def test_an_arc_has_the_dose_of_its_beams_one_by_one(last_deg):
    # mutant: the shares of the two nodes exchanged; the node a step aside
    body, fields = block(patchwork()), arc(20, last_deg=last_deg)
    shared = dose(body, fields, beam_model(), quality="quick", backend="cpu")
    single = dose(body, fixed(fields), beam_model(), quality="quick", backend="cpu")
    assert not np.array_equal(shared, single)
    assert np.abs(shared - single).max() < 2e-3 * single.max()
    assert np.sqrt(np.mean((shared - single) ** 2)) < 3e-4 * single.max()


def test_shares_add_up_to_the_beam_and_point_its_way():
    # mutant: a full turn lost at 360 degrees
    for field in arc(40, last_deg=363.0):
        shares = kernel_sources(field.beam, True)
        assert sum(part for _, part in shares) == pytest.approx(1.0)
        turned = sum(part * np.exp(1j * np.radians(node.gantry_angle_deg)) for node, part in shares)
        assert abs(np.angle(turned * np.exp(-1j * np.radians(field.beam.gantry_angle_deg)), deg=True)) < 0.05
        assert all(node.gantry_angle_deg % NODE_DEG == 0 and node.gantry_angle_deg < 360 for node, _ in shares)


def test_fixed_beams_keep_their_own_kernels():
    for field in fixed(arc(90)):
        assert kernel_sources(field.beam, field.of_arc) == ((field.beam, 1.0),)


def test_dose_of_an_arc_and_fixed_beams_is_the_sum_of_what_each_gives_alone():
    # mutant: nodes from some number of angles on: a short arc alone then differs by 0.1 % of the maximum from its share in
    # the plan, at which the check DOSE_SUM stops it
    body, model = block(patchwork()), beam_model()
    beams = [arc(15), arc(20, 200.0, 260.0), fixed(arc(1, 140.0, 140.0))]
    whole = dose(body, [f for fields in beams for f in fields], model, quality="quick", backend="cpu")
    parts = sum(dose(body, fields, model, quality="quick", backend="cpu").astype(np.float64) for fields in beams)
    assert np.abs(whole - parts).max() < 2e-5 * whole.max()
