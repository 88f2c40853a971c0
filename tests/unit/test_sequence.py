"""First segments follow the fluence, and no plan asks more of the machine than it can do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from rtplan.checks import run_checks
from rtplan.domain.beams import Beam
from rtplan.domain.example_context import example_context, example_machine
from rtplan.domain.influence import Beamlets, FluencePlan
from rtplan.domain.openings import static_segments
from rtplan.errors import PlanningFailed
from rtplan.steps.fluence import plan_fluence
from rtplan.steps.sequence import first_segments, plan_of

DOSE_CHECKS = {"DOSE_IMPLAUSIBLE", "DOSE_GRID", "DOSE_SUM"}


def round_field(machine, *, n_beams=2, half_mm=(30.0, 40.0), column_mm=5.0, hole=False):
    """Beamlets within an ellipse, with a hole beside its middle if asked."""
    bounds = machine.mlc.leaf_boundaries_mm
    cells = []
    for i in range(n_beams):
        for k in range(machine.mlc.n_pairs):
            y = (bounds[k] + bounds[k + 1]) / 2
            for x in np.arange(-half_mm[0], half_mm[0], column_mm):
                inside = ((x + column_mm / 2) / half_mm[0]) ** 2 + (y / half_mm[1]) ** 2 < 1
                if inside and not (hole and abs(y) < 8 and abs(x - 10) < 6):
                    cells.append((i, k, x, x + column_mm, bounds[k], bounds[k + 1]))
    table = np.array(cells)
    beams = tuple(Beam(f"B{i}", 40.0 * i, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0) for i in range(n_beams))
    return Beamlets(beams, table[:, 0], table[:, 1], *table[:, 2:].T)


def smooth_fluence(beamlets, seed, peak_mu=100.0):
    rng = np.random.default_rng(seed)
    weights = np.zeros(len(beamlets))
    for i in range(len(beamlets.beams)):
        mine = beamlets.beam_index == i
        noise = gaussian_filter(rng.random((70, 90)), 2.0)
        noise = (noise - noise.min()) / np.ptp(noise)
        column = np.rint(beamlets.x1_mm[mine] / 5.0).astype(int) + 45
        weights[mine] = peak_mu * noise[beamlets.leaf_pair[mine], column]
    return weights


def areas(beamlets):
    return (beamlets.x2_mm - beamlets.x1_mm) * (beamlets.y2_mm - beamlets.y1_mm)


def segments_for(beamlets, target, machine, segments_per_beam=8):
    fluence = FluencePlan(beamlets, target, 0.0, 0.0, 1, True)
    return first_segments(fluence, machine, segments_per_beam=segments_per_beam)


def delivered(plan, beamlets, machine):
    """Mean of the plan's fluence maps over each beamlet, (n_beamlets,)."""
    found = np.zeros(len(beamlets))
    for field in plan_fluence(plan, machine, pixel_mm=2.5):
        number = [b.name for b in beamlets.beams].index(field.beam.name)
        for j in np.flatnonzero(beamlets.beam_index == number):
            x = (field.x_edges_mm[:-1] > beamlets.x1_mm[j] - 1) & (field.x_edges_mm[1:] < beamlets.x2_mm[j] + 1)
            y = (field.y_edges_mm[:-1] > beamlets.y1_mm[j] - 1) & (field.y_edges_mm[1:] < beamlets.y2_mm[j] + 1)
            found[j] = field.fluence_mu[np.ix_(y, x)].mean() if x.any() and y.any() else 0.0
    return found


def misfit(found, target, beamlets):
    area = areas(beamlets)
    return float(np.sqrt((area * (found - target) ** 2).sum() / (area * target**2).sum()))


def faults(plan, machine):
    context = replace(example_context(), plan=plan, machine=machine)
    return [(r.check_id, r.message) for r in run_checks(context) if not r.passed and r.check_id not in DOSE_CHECKS]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    interdigitation=st.booleans(),
    half_x=st.sampled_from([20.0, 35.0, 95.0]),
    column_mm=st.sampled_from([5.0, 2.5]),
    peak_mu=st.sampled_from([30.0, 200.0]),
    gap_mm=st.sampled_from([0.0, 0.5, 5.0]),
)
def test_every_plan_is_deliverable(seed, interdigitation, half_x, column_mm, peak_mu, gap_mm):
    # mutants: rows taken without regard to their neighbours; closed pairs at the field's middle
    machine = example_machine()
    machine = replace(machine, mlc=replace(machine.mlc, interdigitation=interdigitation, min_gap_mm=gap_mm))
    beamlets = round_field(machine, n_beams=1, half_mm=(half_x, 40.0), column_mm=column_mm, hole=interdigitation)
    target = smooth_fluence(beamlets, seed, peak_mu)
    segments = segments_for(beamlets, target, machine, segments_per_beam=6)
    assert len(segments.shapes) <= 6
    assert misfit(segments.fluence(), target, beamlets) < 0.3
    plan = plan_of(segments.keeping(segments.mu >= machine.min_segment_mu), 30)
    assert faults(plan, machine) == []


def test_smooth_fluence_is_followed_ever_better_by_more_segments():
    # mutant: weights not refitted
    machine = example_machine()
    beamlets = round_field(machine, hole=True)
    target = smooth_fluence(beamlets, 1)
    misfits = []
    for n in (3, 8, 20):
        segments = segments_for(beamlets, target, machine, n)
        misfits.append(misfit(delivered(plan_of(segments, 30), beamlets, machine), target, beamlets))
        assert np.bincount([s.beam_index for s in segments.shapes]).max() <= n
    assert misfits[0] < 0.25 and misfits[1] < 0.06 and misfits[2] < 0.03


def test_the_fluence_of_segments_is_what_their_plan_delivers():
    """Exactly so without tongues and where the jaws let all through: this machine has neither. mutants: transmission
    forgotten in the segments' fluence; MU handed out in the order of delivery"""
    machine = example_machine()
    beamlets = round_field(machine, hole=True)
    target = smooth_fluence(beamlets, 2)
    segments = segments_for(beamlets, target, machine)
    difference = delivered(plan_of(segments, 30), beamlets, machine) - segments.fluence()
    assert np.abs(difference).max() < 1e-9 * target.max()


def test_a_fluence_of_one_aperture_becomes_that_one_segment():
    # mutant: jaws at the field's edges
    machine = example_machine()
    machine = replace(machine, mlc=replace(machine.mlc, transmission=0.0, interleaf_transmission=0.0))
    beamlets = round_field(machine, n_beams=1)
    target = np.where(beamlets.x1_mm >= -10, 50.0, 0.0)
    plan = plan_of(segments_for(beamlets, target, machine), 30)
    segments = static_segments(plan.beams[0])
    assert [mu for _, mu in segments] == pytest.approx([50.0])
    assert segments[0][0].jaw_x1_mm == -10.0
    assert misfit(delivered(plan, beamlets, machine), target, beamlets) < 1e-9


@pytest.mark.parametrize("interdigitation", [True, False])
def test_jaws_follow_the_segments_only_where_closed_leaves_need_it(interdigitation):
    # mutant: together and alone exchanged
    machine = example_machine()
    machine = replace(machine, mlc=replace(machine.mlc, interdigitation=interdigitation))
    beamlets = round_field(machine, n_beams=1)
    plan = plan_of(segments_for(beamlets, smooth_fluence(beamlets, 4), machine), 30)
    boxes = {(a.jaw_x1_mm, a.jaw_x2_mm, a.jaw_y1_mm, a.jaw_y2_mm) for a, _ in static_segments(plan.beams[0])}
    assert (len(boxes) == 1) is interdigitation


def test_the_plan_gives_every_segment_its_mu_and_begins_with_the_strongest():
    # mutant: the weakest first
    machine = example_machine()
    beamlets = round_field(machine)
    segments = segments_for(beamlets, smooth_fluence(beamlets, 3), machine)
    plan = plan_of(segments, 30)
    assert plan.fractions == 30
    for i, beam in enumerate(plan.beams):
        mu = [mu for _, mu in static_segments(beam)]
        own = [m for s, m in zip(segments.shapes, segments.mu, strict=True) if s.beam_index == i]
        assert sorted(mu) == pytest.approx(sorted(own))
        assert mu[0] == pytest.approx(max(own))


def test_segments_with_one_aperture_are_one_segment_with_the_mu_of_all():
    # mutant: each by itself, which reads as lost control points; mutant: the MU of the second lost
    machine = example_machine()
    beamlets = round_field(machine, n_beams=1)
    found = segments_for(beamlets, smooth_fluence(beamlets, 3), machine, 2)
    shape = found.shapes[0]
    twins = replace(found, shapes=(shape, *found.shapes, shape), mu=np.array([3.0, 5.0, 7.0, 11.0]))
    (beam,) = plan_of(twins, 30).beams
    assert sorted(mu for _, mu in static_segments(beam)) == pytest.approx([7.0, 19.0])
    (beam,) = plan_of(replace(found, shapes=(shape, shape), mu=np.array([3.0, 5.0])), 30).beams
    assert len(beam.control_points) == 2 and beam.mu == pytest.approx(8.0)


def test_the_next_segment_is_the_one_that_the_leaves_reach_first():
    # mutant: argmax
    machine = example_machine()
    beamlets = round_field(machine, n_beams=1)
    plan = plan_of(segments_for(beamlets, smooth_fluence(beamlets, 3), machine), 30)
    apertures = [a for a, _ in static_segments(plan.beams[0])]
    assert len(apertures) > 4

    def travel(a, b):
        return max(np.abs(a.leaf_x1_mm - b.leaf_x1_mm).max(), np.abs(a.leaf_x2_mm - b.leaf_x2_mm).max())

    for i, here in enumerate(apertures[:-1]):
        assert travel(here, apertures[i + 1]) == min(travel(here, later) for later in apertures[i + 1 :])


def test_segments_of_next_to_no_mu_are_left_out():
    # mutant: keep all
    machine = replace(example_machine(), min_segment_mu=15.0)
    beamlets = round_field(machine)
    segments = segments_for(beamlets, smooth_fluence(beamlets, 7), machine, 12)
    assert segments.mu.min() > 15.0 / 8 and len(segments.mu) == len(segments.shapes) < 24


def test_a_beam_without_fluence_is_left_out_and_the_others_keep_their_numbers():
    # mutant: beams numbered in the plan's order
    machine = example_machine()
    beamlets = round_field(machine)
    target = np.where(beamlets.beam_index == 0, 0.0, smooth_fluence(beamlets, 8))
    plan = plan_of(segments_for(beamlets, target, machine), 30)
    assert [(b.number, b.beam.name) for b in plan.beams] == [(2, "B1")]


def test_the_same_fluence_gives_the_same_plan():
    machine = example_machine()
    beamlets = round_field(machine)
    target = smooth_fluence(beamlets, 9)
    a, b = (plan_of(segments_for(beamlets, target, machine), 30) for _ in range(2))
    for one, other in zip(a.beams, b.beams, strict=True):
        for p, q in zip(one.control_points, other.control_points, strict=True):
            assert p.cumulative_mu == q.cumulative_mu
            assert np.array_equal(p.aperture.leaf_x1_mm, q.aperture.leaf_x1_mm)
            assert np.array_equal(p.aperture.leaf_x2_mm, q.aperture.leaf_x2_mm)


def test_what_cannot_be_delivered_is_refused_with_its_code():
    machine = example_machine()
    beamlets = round_field(machine)
    target = smooth_fluence(beamlets, 10)
    cases = {
        "NO_SEGMENTS": (np.zeros(len(beamlets)), machine),
        "BEAM_MU": (target, replace(machine, max_beam_mu=20.0)),
    }
    for code, (weights, on) in cases.items():
        with pytest.raises(PlanningFailed) as caught:
            plan_of(segments_for(beamlets, weights, on), 30)
        assert caught.value.code == code
