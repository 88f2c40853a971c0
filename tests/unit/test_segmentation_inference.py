"""Asking the network: members that stand for the same patient, sides that change places in the mirror, no answer at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segmentation.contract import DeviceMissing, OutputInvalid
from segmentation.device import torch_device
from segmentation.inference import AIR, MEMBERS, Member, Model, load_model
from segmentation.weights import read_description
from tests.small_model import LABELS, WINDOWS_HU, small_model

LEFT, RIGHT = LABELS.index("Parotid_L"), LABELS.index("Parotid_R")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return load_model(read_description(small_model(tmp_path_factory.mktemp("models") / "small"), "head_neck_oar"), "cpu")


class Bright(torch.nn.Module):
    """Calls what is bright and on the patient's left of the window Parotid_L, on the right Parotid_R; nothing else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.full((len(x), len(LABELS), *x.shape[2:]), -9.0)
        bright = torch.where(x[:, 0] > -0.24, 9.0, -9.0)  # -50 HU, halfway between ball and air
        middle = x.shape[-1] // 2
        out[:, LEFT, :, :, middle:] = bright[..., middle:]
        out[:, RIGHT, :, :, :middle] = bright[..., :middle]
        return out


class Broken(torch.nn.Module):
    """Answers `value` in one voxel from its second window on, or with other channels."""

    def __init__(self, value: float, channels: int = len(LABELS), sound: int = 1) -> None:
        super().__init__()
        self.value, self.channels, self.left = value, channels, sound

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros((len(x), self.channels, *x.shape[2:]))
        self.left -= 1
        if self.left < 0:
            out[0, 0, x.shape[2] // 2, x.shape[3] // 2, x.shape[4] // 2] = self.value
        return out


def two_glands() -> np.ndarray:
    """Two bright balls, the left one larger. (z, y, x) HU on 32 x 48 x 48 voxels."""
    z, y, x = np.ogrid[:32, :48, :48]
    hu = np.full((32, 48, 48), -1000, np.float32)
    hu[(z - 16) ** 2 + (y - 24) ** 2 + (x - 36) ** 2 < 49] = 900
    hu[(z - 16) ** 2 + (y - 24) ** 2 + (x - 10) ** 2 < 16] = 900
    return hu


def test_every_member_finds_the_larger_gland_on_the_left(model):
    """mutants: an answer left on its own grid; one factor for all members."""
    answers = replace(model, network=Bright()).ask(two_glands())
    assert len(answers.members) == len(MEMBERS) == 3
    for found in answers.members:
        left, right = np.argwhere(found[LEFT]), np.argwhere(found[RIGHT])
        np.testing.assert_allclose(left.mean(axis=0), [16, 24, 36], atol=0.35)
        np.testing.assert_allclose(right.mean(axis=0), [16, 24, 10], atol=0.35)
        assert len(left) > 3 * len(right) > 0


def test_probability_is_the_mean_of_the_members(model):
    hu = np.random.default_rng(0).normal(0, 300, (32, 48, 48)).astype(np.float32)
    one_by_one = [model.ask(hu, [member]).probability for member in MEMBERS]
    answers = model.ask(hu)
    np.testing.assert_allclose(answers.probability, np.mean(one_by_one, axis=0), atol=1e-6)
    assert not np.array_equal(one_by_one[0], one_by_one[1])
    assert answers.probability.dtype == np.float32 and answers.members.dtype == bool


def test_same_voxels_same_bits(model):
    hu = np.random.default_rng(1).normal(0, 300, (20, 40, 70)).astype(np.float32)
    first, second = model.ask(hu), model.ask(hu)
    assert np.array_equal(first.probability, second.probability) and np.array_equal(first.members, second.members)


def test_what_lies_beyond_the_scan_is_air(model):
    """A CT smaller than the window is answered as if air went on around it. mutant: cval=0, which is water."""
    seen = []

    class Look(Bright):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return super().forward(x)

    replace(model, network=Look()).ask(np.full((7, 20, 20), 40, np.float32), [MEMBERS[0]])
    (x,) = seen
    assert all(side % 16 == 0 for side in x.shape[2:])
    assert x.shape[1] == len(WINDOWS_HU)
    assert [float(window.max()) for window in x[0]] == pytest.approx([-0.168, 0.0])  # 40 HU
    for window in x[0]:
        assert float(window.min()) == AIR
        assert int((window != AIR).sum()) == 7 * 20 * 20


def test_air_around_the_patient_changes_nothing(model):
    """mutants: the whole field of view to the network; a box around the largest piece alone."""
    narrow = two_glands()
    wide = np.full((32, 96, 128), -1000, np.float32)
    wide[:, 20:68, 30:78] = narrow
    wide[:, 90, :] = -700  # a couch of foam
    first, other = model.ask(narrow, [MEMBERS[0]]), model.ask(wide, [MEMBERS[0]])
    inside = (slice(None), slice(None), slice(20, 68), slice(30, 78))
    assert first.probability[:, 16, 24, [10, 36]].all()
    np.testing.assert_array_equal(other.probability[inside], first.probability)
    assert not np.delete(other.probability, np.s_[20:68], axis=2).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_name_their_member(model, value):
    # mutant: look at the first member only
    with pytest.raises(OutputInvalid, match="larger"):
        replace(model, network=Broken(value)).ask(two_glands())
    with pytest.raises(OutputInvalid, match="as it is"):
        replace(model, network=Broken(value, sound=0)).ask(two_glands())


def test_other_channels_are_refused(model):
    with pytest.raises(OutputInvalid, match="expected"):
        replace(model, network=Broken(0.0, channels=3)).ask(two_glands())


def test_absent_or_unknown_device_is_refused_not_replaced():
    assert torch_device("cpu").type == "cpu"
    count = torch.cuda.device_count()
    absent = [f"cuda:{count}", f"gpu:{count}"] + ([] if count else ["gpu", "cuda"])
    for name in (*absent, "tpu", "mps", ""):
        with pytest.raises(DeviceMissing, match="device"):
            torch_device(name)


def test_member_names_differ():
    assert len({member.name for member in MEMBERS}) == len(MEMBERS)
    assert MEMBERS[0] == Member("as it is")
