"""Influence columns: the adjoint is exact, backends agree, and a beamlet's dose is the full engine's near its axis."""

import numpy as np
import pytest

from kernels.backend import get_backend
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, BeamModel
from rtplan.domain.progress import silent
from rtplan.engines.collapsed_cone import PLUGIN

BACKENDS = ("cpu", "reference")


def model() -> BeamModel:
    return BeamModel(
        "6X", 6.0, np.array([0.5, 1.0, 2.0, 4.0]), np.array([0.3, 0.3, 0.3, 0.1]), 2.6e9, 0.0, 0.0, 500.0,
        np.array([0.0, 400.0]), np.array([1.0, 1.0]), np.array([0.0, 400.0]), np.array([1.0, 1.0]),
        NO_EXTRA_FOCAL_SOURCE, NO_CONTAMINATION, "test",
    )  # fmt: skip


def beamlets_of(beam: Beam, half_mm: float, size_mm: float) -> Beamlets:
    low = np.arange(-half_mm, half_mm, size_mm)
    y, x = (a.ravel() for a in np.meshgrid(low, low, indexing="ij"))
    pair = np.repeat(np.arange(len(low)), len(low))
    return Beamlets((beam,), np.zeros(x.size), pair, x, x + size_mm, y, y + size_mm)


def lung_slab(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> DensityImage:
    grid = Grid(shape, spacing_mm, tuple(-(n - 1) * s / 2 for n, s in zip(shape[::-1], spacing_mm[::-1], strict=True)))
    density = np.ones(shape, dtype=np.float32)
    density[:, shape[1] // 3 : 2 * shape[1] // 3] = 0.3
    return DensityImage(grid, density, density)


def columns(density: DensityImage, beamlets: Beamlets, backend: str):
    voxels = np.arange(density.grid.n_voxels)[::2]  # every other voxel: rows are not voxels
    return PLUGIN.influence(density, beamlets, model(), voxels, backend=backend, progress=silent)


def test_adjoint_agrees_with_apply():
    # mutant: take the next column's scale in the adjoint
    beam = Beam("b", 30.0, 10.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    operator = columns(lung_slab((14, 24, 24), (5.0, 5.0, 5.0)), beamlets_of(beam, 20.0, 10.0), "cpu")
    rng = np.random.default_rng(1)
    w, g = rng.random(len(operator.beamlets)), rng.standard_normal(len(operator.voxel_index))
    left, right = float(operator.apply(w) @ g), float(w @ operator.adjoint(g))
    assert left == pytest.approx(right, rel=2e-5)


def test_backends_give_the_same_columns():
    # mutant: start the walk a whole voxel from the source on one backend
    beam = Beam("b", 205.0, 0.0, 0.0, (3.0, -2.0, 1.0), 1000.0)
    density = lung_slab((8, 12, 10), (9.0, 8.0, 8.0))
    one, two = (columns(density, beamlets_of(beam, 12.0, 12.0), backend) for backend in BACKENDS)
    w = np.array([1.0, 2.0, 0.5, 3.0])
    assert np.abs(one.apply(w) - two.apply(w)).max() <= 1e-3 * two.apply(w).max()
    assert np.abs(one.apply(w)).max() > 0


@pytest.mark.parametrize("name", BACKENDS)
def test_column_operations_are_a_matrix_and_its_transpose(name):
    backend = get_backend(name)
    start = np.array([0, 2, 2, 5], np.int64)
    row, level = np.array([0, 3, 1, 2, 3], np.int32), np.array([10, 65535, 1, 2, 3], np.uint16)
    scale = np.array([0.5, 7.0, 2.0], np.float32)
    dense = np.zeros((4, 3))
    dense[[0, 3], 0] = 0.5 * np.array([10, 65535])
    dense[[1, 2, 3], 2] = [2.0, 4.0, 6.0]
    w, g = np.array([1.5, 9.0, 0.25], np.float32), np.array([1.0, -2.0, 3.0, 0.5], np.float32)
    np.testing.assert_allclose(backend.apply_columns(start, row, level, scale, w, 4), dense @ w, rtol=1e-6)
    np.testing.assert_allclose(backend.adjoint_columns(start, row, level, scale, g), dense.T @ g, rtol=1e-6)


def test_near_field_holds_most_of_the_full_dose_and_never_more():
    # mutant: forget the electron density in the released energy; mutant: leave out what stays on the spot
    beam = Beam("b", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    density = lung_slab((24, 40, 24), (5.0, 5.0, 5.0))
    beamlets = beamlets_of(beam, 30.0, 5.0)
    operator = PLUGIN.influence(density, beamlets, model(), np.arange(density.grid.n_voxels), backend="cpu", progress=silent)
    near = operator.apply(np.ones(len(beamlets))).reshape(density.grid.shape_zyx)
    edges = np.array([-30.0, 30.0])
    field = FluenceMap(beam, edges, edges, np.ones((1, 1)))
    full = PLUGIN.dose(density, (field,), model(), quality="quick", backend="cpu")
    inside = np.s_[10:14, 3:37, 10:14]
    ratio = near[inside].sum() / full[inside].sum()
    assert 0.93 < ratio < 1.005
    # By slab, so that water and lung are each right and errors do not cancel.
    for rows in (slice(3, 13), slice(15, 25), slice(28, 37)):
        assert 0.9 < near[10:14, rows, 10:14].sum() / full[10:14, rows, 10:14].sum() < 1.02


def test_every_voxel_in_the_field_is_shared_out_completely():
    # mutant: test the beamlets' upper edges with the lower one's index
    backend = get_backend("cpu")
    voxel = np.arange(3)
    centre = np.array([[0.0, 0.0, 0.0], [4.0, -30.0, 3.0], [9.5, 10.0, 0.0]], np.float32)
    axes = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
    source = np.array([0.0, -1000.0, 0.0])
    table = np.arange(16, dtype=np.int32).reshape(4, 4)
    beamlet, place, part = backend.split_field(
        voxel, centre, np.array([4.0, 4.0, 4.0], np.float32), source, axes, 1000.0,
        np.arange(4, dtype=np.int32), table, np.array([-10.0, -10.0]), np.array([5.0, 5.0]), 4,
    )  # fmt: skip
    whole = np.bincount(place, part, minlength=3)
    np.testing.assert_allclose(whole[:2], 1.0, atol=1e-6)
    assert whole[2] == pytest.approx(
        0.75
    )  # columns at 8, 9 and 10 mm shrink to below the edge at 10 mm, that at 11 does not
    assert set(beamlet[place == 0]) == {5, 6, 9, 10}
