"""References of validation patients as if a sure network had drawn them: few are doubted. Needs ../shared."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubt_bodies import CALIBRATION, envelopes

from segmentation.doubt import assess
from segmentation.training.data import split_ids
from segmentation.training.truth import truth_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "openkbp"
NOT_DRAWN = {"ORGAN_NOT_FOUND", "ORGAN_OUTSIDE_SCAN"}


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data/openkbp")
def test_good_contours_of_real_patients_are_seldom_doubted():
    # mutant: flag_excess 0.1
    flagged = structures = strangers = 0
    for case_id in split_ids("validation")[:6]:
        truth = truth_of(DATA, case_id)
        doubts = [d for d in assess(truth.evidence, envelopes(), CALIBRATION).doubts if d.severity != "info"]
        structures += int(truth.evidence.masks.any(axis=(1, 2, 3)).sum())
        flagged += len({d.structure for d in doubts if d.structure and d.code not in NOT_DRAWN})
        strangers += any(d.structure is None for d in doubts)
    assert flagged <= 0.1 * structures
    assert strangers <= 1
