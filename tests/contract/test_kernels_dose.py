"""Every backend computes `terma` and `superpose` as the reference does."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from kernels.backend import BACKENDS, available_backends, get_backend
from kernels.contract import BackendUnavailable, BeamGeometry, BeamTables, GridGeometry, Released, fluence_table
from kernels.directions import direction_set
from kernels.lines import line_steps

SHAPE, SPACING_ZYX_MM = (9, 10, 13), (3.0, 4.0, 5.5)
GRID = GridGeometry(SHAPE, SPACING_ZYX_MM, (-33.0, -18.0, -12.0))
TURNED = BeamGeometry(
    np.array([295.5, -955.3, 0.0]), np.array([[0.9553, 0.2955, 0.0], [0.0, 0.0, 1.0], [0.2955, -0.9553, 0.0]]), 1000.0
)


def body():
    density = np.random.default_rng(3).uniform(0.1, 1.6, SHAPE).astype(np.float32)
    density[:2], density[3:5, 4:6], density[7, 8] = 0.0, 0.0012, 7.0  # nothing, air, a metal implant
    return density


def released(name):
    fluence = fluence_table(np.array([-22.0, -3.0, 12.0]), np.array([-11.0, 0.0, 14.0]), np.array([[1.0, 0.5], [0.0, 2.0]]))
    depth = 0.1 * np.arange(600)
    decay = np.exp(-np.multiply.outer([[0.05, 0.1], [0.06, 0.12]], depth))
    radii = np.array([0.0, 10.0, 90.0])
    tables = BeamTables(0.1, np.array([0.0, 20.0]), decay, radii, np.array([1.0, 1.03, 1.2]))
    return get_backend(name).terma(body(), grid=GRID, beam=TURNED, fluence=fluence, tables=tables)


def deposited(name):
    random = np.random.default_rng(5)
    energy = random.uniform(0, 1, (2, 2, *SHAPE)).astype(np.float32)
    energy[:, :, body() == 0] = 0
    released = Released((5, 0, 0), energy[0, :, 5:]), Released((0, 2, 1), energy[1, :, :, 2:, 1:6])
    kernels = random.uniform(-0.1, 1, (2, 86, 12, 9)).astype(np.float32)
    other = BeamGeometry(np.array([0.0, -300.0, 0.0]), np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]), 300.0)
    phases = np.where(np.arange(86) % 2, 0.25, 0.75)
    options = {"grid": GRID, "beams": (TURNED, other), "phases": phases, "smallest_exponent_per_cm": 0.04}
    return get_backend(name).superpose(body(), released, kernels, direction_set(86), **options)


HERE = available_backends()
OTHERS = [
    pytest.param(name, marks=(pytest.mark.gpu, pytest.mark.skipif("cuda" not in HERE, reason="no CUDA device")))
    if name == "cuda"
    else name
    for name in BACKENDS
    if name != "reference"
]


@pytest.mark.parametrize("name", OTHERS)
def test_terma_agrees_with_the_reference(name):
    # mutant: off-axis factor at the wrong radius; depth without the last part voxel
    expected, found = released("reference"), released(name)
    assert (expected.energy > 0).mean() > 0.1
    assert found.start_zyx == expected.start_zyx
    np.testing.assert_allclose(found.energy, expected.energy, atol=1e-5 * expected.energy.max())


@pytest.mark.parametrize("name", OTHERS)
def test_superpose_agrees_with_the_reference(name):
    # mutant: one term of the series dropped; a line's state kept from the line before
    expected = deposited("reference")
    np.testing.assert_allclose(deposited(name), expected, atol=2e-5 * expected.max())


def test_superpose_does_not_depend_on_the_number_of_threads(all_threads):
    # mutant: two threads in the lines of one row
    before = numba.get_num_threads()
    both = deposited("cpu")
    try:
        numba.set_num_threads(1)
        alone = deposited("cpu")
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(both, alone)


@pytest.mark.parametrize("direction", direction_set(50)[::7])
def test_every_voxel_lies_on_one_line_that_stays_near_its_direction(direction):
    # mutant: shift rounded down
    steps = line_steps(direction, SHAPE, SPACING_ZYX_MM)
    lengths = np.array(SPACING_ZYX_MM)[list(steps.axes)]
    n_planes = SHAPE[steps.axes[0]]
    assert sorted(steps.planes) == list(range(n_planes))
    travelled = np.stack([steps.planes - steps.planes[0], steps.row_shift, steps.column_shift], axis=1) * lengths
    along = direction[::-1][list(steps.axes)]
    off = travelled - np.outer(travelled[:, 0] / along[0], along)
    assert np.all(np.abs(off[:, 1:]) <= lengths[1:] / 2 + 1e-6)
    assert steps.step_cm == pytest.approx(0.1 * lengths[0] / abs(along[0]))


def test_an_unknown_backend_is_refused():
    # mutant: fallback to cpu
    with pytest.raises(BackendUnavailable):
        get_backend("metal")
