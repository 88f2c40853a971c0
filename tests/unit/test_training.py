"""Training: what may teach, what augmentation keeps true, and that a broken-off run goes on as if nothing had happened."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segmentation.training.augment import sample
from segmentation.training.data import LABELS, Case, load_case, split_ids
from segmentation.training.loss import masked_loss
from segmentation.training.train import (
    DECAY_SHARE,
    INSIDE_STEPS,
    INSIDE_WEIGHT,
    PHANTOM_SHARE,
    PRIOR_LOGIT,
    WAKE_STEPS,
    WAKE_WEIGHT,
    Run,
    Settings,
    chances,
    last_convolution,
)

CORD, LARYNX, EXTERNAL = LABELS.index("SpinalCord"), LABELS.index("Larynx"), LABELS.index("External")
LEFT, RIGHT = LABELS.index("Parotid_L"), LABELS.index("Parotid_R")
PATCH = (16, 16, 24)


def write_patient(path, masks, flags=("",), body_z=(0, 19), shape=(20, 24, 30)):
    bits = np.zeros(shape, np.uint16)
    for b, mask in enumerate(masks.values()):
        bits |= mask.astype(np.uint16) << b
    np.savez(
        path,
        ct=np.where(bits > 0, 40, -1000).astype(np.int16),
        mask=bits,
        bit_names=np.array(list(masks)),
        spacing=np.array([3.0, 3.9, 3.9]),
        body_z=np.array(body_z),
        flags=np.array(flags),
    )
    return path


def block(z, y, x, shape=(20, 24, 30)):
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


@pytest.fixture
def case(tmp_path):
    body = block(slice(None), slice(4, 20), slice(4, 26))
    masks = {
        "External": body,
        "SpinalCord": block(slice(8, 20), slice(15, 17), slice(14, 16)),
        "LeftParotid": block(slice(10, 15), slice(8, 12), slice(20, 24)),
        "Larynx": np.zeros_like(body),
    }
    return load_case(write_patient(tmp_path / "p.npz", masks), "p")


def test_an_organ_that_was_not_drawn_teaches_nothing(case):
    # mutant: known[b] = True for every organ
    assert not case.known[LARYNX].any()
    assert not case.known[RIGHT].any()
    assert case.known[LEFT].all()


def test_below_the_last_drawn_slice_the_cord_is_unknown(case):
    # mutant: leave GOES_ON_BELOW out
    assert not case.known[CORD, :8].any()
    assert case.known[CORD, 8:].all()


def test_a_phantom_without_an_organ_has_none(tmp_path):
    body = block(slice(None), slice(4, 20), slice(4, 26))
    case = load_case(write_patient(tmp_path / "p.npz", {"External": body}, flags=("phantom",)), "p")
    assert case.known.all()
    assert case.phantom


def test_a_flagged_larynx_teaches_nothing(tmp_path):
    masks = {
        "External": block(slice(None), slice(4, 20), slice(4, 26)),
        "Larynx": block(slice(5, 8), slice(8, 10), slice(14, 16)),
    }
    assert load_case(write_patient(tmp_path / "a.npz", masks), "a").known[LARYNX].all()
    assert not load_case(write_patient(tmp_path / "b.npz", masks, flags=("larynx_tiny",)), "b").known[LARYNX].any()


def test_slices_without_a_whole_body_are_cut_off(tmp_path):
    masks = {"External": block(slice(5, 15), slice(4, 20), slice(4, 26))}
    assert load_case(write_patient(tmp_path / "a.npz", masks, body_z=(5, 14)), "a").hu.shape[0] == 10


def test_no_gradient_where_nothing_is_known():
    # mutant: cross-entropy over every voxel
    logits = torch.randn(1, 8, 4, 5, 6, requires_grad=True)
    known = torch.ones(1, 8, 4, 1, 1)
    known[0, LARYNX] = 0
    known[0, CORD, :2] = 0
    masked_loss(logits, torch.ones(1, 8, 4, 5, 6), known).backward()
    assert not logits.grad[0, LARYNX].any()
    assert not logits.grad[0, CORD, :2].any()
    assert logits.grad[0, CORD, 2:].all()


def test_unknown_structures_do_not_dilute_the_loss():
    # mutant: weight = ones
    generator = torch.Generator().manual_seed(2)
    logits, labels = torch.randn(1, 8, 4, 5, 6, generator=generator), torch.ones(1, 8, 4, 5, 6)
    known = torch.ones(1, 8, 4, 1, 1)
    known[0, 3:] = 0
    alone = masked_loss(logits[:, :3], labels[:, :3], known[:, :3])
    assert float(masked_loss(logits, labels, known)) == pytest.approx(float(alone), rel=1e-6)


def test_a_perfect_answer_costs_nothing():
    labels = (torch.rand(1, 8, 4, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    assert float(masked_loss(40 * labels - 20, labels, torch.ones(1, 8, 4, 1, 1))) < 1e-4
    assert float(masked_loss(20 - 40 * labels, labels, torch.ones(1, 8, 4, 1, 1))) > 1


def test_augmented_organs_stay_on_their_side(case):
    # mutant: mirror the voxels without swapping the labels
    seen = set()
    for seed in range(30):
        _, labels, known = sample(case, (20, 24, 30), np.random.default_rng(seed))
        body_x = np.argwhere(labels[EXTERNAL]).mean(0)[2]
        for organ in (LEFT, RIGHT):
            if labels[organ].any():
                side = np.argwhere(labels[organ]).mean(0)[2] - body_x
                assert (side > 0) == (organ == LEFT)
                assert known[organ].all()
                seen.add(organ)
    assert seen == {LEFT, RIGHT}


def test_a_patch_is_a_function_of_its_generator(case):
    first, again, other = (sample(case, PATCH, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_phantoms_have_their_share(case):
    phantom = Case("q", case.hu, case.bits, case.known, phantom=True)
    weights = chances([case, case, phantom])
    assert weights.sum() == pytest.approx(1)
    assert weights[2] == pytest.approx(PHANTOM_SHARE)


def test_validation_and_calibration_are_never_trained_on():
    parts = [set(split_ids(part)) for part in ("train", "calibration", "validation")]
    assert [len(p) for p in parts] == [142, 20, 30]
    assert len(set.union(*parts)) == 192
    assert all(i.startswith("dev/") for i in parts[2])


def test_a_resumed_run_is_the_run(case, tmp_path):
    # mutant: forget the optimiser; mutant: draw from a generator that is not of the step
    settings = Settings(steps=6, filters=(4, 8, 8), patch=PATCH)
    cases, weights = [case, case], np.array([0.5, 0.5])
    whole = Run(settings, "cpu")
    losses = [whole.advance(cases, weights) for _ in range(5)]
    first = Run(settings, "cpu")
    for _ in range(3):
        first.advance(cases, weights)
    first.save(tmp_path / "checkpoint.pt")
    second = Run(settings, "cpu")
    second.resume(tmp_path / "checkpoint.pt")
    assert [second.advance(cases, weights) for _ in range(2)] == losses[3:]
    for a, b in zip(whole.average.state_dict().values(), second.average.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_learning_rate_is_the_same_for_every_length_until_it_decays():
    short, long = Settings(steps=1000), Settings(steps=10000)
    constant = round(short.steps * (1 - DECAY_SHARE))
    assert [short.learning_rate_at(s) for s in range(constant)] == [long.learning_rate_at(s) for s in range(constant)]
    assert short.learning_rate_at(999) < 0.01 * short.learning_rate < long.learning_rate_at(999)


def test_hidden_kernels_take_orthogonal_steps_and_others_do_not(case):
    # mutant: AdamW for all; mutant: a matrix that is a copy of its kernel
    run = Run(Settings(steps=8, filters=(4, 8, 8), patch=PATCH), "cpu")
    kernels = [p for p in run.network.parameters() if p.ndim == 5]
    before = [p.detach().clone() for p in kernels]
    run.advance([case], np.array([1.0]))
    steps = [(p.detach() - b).permute(0, 2, 3, 4, 1).flatten(1) for p, b in zip(kernels, before, strict=True)]
    spread = [float(s.max() / s.min()) for s in (torch.linalg.svdvals(step) for step in steps[1:-1])]
    assert max(spread) < 3  # Muon's five iterations leave singular values between 0.7 and 1.2
    assert all(step.any() for step in steps)


def test_a_voxel_inside_counts_more_at_first_and_after_a_structure_was_woken():
    settings = Settings()
    assert settings.inside_weight_at(0) == INSIDE_WEIGHT
    assert settings.inside_weight_at(INSIDE_STEPS) == settings.inside_weight_at(settings.steps) == 1
    assert settings.inside_weight_at(2000, woken_step=2000) == WAKE_WEIGHT
    assert settings.inside_weight_at(2000 + WAKE_STEPS, woken_step=2000) == 1


def test_the_inside_weight_is_of_its_structure():
    # mutant: the first weight for all
    labels, known = torch.ones(1, 8, 4, 5, 6), torch.ones(1, 8, 4, 1, 1)
    logits = torch.zeros(1, 8, 4, 5, 6, requires_grad=True)
    masked_loss(logits, labels, known, [1.0] * 7 + [10.0]).backward()
    plain = torch.zeros(1, 8, 4, 5, 6, requires_grad=True)
    masked_loss(plain, labels, known).backward()
    assert torch.equal(logits.grad[0, :7], plain.grad[0, :7])
    assert (logits.grad[0, 7].abs() > 5 * plain.grad[0, 7].abs()).all()


def test_a_structure_that_sank_to_nothing_begins_again_at_its_prior(case, tmp_path):
    # mutant: keep the optimiser's memory of the channel; mutant: forget what was woken in the checkpoint
    run = Run(Settings(steps=8, filters=(4, 8, 8), patch=PATCH), "cpu")
    last, weights = last_convolution(run.network), np.array([1.0])
    for _ in range(3):
        run.advance([case], weights)
    with torch.no_grad():
        last.bias.fill_(3.0)
        last.bias[CORD] = -40.0
    before = last.weight[LARYNX].clone()
    assert run.wake([case]) == ["SpinalCord"]
    assert not any(memory.any() for memory in run.optimizer.memory(last, CORD))
    assert not last.weight[CORD].any()
    assert float(last.bias[CORD].detach()) == PRIOR_LOGIT
    assert torch.equal(last.weight[LARYNX], before)
    run.advance([case], weights)
    assert last.weight[CORD].any()
    run.save(tmp_path / "checkpoint.pt")
    again = Run(run.settings, "cpu")
    again.resume(tmp_path / "checkpoint.pt")
    assert again.woken == {"SpinalCord": 3}
