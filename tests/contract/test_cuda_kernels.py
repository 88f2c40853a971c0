"""CUDA kernels and their launchers, run thread by thread on the host, compute what the other backends do."""

from __future__ import annotations

import shutil

import cuda_cases as cases
import numpy as np
import pytest
from cuda_on_host import HostRuntime

from kernels.backend import get_backend
from kernels.contract import Released
from kernels.cuda.superpose import VOLUMES, superpose
from kernels.cuda.terma import terma

TOLERANCE = 1e-5  # of the largest value


@pytest.fixture(scope="session")
def on_host(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to build the CUDA kernels for the host with")
    return HostRuntime(tmp_path_factory.mktemp("cuda_on_host"))


def same(found, expected, tolerance=TOLERANCE):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("other", ["cpu", "reference"])
@pytest.mark.parametrize("one", cases.BEAMS[1:], ids=["oblique", "turned couch", "along z"])
def test_terma(on_host, one, other):
    # mutant: depth between nodes without the last part; softening radius in cm; width of the shadow along the wrong axis
    arguments, options = cases.terma_arguments(one)
    expected = get_backend(other).terma(*arguments, **options)
    found = terma(*arguments, **options, runtime=on_host)
    assert found.start_zyx == expected.start_zyx
    assert found.box == expected.box
    assert (expected.energy > 0).mean() > 0.05
    same(found.energy, expected.energy)


def test_no_light_no_terma(on_host):
    # mutant: launch over an empty box
    arguments, options = cases.terma_arguments(cases.BEAMS[0])
    far = cases.fluence_table(np.array([900.0, 910.0]), np.array([900.0, 910.0]), np.ones((1, 1)))
    assert terma(*arguments, **options | {"fluence": far}, runtime=on_host).energy.size == 0


@pytest.mark.parametrize(
    ("n_beams", "n_groups", "n_components", "n_directions"),
    [(3, 2, 9, 50), (1, 1, 9, 86), (2, 3, 5, 26)],
    ids=["three beams", "one beam, one group", "odd numbers"],
)
def test_superpose(on_host, n_beams, n_groups, n_components, n_directions):
    # mutant: a line that leaves the grid keeps its state; rows and columns of a turned layout exchanged; a group left out
    arguments, options = cases.superpose_arguments(n_beams, n_groups, n_components, n_directions)
    expected = get_backend("reference").superpose(*arguments, **options)
    same(superpose(*arguments, **options, runtime=on_host), expected)


def test_superpose_of_more_beams_than_a_word_has_bits(on_host):
    # mutant: bit b of the first word for every beam
    arguments, options = cases.superpose_arguments(n_beams=35, n_directions=6)
    same(superpose(*arguments, **options, runtime=on_host), get_backend("cpu").superpose(*arguments, **options))


def test_what_was_released_on_the_device_is_not_sent_again(on_host):
    # mutant: `energy` read by the launcher
    arguments, options = cases.terma_arguments(cases.BEAMS[1])
    there = terma(*arguments, **options, runtime=on_host)
    (density, _, kernels, directions), spread = cases.superpose_arguments(n_beams=1)
    spread["beams"] = cases.BEAMS[1:2]
    dose = superpose(density, (there,), kernels, directions, **spread, runtime=on_host)
    assert there._host is None
    here = Released(there.start_zyx, np.array(there.energy))
    assert np.array_equal(dose, superpose(density, (here,), kernels, directions, **spread, runtime=on_host))
    with pytest.raises(ValueError, match="read-only"):
        there.energy[0] = 1.0


def test_directions_share_launches(on_host):
    # mutant: one direction a launch
    arguments, options = cases.superpose_arguments(n_beams=1, n_directions=86)
    before = on_host.launches
    superpose(*arguments, **options, runtime=on_host)
    # Three classes of directions in parts, two sums, lit voxels, three turned arrays.
    assert on_host.launches - before <= 86 // VOLUMES + 3 + 6
