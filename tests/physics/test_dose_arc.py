"""Beams of an arc share kernels at nodes: the dose is theirs all the same."""

from __future__ import annotations

import numpy as np
import pytest
from water_beam import beam_model, block, open_field, patchwork

from rtplan.engines import _sectors
from rtplan.engines._sectors import NODE_DEG, kernel_sources
from rtplan.engines.collapsed_cone import dose


def arc(n, first_deg=3.0, last_deg=100.0):
    return [open_field(float(a), 25.0, 15.0) for a in np.linspace(first_deg, last_deg, n)]


@pytest.mark.parametrize("last_deg", [100.0, 363.0])
def test_an_arc_has_the_dose_of_its_beams_one_by_one(last_deg, monkeypatch):
    # mutant: the shares of the two nodes exchanged; the node a step aside
    body, fields = block(patchwork()), arc(20, last_deg=last_deg)
    monkeypatch.setattr(_sectors, "FEW", 5)
    shared = dose(body, fields, beam_model(), quality="quick", backend="cpu")
    monkeypatch.setattr(_sectors, "FEW", len(fields))
    single = dose(body, fields, beam_model(), quality="quick", backend="cpu")
    assert not np.array_equal(shared, single)
    assert np.abs(shared - single).max() < 2e-3 * single.max()
    assert np.sqrt(np.mean((shared - single) ** 2)) < 3e-4 * single.max()


def test_shares_add_up_to_the_beam_and_point_its_way(monkeypatch):
    # mutant: a full turn lost at 360 degrees
    monkeypatch.setattr(_sectors, "FEW", 5)
    fields = arc(40, last_deg=363.0)
    for field, shares in zip(fields, kernel_sources([f.beam for f in fields]), strict=True):
        assert sum(part for _, part in shares) == pytest.approx(1.0)
        turned = sum(part * np.exp(1j * np.radians(node.gantry_angle_deg)) for node, part in shares)
        assert abs(np.angle(turned * np.exp(-1j * np.radians(field.beam.gantry_angle_deg)), deg=True)) < 0.05
        assert all(node.gantry_angle_deg % NODE_DEG == 0 and node.gantry_angle_deg < 360 for node, _ in shares)


@pytest.mark.parametrize("n", [9, 25, 72])
def test_fixed_beams_keep_their_own_kernels(n):
    # mutant: nodes from 13 beams on: a plan's dose and the sum of its beams' then differ by 0.1 % of the maximum, at which
    # the check DOSE_SUM stops it
    fields = arc(n)
    assert kernel_sources([f.beam for f in fields]) == tuple(((f.beam, 1.0),) for f in fields)
