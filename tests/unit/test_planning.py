"""What planning does with segments and fluence between the steps."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import small_plan

from rtplan.domain.beams import Beam
from rtplan.domain.influence import Beamlets
from rtplan.planning import fluence_maps, plan_segments, plan_with_mu, with_least_mu
from rtplan.steps.final_dose import scaled_plan
from rtplan.steps.place_beams import unused_beams


def test_new_mu_reach_their_own_segments():
    # mutant: hand the MU out beam by beam in reverse
    plan = small_plan.plan((small_plan.static_beam(1, 0.0, (10.0, 20.0)), small_plan.static_beam(2, 90.0, (5.0,))))
    changed = plan_with_mu(plan, np.array([1.0, 2.0, 3.0]))
    assert [s.mu for s in plan_segments(changed)] == [1.0, 2.0, 3.0]
    assert [b.mu for b in changed.beams] == [3.0, 3.0]
    for before, after in zip(plan_segments(plan), plan_segments(changed), strict=True):
        np.testing.assert_array_equal(before.aperture.leaf_x1_mm, after.aperture.leaf_x1_mm)


def test_no_segment_stays_below_the_least_mu():
    # mutant: raise the beam's MU instead of the segment's
    plan = small_plan.plan((small_plan.static_beam(1, 0.0, (10.0, 0.5, 3.0)),))
    assert [s.mu for s in plan_segments(with_least_mu(plan, 2.0))] == pytest.approx([10.0, 2.0, 3.0])
    assert with_least_mu(plan, 0.5) is plan


def test_scaling_a_plan_scales_every_control_point():
    plan = small_plan.plan()
    scaled = scaled_plan(plan, 1.25)
    assert scaled.mu == pytest.approx(1.25 * plan.mu)
    for before, after in zip(plan.beams, scaled.beams, strict=True):
        assert [c.cumulative_mu * 1.25 for c in before.control_points] == [c.cumulative_mu for c in after.control_points]


def test_fluence_maps_carry_each_beamlet_to_its_place():
    # mutant: swap rows and columns; mutant: all beamlets on the first beam
    beams = tuple(Beam(f"b{i}", 90.0 * i, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0) for i in range(2))
    beamlets = Beamlets(
        beams,
        np.array([0, 0, 0, 1]),
        np.array([3, 3, 4, 3]),
        np.array([-5.0, 0.0, 5.0, 10.0]),
        np.array([0.0, 5.0, 10.0, 15.0]),
        np.array([0.0, 0.0, 5.0, 0.0]),
        np.array([5.0, 5.0, 15.0, 5.0]),
    )
    first, second = fluence_maps(beamlets, np.array([1.0, 2.0, 3.0, 7.0]))
    np.testing.assert_array_equal(first.fluence_mu, [[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    np.testing.assert_array_equal(first.y_edges_mm, [0.0, 5.0, 15.0])
    np.testing.assert_array_equal(second.fluence_mu, [[7.0]])
    assert second.beam is beams[1]


def test_a_beam_without_segments_is_told():
    # mutant: compare the number of beams with itself
    plan = small_plan.plan((small_plan.static_beam(1, 0.0, (10.0,)),))
    kept = plan.beams[0].beam
    lost = replace(kept, name="lost")
    model = SimpleNamespace(operator=SimpleNamespace(beamlets=SimpleNamespace(beams=(kept, lost))))
    assert [f.code for f in unused_beams(model.operator.beamlets.beams, plan)] == ["BEAM_UNUSED"]
    assert "lost" in unused_beams(model.operator.beamlets.beams, plan)[0].message
