"""The phantoms as training files: what the training reads is what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from sample_data.head_neck import head_neck
from sample_data.training_set import write_training_file
from segmentation.training.data import LABELS, load_case, reference_masks


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    phantom = head_neck()
    path = tmp_path_factory.mktemp("phantom") / "head_neck.npz"
    write_training_file(phantom, path)
    return phantom, path


def test_organs_stand_under_their_names(written):
    # mutant: shift the bits by one
    phantom, path = written
    hu, masks, spacing, flags = reference_masks(path)
    assert set(masks) == set(LABELS)
    assert np.array_equal(masks["Parotid_L"], phantom.masks["Parotid L"])
    assert np.array_equal(masks["External"], phantom.masks["BODY"])
    assert np.array_equal(hu, phantom.hu)
    assert (spacing, flags) == (phantom.grid.spacing_zyx_mm, ("phantom",))


def test_on_the_working_grid_organs_keep_their_volume(written):
    # mutant: threshold at 0.1
    phantom, path = written
    case = load_case(path, "head_neck")
    for name, source in (("Parotid_R", "Parotid R"), ("SpinalCord", "Spinal Cord"), ("Bone_Mandible", "Mandible")):
        drawn_cc = phantom.masks[source].sum() * phantom.grid.voxel_cc
        kept_cc = (case.bits >> LABELS.index(name) & 1).sum() * 3.0 * 3.9 * 3.9 / 1000
        assert kept_cc == pytest.approx(drawn_cc, rel=0.06), name
