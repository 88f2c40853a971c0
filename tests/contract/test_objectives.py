"""One suite over every objective on the shelf."""

from __future__ import annotations

import numpy as np
import pytest

from rtplan.errors import LibraryInvalid
from rtplan.registry import shelf

SHELF = shelf("rtplan.objectives")
CONVEX = sorted(kind for kind, plugin in SHELF.items() if plugin.convex)
NOT_CONVEX = sorted(set(SHELF) - set(CONVEX))
N = 60


@pytest.fixture(params=sorted(SHELF))
def plugin(request: pytest.FixtureRequest):
    return SHELF[request.param]


def sample(seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Doses 0.5 to 60 Gy without ties, and volume shares 0.1 to 1."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 60.0, n), rng.uniform(0.1, 1.0, n)


def test_shelf_holds_what_protocols_name():
    assert {"overdose", "underdose", "mean_dose", "max_dose", "max_dvh", "min_dvh", "eud"} <= set(SHELF)


def test_kind_is_the_name_of_the_file(plugin):
    assert plugin.__module__ == f"rtplan.objectives.{plugin.kind}"  # mutant: kind copied from another file


def test_example_is_violated_by_a_spread_of_doses(plugin):
    value, gradient = plugin.example().value_and_gradient(*sample(1))
    assert value > 0.0
    assert np.any(gradient != 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_gradient_agrees_with_finite_differences(plugin, seed):
    dose, weight = sample(seed)
    objective = plugin.example()
    _, gradient = objective.value_and_gradient(dose, weight)
    step = 1e-5
    differences = np.empty(N)
    for i in range(N):
        up, down = dose.copy(), dose.copy()
        up[i] += step
        down[i] -= step
        above, below = objective.value_and_gradient(up, weight)[0], objective.value_and_gradient(down, weight)[0]
        differences[i] = (above - below) / (2 * step)
    assert gradient == pytest.approx(differences, rel=1e-5, abs=1e-6 * np.abs(gradient).max())  # mutant: drop the factor 2


def test_zero_with_zero_gradient_where_satisfied_and_only_there(plugin):
    """Every wish is met by no dose at all or by a dose far above every level, and violated by the other."""
    _, weight = sample(2)
    objective = plugin.example()
    results = [objective.value_and_gradient(np.full(N, level), weight) for level in (0.0, 100.0)]
    met = [value == 0.0 and not gradient.any() for value, gradient in results]
    assert sorted(met) == [False, True]


@pytest.mark.parametrize("seed", range(20))
def test_never_negative(plugin, seed):
    dose, weight = sample(seed)
    assert plugin.example().value_and_gradient(dose * np.random.default_rng(seed).uniform(0.0, 2.0), weight)[0] >= 0.0


@pytest.mark.parametrize("kind", CONVEX)
@pytest.mark.parametrize("seed", range(40))
def test_convex_objectives_lie_below_their_chords(kind, seed):
    plugin = SHELF[kind]
    first, weight = sample(seed)
    second = sample(1000 + seed)[0] * (seed % 4 + 1) / 2
    objective = plugin.example()
    f0, g0 = objective.value_and_gradient(first, weight)
    f1, _ = objective.value_and_gradient(second, weight)
    for t in (0.1, 0.5, 0.9):
        between, _ = objective.value_and_gradient((1 - t) * first + t * second, weight)
        assert between <= (1 - t) * f0 + t * f1 + 1e-9 * (f0 + f1)
    assert f1 >= f0 + g0 @ (second - first) - 1e-9 * (f0 + f1)  # the solver's lower bound rests on this


@pytest.mark.parametrize("kind", NOT_CONVEX)
def test_objectives_flagged_as_not_convex_are_not(kind):
    objective, rose = SHELF[kind].example(), False
    weight = np.ones(20)
    for seed in range(500):
        rng = np.random.default_rng(seed)
        first = rng.choice([0.0, 60.0], 20, p=[seed / 500, 1 - seed / 500])
        second = rng.permutation(first)
        ends = [objective.value_and_gradient(dose, weight)[0] for dose in (first, second)]
        rose |= objective.value_and_gradient((first + second) / 2, weight)[0] > np.mean(ends) + 1e-6
    assert rose  # otherwise the flag withholds a proof for nothing


@pytest.mark.parametrize("seed", range(5))
def test_a_voxel_of_weight_two_is_two_voxels(plugin, seed):
    dose, _ = sample(seed)
    times = np.random.default_rng(seed).integers(1, 4, N)
    objective = plugin.example()
    value, gradient = objective.value_and_gradient(dose, times.astype(float))
    repeated_value, repeated_gradient = objective.value_and_gradient(np.repeat(dose, times), np.ones(times.sum()))
    assert value == pytest.approx(repeated_value, rel=1e-12)
    collected = np.add.reduceat(repeated_gradient, np.concatenate(([0], np.cumsum(times)[:-1])))
    assert gradient == pytest.approx(collected, rel=1e-9, abs=1e-15)


def test_only_ratios_of_weights_matter(plugin):
    dose, weight = sample(3)
    value, gradient = plugin.example().value_and_gradient(dose, weight)
    scaled_value, scaled_gradient = plugin.example().value_and_gradient(dose, 0.125 * weight)
    assert scaled_value == pytest.approx(value, rel=1e-12)  # mutant: forget to divide by the sum of weights
    assert scaled_gradient == pytest.approx(gradient, rel=1e-9)


def test_one_gray_beyond_everywhere_is_about_one(plugin):
    """Weights compare across objectives: 1 Gy beyond the level everywhere is 1 Gy² times the volume that counts."""
    objective = plugin.example()
    values = [objective.value_and_gradient(np.full(N, objective.dose_gy + beyond), np.ones(N))[0] for beyond in (-1.0, 1.0)]
    assert min(values) == 0.0
    assert 0.5 <= max(values) <= 1.0 + 1e-12


def test_order_of_voxels_does_not_matter(plugin):
    dose, weight = sample(4)
    order = np.random.default_rng(4).permutation(N)
    value, gradient = plugin.example().value_and_gradient(dose, weight)
    shuffled_value, shuffled_gradient = plugin.example().value_and_gradient(dose[order], weight[order])
    assert shuffled_value == pytest.approx(value, rel=1e-12)
    assert shuffled_gradient == pytest.approx(gradient[order], rel=1e-9, abs=1e-15)


def test_single_precision_dose_gives_the_same_to_rounding(plugin):
    dose, weight = sample(5, 5000)
    value, gradient = plugin.example().value_and_gradient(dose, weight)
    single_value, single_gradient = plugin.example().value_and_gradient(dose.astype(np.float32), weight.astype(np.float32))
    assert single_value == pytest.approx(value, rel=1e-5)
    assert single_gradient == pytest.approx(gradient, rel=1e-3, abs=1e-5 * np.abs(gradient).max())


def test_inputs_are_left_alone(plugin):
    dose, weight = sample(6)
    dose.flags.writeable = weight.flags.writeable = False
    plugin.example().value_and_gradient(dose, weight)


def test_parameters_round_trip(plugin):
    example = plugin.example()
    assert plugin.from_parameters(example.model_dump()) == example


def test_wrong_parameters_are_refused(plugin):
    good = plugin.example().model_dump()
    wrong = {
        "unknown": {**good, "colour": 1.0},
        "negative": {**good, "dose_gy": -1.0},
        "far too high": {**good, "dose_gy": 7000.0},  # cGy for Gy
        "not a number": {**good, "dose_gy": float("nan")},
        "a truth value": {**good, "dose_gy": True},
        "missing": {name: value for name, value in good.items() if name != "dose_gy"},
    }
    for name, parameters in wrong.items():
        with pytest.raises(LibraryInvalid) as caught:
            plugin.from_parameters(parameters)
        assert caught.value.code == "OBJECTIVE_INVALID", name
        assert plugin.kind in caught.value.found


@pytest.mark.parametrize("a", [0.0, 0.5, 0.99])
def test_eud_refuses_an_exponent_without_meaning(a):
    with pytest.raises(LibraryInvalid, match="organ"):
        SHELF["eud"].from_parameters({"dose_gy": 20.0, "a": a})


# Hand calculations. Doses 10, 20, 30, 40 Gy in equal volumes.
FOUR = np.array([10.0, 20.0, 30.0, 40.0])


@pytest.mark.parametrize(
    ("kind", "parameters", "value"),
    [
        ("overdose", {"dose_gy": 25.0}, (5**2 + 15**2) / 4),
        ("underdose", {"dose_gy": 25.0}, (15**2 + 5**2) / 4),
        ("mean_dose", {"dose_gy": 15.0}, 10.0**2),
        ("mean_underdose", {"dose_gy": 32.0}, 7.0**2),
        ("max_dose", {"dose_gy": 25.0, "power": 2.0}, (5**2 + 15**2) / 4),
        ("max_dose", {"dose_gy": 25.0, "power": 4.0}, np.sqrt((5**4 + 15**4) / 4)),
        ("max_dvh", {"dose_gy": 15.0, "volume_percent": 25.0}, (5**2 + 15**2) / 4),  # the 40 Gy voxel is let off
        ("max_dvh", {"dose_gy": 15.0, "volume_percent": 75.0}, 0.0),
        ("max_dvh", {"dose_gy": 15.0, "volume_percent": 37.5}, (5**2 + 15**2 / 2) / 4),  # half of the 30 Gy voxel too
        ("min_dvh", {"dose_gy": 25.0, "volume_percent": 75.0}, 5**2 / 4),  # the 10 Gy voxel is let off
        ("min_dvh", {"dose_gy": 25.0, "volume_percent": 50.0}, 0.0),
        ("hot_tail", {"dose_gy": 30.0, "volume_percent": 50.0}, 5.0**2),
        ("cold_tail", {"dose_gy": 20.0, "volume_percent": 50.0}, 5.0**2),
        ("eud", {"dose_gy": 15.0, "a": 1.0}, 10.0**2),
        ("eud", {"dose_gy": 15.0, "a": 2.0}, (np.sqrt(750.0) - 15.0) ** 2),
        ("eud", {"dose_gy": 25.0, "a": -1.0}, (25.0 - 4 / (1 / 10 + 1 / 20 + 1 / 30 + 1 / 40)) ** 2),
    ],
)
def test_value_by_hand(kind, parameters, value):
    assert SHELF[kind].from_parameters(parameters).value_and_gradient(FOUR, np.ones(4))[0] == pytest.approx(value, rel=1e-12)


def test_target_eud_stays_finite_and_pulls_upwards_at_zero_dose():
    objective = SHELF["eud"].from_parameters({"dose_gy": 60.0, "a": -20.0})
    value, gradient = objective.value_and_gradient(np.array([0.0, 30.0, 60.0]), np.ones(3))
    assert value == pytest.approx(3600.0, rel=1e-5)
    assert np.isfinite(gradient).all() and gradient[0] < 0.0


@pytest.mark.parametrize("seed", range(20))
def test_target_eud_is_convex(seed):
    objective = SHELF["eud"].from_parameters({"dose_gy": 50.0, "a": -8.0})
    first, weight = sample(seed)
    second, _ = sample(1000 + seed)
    f0, g0 = objective.value_and_gradient(first, weight)
    f1, _ = objective.value_and_gradient(second, weight)
    assert f1 >= f0 + g0 @ (second - first) - 1e-9 * (f0 + f1)
