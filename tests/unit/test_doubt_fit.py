"""The fit of the confidence and of the limits, on samples whose answer is known."""

from __future__ import annotations

import numpy as np
from doubt_bodies import CALIBRATION

from segmentation.doubt.calibration import INPUTS
from segmentation.training.fit import Sample, added, fitted, left_out, tally_of


def _samples(rng: np.random.Generator, patients: int = 12) -> list[Sample]:
    """Structures whose Dice is a logistic of the first input, and slightly higher for the cord."""
    found = []
    for patient in range(patients):
        for name, offset in (("Larynx", 0.0), ("SpinalCord", 0.5)):
            for _ in range(6):
                inputs = rng.normal(0.0, 0.3, len(INPUTS))
                inputs[0] = rng.uniform(-3, 4)
                dice = float(1 / (1 + np.exp(-(inputs[0] + offset + rng.normal(0, 0.2)))))
                found.append(Sample(f"pt {patient}", "as it is", name, dice, inputs, 0.0, frozenset()))
    return found


def test_the_confidence_follows_the_dice():
    # mutant: subtract the gradient in _logistic
    samples = _samples(np.random.default_rng(1))
    calibration = fitted(samples)
    error = [abs(calibration.expected_dice(s.name, s.inputs) - s.dice) for s in samples]
    assert np.mean(error) < 0.05
    assert calibration.weights[0] > 0.8
    assert calibration.intercepts["SpinalCord"] > calibration.intercepts["Larynx"]


def test_more_oddity_never_makes_surer():
    # mutant: SIGNS all 0
    samples = _samples(np.random.default_rng(4))
    misled = [
        Sample(s.case_id, s.condition, s.name, s.dice, np.array([*s.inputs[:6], 3.0 * s.dice, 0.0]), 0.0, s.codes)
        for s in samples
    ]
    weights = dict(zip(INPUTS, fitted(misled).weights, strict=True))
    assert weights["oddity"] == 0.0
    assert weights["expected_dice"] > 0.5


def test_the_limits_find_bad_structures_without_many_false_alarms():
    # mutant: choose the limits with the most false alarms
    samples = _samples(np.random.default_rng(2))
    count = tally_of(fitted(samples), samples)
    assert count.bad > 20 and count.good > 20
    assert count.detected_share >= 0.88 and count.alarm_share <= 0.05


def test_a_structure_that_was_not_drawn_is_flagged_as_it_is_told():
    samples = [Sample("pt", "as it is", "Larynx", 0.0, None, 0.0, frozenset())]
    count = tally_of(CALIBRATION, samples)
    assert (count.bad, count.bad_flagged) == (1, 1)


def test_a_code_and_an_excess_flag_by_themselves():
    # mutant: leave out codes in tally
    sure = np.full(len(INPUTS), 5.0)
    samples = [
        Sample("pt", "as it is", "Larynx", 0.9, sure, 0.0, frozenset()),
        Sample("pt", "as it is", "Larynx", 0.9, sure, 0.0, frozenset({"WRONG_SIDE"})),
        Sample("pt", "as it is", "Larynx", 0.9, sure, 9.0, frozenset()),
    ]
    count = tally_of(CALIBRATION, samples)
    assert (count.good, count.good_flagged) == (3, 2)


def test_no_patient_is_judged_by_a_calibration_that_saw_it():
    # A patient unlike the others is misjudged when left out, and only then.
    # mutant: fit on all samples in left_out
    samples = _samples(np.random.default_rng(3))
    odd = [
        Sample("odd", "as it is", "Larynx", 0.1, np.array([3.0, *[6.0] * (len(INPUTS) - 1)]), 0.0, frozenset())
        for _ in range(20)
    ]
    seen = tally_of(fitted([*samples, *odd]), odd)
    left, _ = left_out([*samples, *odd])
    others, _ = left_out(samples)
    assert seen.bad_flagged == 20
    assert left.bad == added(others, seen).bad
    assert left.bad_flagged < others.bad_flagged + 20
