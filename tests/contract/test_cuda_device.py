"""The real device computes what the processor does, and the same bits each time. Needs an NVIDIA GPU and CuPy."""

from __future__ import annotations

import cuda_cases as cases
import numpy as np
import pytest
import water_beam

from kernels.backend import get_backend
from kernels.contract import BackendUnavailable
from rtplan.domain.influence import Beamlets
from rtplan.domain.progress import silent
from rtplan.engines.collapsed_cone import PLUGIN

pytestmark = pytest.mark.gpu
TOLERANCE = 1e-3  # of the largest value


@pytest.fixture(scope="module")
def cuda():
    try:
        return get_backend("cuda")
    except BackendUnavailable as error:
        pytest.skip(str(error))


def same(found, expected):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("one", cases.BEAMS, ids=["straight", "oblique", "turned couch", "along z"])
def test_terma(cuda, one):
    arguments, options = cases.terma_arguments(one)
    found, again = (cuda.terma(*arguments, **options).energy for _ in range(2))
    same(found, get_backend("cpu").terma(*arguments, **options).energy)
    assert np.array_equal(found, again)


@pytest.mark.parametrize("n_beams", [3, 35])
def test_superpose(cuda, n_beams):
    arguments, options = cases.superpose_arguments(n_beams)
    found, again = (cuda.superpose(*arguments, **options) for _ in range(2))
    same(found, get_backend("cpu").superpose(*arguments, **options))
    assert np.array_equal(found, again)


@pytest.mark.parametrize("negligible", [0.0, 0.02])
def test_influence(cuda, negligible):
    # With a limit, the threads of a line must agree on where it ends.
    arguments = cases.influence_arguments(negligible=negligible)
    found, again = (cuda.deposit_columns(*arguments) for _ in range(2))
    expected = get_backend("cpu").deposit_columns(*arguments)
    w, n_rows = np.linspace(0.5, 2.0, 20).astype(np.float32), int(arguments[7].max()) + 1
    apply = get_backend("cpu").apply_columns
    same(apply(found, w, n_rows), apply(expected, w, n_rows))
    assert np.array_equal(found.level, again.level)
    assert np.array_equal(found.run_row, again.run_row)


def test_columns(cuda):
    columns, random = cases.random_columns(), np.random.default_rng(1)
    w, g = random.normal(size=30).astype(np.float32), random.normal(size=300).astype(np.float32)
    dose, dose_again = (cuda.apply_columns(columns, w, 300) for _ in range(2))
    back, back_again = (cuda.adjoint_columns(columns, g) for _ in range(2))
    same(dose, get_backend("cpu").apply_columns(columns, w, 300))
    same(back, get_backend("cpu").adjoint_columns(columns, g))
    assert np.array_equal(dose, dose_again)
    assert np.array_equal(back, back_again)
    assert float(dose @ g) == pytest.approx(float(w @ back), rel=2e-5)


def test_coverage(cuda):
    arguments = cases.coverage_arguments()
    for found, expected in zip(cuda.split_field(*arguments), get_backend("cpu").split_field(*arguments), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_dose_of_the_engine(cuda):
    density = water_beam.block(water_beam.patchwork())
    fields = [water_beam.open_field(angle) for angle in (0.0, 75.0, 200.0)]
    model = water_beam.beam_model(sigma_mm=1.0)
    doses = [PLUGIN.dose(density, fields, model, quality="quick", backend=name) for name in ("cuda", "cuda", "cpu")]
    same(doses[0], doses[2])
    assert np.array_equal(doses[0], doses[1])


def test_influence_of_the_engine(cuda):
    density, field = water_beam.block(water_beam.patchwork()), water_beam.open_field(40.0)
    y, x = (a.ravel() for a in np.meshgrid(np.arange(-20.0, 20.0, 5.0), np.arange(-20.0, 20.0, 5.0), indexing="ij"))
    pair = np.repeat(np.arange(8), 8)
    beamlets = Beamlets((field.beam,), np.zeros(x.size), pair, x, x + 5.0, y, y + 5.0)
    voxels = np.arange(density.grid.n_voxels)
    found, expected = (
        PLUGIN.influence(density, beamlets, water_beam.beam_model(), voxels, backend=name, progress=silent)
        for name in ("cuda", "cpu")
    )
    w = np.linspace(0.5, 2.0, len(beamlets))
    same(found.apply(w), expected.apply(w))
    g = np.random.default_rng(2).normal(size=voxels.size)
    same(found.adjoint(g), expected.adjoint(g))
