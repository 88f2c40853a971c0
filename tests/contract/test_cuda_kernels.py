"""CUDA kernels and their launchers, run thread by thread on the host, compute what the other backends do."""

from __future__ import annotations

import shutil

import cuda_cases as cases
import numpy as np
import pytest
import water_beam
from cuda_on_host import HostRuntime

from kernels.backend import MODULES, get_backend
from kernels.contract import Released
from kernels.cuda.columns import adjoint_columns, apply_columns
from kernels.cuda.coverage import split_field
from kernels.cuda.influence import deposit_columns
from kernels.cuda.superpose import superpose
from kernels.cuda.terma import terma
from rtplan.domain.influence import Beamlets
from rtplan.domain.progress import silent
from rtplan.engines.collapsed_cone import PLUGIN

TOLERANCE = 1e-5  # of the largest value


@pytest.fixture(scope="session")
def on_host(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to build the CUDA kernels for the host with")
    return HostRuntime(tmp_path_factory.mktemp("cuda_on_host"))


def same(found, expected, tolerance=TOLERANCE):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.fixture
def as_cuda(on_host, monkeypatch):
    """Makes the host the device of backend "cuda"."""
    for module in ("device", *MODULES):
        monkeypatch.setattr(f"kernels.cuda.{module}.device", lambda: on_host)


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
    before = on_host.launches
    assert terma(*arguments, **options | {"fluence": far}, runtime=on_host).energy.size == 0
    assert on_host.launches == before


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
    # mutant: every word of bits written to the first
    arguments, options = cases.superpose_arguments(n_beams=35, n_directions=26)
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
    assert on_host.launches - before <= 86 // 8 + 3 + 6


def as_matrix(columns, n_rows):
    apply = get_backend("reference").apply_columns
    return np.stack([apply(columns, w, n_rows) for w in np.eye(len(columns.scale), dtype=np.float32)])


@pytest.mark.parametrize(("ratio", "n_components"), [(2, 9), (3, 5)])
def test_influence_columns(on_host, ratio, n_components):
    # mutant: lines table not emptied between cones; last step with a source off by one; hardness of the block's first source
    arguments = cases.influence_arguments(ratio, n_components)
    expected, found = get_backend("reference").deposit_columns(*arguments), deposit_columns(*arguments, runtime=on_host)
    n_rows = int(arguments[7].max()) + 1
    a, b = as_matrix(expected, n_rows), as_matrix(found, n_rows)
    assert (a.max(axis=1) > 0).all()
    # The contract's tolerance and half a level.
    np.testing.assert_array_less(np.abs(a - b).max(axis=1), 1.2e-4 * a.max(axis=1))


def test_influence_columns_leave_out_what_is_small(on_host):
    # mutant: limits of the block's first beamlet for all; threshold of the largest of the block; gap of a new run bridged
    arguments = cases.influence_arguments(threshold=0.05, negligible=0.02)
    expected, found = get_backend("reference").deposit_columns(*arguments), deposit_columns(*arguments, runtime=on_host)
    n_rows = int(arguments[7].max()) + 1
    a, b = as_matrix(expected, n_rows), as_matrix(found, n_rows)
    assert (a == 0).mean() > 0.1
    near = np.abs(np.maximum(a, b) / a.max(axis=1, keepdims=True) - 0.05) < 1e-4
    np.testing.assert_array_less(np.where(near, 0, np.abs(a - b)).max(axis=1), 1.2e-4 * a.max(axis=1))


def test_influence_columns_do_not_depend_on_how_many_blocks_stand_side_by_side(on_host, monkeypatch):
    # mutant: sources of the first blocks for all
    arguments = cases.influence_arguments()
    together = deposit_columns(*arguments, runtime=on_host)
    monkeypatch.setattr("kernels.cuda.influence.BYTES_AT_ONCE", 1)
    alone = deposit_columns(*arguments, runtime=on_host)
    for name in ("run_start", "level_start", "run_row", "run_length", "level", "scale"):
        assert np.array_equal(getattr(together, name), getattr(alone, name))


def test_columns_are_a_matrix_and_its_transpose(on_host):
    # mutant: every run's levels at its column's first; sign of a negative weight lost
    columns = cases.random_columns()
    dense = as_matrix(columns, 300).astype(np.float64)
    random = np.random.default_rng(1)
    w, g = random.normal(size=30).astype(np.float32), random.normal(size=300).astype(np.float32)
    same(apply_columns(columns, w, 300, runtime=on_host), w @ dense)
    same(adjoint_columns(columns, g, runtime=on_host), dense @ g)
    assert not apply_columns(columns, 0 * w, 300, runtime=on_host).any()


def test_beamlets_share_voxels_as_on_the_cpu(on_host):
    # mutant: spacing in the other order; a point on an edge to the beamlet below
    arguments = cases.coverage_arguments()
    expected, found = get_backend("cpu").split_field(*arguments), split_field(*arguments, runtime=on_host)
    assert len(expected[0]) > 200
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-6)


@pytest.mark.usefixtures("as_cuda")
def test_the_engine_gives_the_same_dose():
    # mutant: add to what the device released without a copy of it
    density = water_beam.block(water_beam.patchwork())
    # Twice the same beam: what it releases is added up on the host.
    fields = [water_beam.open_field(angle) for angle in (0.0, 75.0, 0.0)]
    model = water_beam.beam_model(sigma_mm=1.0)
    found, expected = (PLUGIN.dose(density, fields, model, quality="quick", backend=name) for name in ("cuda", "cpu"))
    same(found, expected, 2e-5)


@pytest.mark.usefixtures("as_cuda")
def test_the_engine_gives_the_same_influence():
    # mutant: columns in the order of the launches; mutant: threads of the engine share what is placed
    density, field = water_beam.block(water_beam.patchwork()), water_beam.open_field(40.0)
    y, x = (a.ravel() for a in np.meshgrid(np.arange(-15.0, 15.0, 5.0), np.arange(-15.0, 15.0, 5.0), indexing="ij"))
    beamlets = Beamlets((field.beam,), np.zeros(x.size), np.repeat(np.arange(6), 6), x, x + 5.0, y, y + 5.0)
    voxels, model = np.arange(density.grid.n_voxels), water_beam.beam_model()
    found, expected = (
        PLUGIN.influence(density, beamlets, model, voxels, backend=name, progress=silent) for name in ("cuda", "cpu")
    )
    w, g = np.linspace(0.5, 2.0, len(beamlets)), np.random.default_rng(2).normal(size=voxels.size)
    same(found.apply(w), expected.apply(w), 2e-4)
    same(found.adjoint(g), expected.adjoint(g), 2e-4)
