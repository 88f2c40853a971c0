"""Influence columns: the adjoint is exact, backends agree, and a beamlet's dose is the full engine's near its axis."""

from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest

from kernels.backend import get_backend
from kernels.column_data import BeamletSources, Columns, ConeKernels, columns_of, cone_lines, joined, only_rows
from kernels.cones import N_TERMS
from kernels.contract import BeamGeometry, GridGeometry, Released
from kernels.directions import direction_set
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, BeamModel
from rtplan.domain.progress import silent
from rtplan.engines.collapsed_cone import PLUGIN
from rtplan.library.water import load_kernel_table

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
    # mutant: begin every run at the column's first level; mutant: leave a zero level out of its run
    backend = get_backend(name)
    stored = Columns(
        np.array([0, 2, 2, 3], np.int64), np.array([0, 3, 3, 6], np.int64), np.array([0, 3, 1], np.int32),
        np.array([1, 2, 3], np.uint16), np.array([10, 65535, 7, 1, 0, 3], np.uint16), np.array([0.5, 7.0, 2.0], np.float32),
    )  # fmt: skip
    dense = np.zeros((5, 3))
    dense[[0, 3, 4], 0] = 0.5 * np.array([10, 65535, 7])
    dense[[1, 2, 3], 2] = [2.0, 0.0, 6.0]
    w, g = np.array([1.5, 9.0, 0.25], np.float32), np.array([1.0, -2.0, 3.0, 0.5, -0.1], np.float32)
    np.testing.assert_allclose(backend.apply_columns(stored, w, 5), dense @ w, rtol=1e-6)
    np.testing.assert_allclose(backend.adjoint_columns(stored, g), dense.T @ g, rtol=1e-6)


def test_joined_parts_are_the_whole():
    # mutant: forget the levels that came before
    rng = np.random.default_rng(3)
    rows = [np.flatnonzero(rng.random(40) < 0.4) for _ in range(5)]
    values = [rng.random(len(r)) + 0.1 for r in rows]
    whole, parts = columns_of(rows, values), [columns_of(rows[:2], values[:2]), columns_of(rows[2:], values[2:])]
    w = rng.random(5).astype(np.float32)
    apply = get_backend("reference").apply_columns
    np.testing.assert_array_equal(apply(joined(parts), w, 40), apply(whole, w, 40))


@pytest.mark.parametrize("n_columns", [1, 5, 200])
def test_columns_of_some_rows_are_the_matrix_without_the_others(n_columns):
    """Nothing of rows that are not wanted, all else as it was; columns and runs may become empty. mutants: runs counted from
    the whole matrix's first; a run that goes on across a gap"""
    rng = np.random.default_rng(n_columns)
    rows = [np.flatnonzero(rng.random(40) < 0.6) for _ in range(n_columns)]
    rows[0] = rows[0][:0]
    whole = columns_of(rows, [rng.random(len(r)) + 0.1 for r in rows])
    w, g = rng.random(n_columns).astype(np.float32), rng.random(40).astype(np.float32)
    backend = get_backend("reference")
    for wanted in (rng.random(40) < 0.5, np.zeros(40, bool), np.ones(40, bool)):
        some = only_rows(whole, wanted)
        np.testing.assert_array_equal(backend.apply_columns(some, w, 40), wanted * backend.apply_columns(whole, w, 40))
        expected = backend.adjoint_columns(whole, np.where(wanted, g, 0.0).astype(np.float32))
        np.testing.assert_allclose(backend.adjoint_columns(some, g), expected, rtol=1e-6)
        assert len(some.level) == sum(int(wanted[r].sum()) for r in rows)
        assert some.run_length.min(initial=1) > 0


@dataclass(frozen=True)
class Case:
    """Random beamlets in random density with some vacuum, on a small grid with unequal spacing."""

    grid: GridGeometry
    density: np.ndarray
    released: np.ndarray
    hardness: np.ndarray
    sources: BeamletSources
    kernels: ConeKernels
    directions: np.ndarray
    per_energy: np.ndarray
    row_of: np.ndarray

    def columns(self, name: str, threshold: float) -> Columns:
        return get_backend(name).deposit_columns(
            self.density, self.released, self.hardness, self.sources, self.kernels, cone_lines(self.directions, self.grid),
            self.per_energy, self.row_of, threshold,
        )  # fmt: skip


def random_case(exponents_per_cm: np.ndarray, n_bins: int) -> Case:
    rng = np.random.default_rng(5)
    grid = GridGeometry((7, 9, 11), (4.0, 3.0, 2.5), (0.0, 0.0, 0.0))
    density = rng.uniform(0.0, 1.8, grid.shape_zyx).astype(np.float32)
    density[density < 0.3] = 0.0
    lit = np.argwhere(density[2:5, 3:7, 2:9] > 0) + np.array([2, 3, 2])
    voxels = np.ravel_multi_index(tuple(lit.T), grid.shape_zyx)
    own = [np.sort(rng.choice(voxels, 12, replace=False)) for _ in range(5)]
    sources = BeamletSources(
        np.arange(6, dtype=np.int64) * 12, np.concatenate(own).astype(np.int64), rng.random(60).astype(np.float32),
        np.array([0, 2, 5], np.int64),
    )  # fmt: skip
    directions = direction_set(50)
    per_cone = rng.random((5, len(directions), n_bins, len(exponents_per_cm))).astype(np.float32)
    kernels = ConeKernels(per_cone, rng.random(n_bins).astype(np.float32), exponents_per_cm, 1000.0, 0.0)
    released = rng.random(grid.shape_zyx).astype(np.float32) * (density > 0)
    hardness = rng.integers(0, n_bins, grid.shape_zyx).astype(np.uint8)
    per_energy = np.divide(1.0, density, out=np.zeros_like(density), where=density > 0)
    row_of = np.full(density.size, -1, np.int32)
    row_of[::3] = np.arange(len(row_of[::3]))
    row_of[1::3] = len(row_of[::3]) + np.arange(len(row_of[1::3]))
    row_of = np.where(row_of >= 0, np.cumsum(row_of >= 0) - 1, -1).astype(np.int32)
    return Case(grid, density, released, hardness, sources, kernels, directions, per_energy, row_of)


def as_matrix(columns: Columns, n_rows: int) -> np.ndarray:
    each = np.eye(len(columns.scale), dtype=np.float32)
    return np.stack([get_backend("reference").apply_columns(columns, w, n_rows) for w in each])


@pytest.mark.parametrize("ratio", [2, 3])
def test_backends_agree_on_any_density_hardness_and_kernel(ratio):
    # mutant: skip voxels of the tail in pairs; mutant: take the neighbouring hardness; mutant: m(3y) = m (3 - 2 m)
    case = random_case(0.05 * float(ratio) ** np.arange(6), 3)
    n_rows = int(case.row_of.max()) + 1
    one, two = (as_matrix(case.columns(name, 0.0), n_rows) for name in BACKENDS)
    assert (np.abs(one - two).max(axis=1) <= 1e-4 * two.max(axis=1)).all()
    assert (two.max(axis=1) > 0).all()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_line_crosses_a_cavity_to_the_tissue_behind(name):
    # mutant: a line ends at the first voxel in which next to nothing is deposited, which air always is
    case = random_case(0.05 * 2.0 ** np.arange(6), 1)
    density = np.ones_like(case.density)
    density[:, 5] = 0.001  # beyond the sources in y; water again at 6
    source = np.ravel_multi_index((3, 4, 5), density.shape)
    sources = BeamletSources(np.array([0, 1]), np.array([source]), np.ones(1, np.float32), np.array([0, 1]))
    kernels = replace(case.kernels, per_cone=case.kernels.per_cone[:1], negligible=2e-3)
    rows = np.arange(density.size, dtype=np.int32)
    case = replace(case, density=density, released=np.ones_like(density), sources=sources, kernels=kernels, row_of=rows,
                   hardness=np.zeros_like(case.hardness), per_energy=np.ones_like(density))  # fmt: skip
    column = as_matrix(case.columns(name, 0.0), density.size)[0].reshape(density.shape)
    assert column[3, 5, 5] < 0.01 * column[3, 4, 5]
    assert column[3, 6, 5] > 0.02 * column[3, 4, 5]


def test_a_line_is_left_where_nothing_matters_on_both_backends():
    # mutant: leave a line once one beamlet of the block has nothing left; mutant: go on until the grid ends
    case = random_case(0.05 * 2.0 ** np.arange(6), 2)
    n_rows = int(case.row_of.max()) + 1
    everything = as_matrix(case.columns("reference", 0.0), n_rows)
    for changed in ({"negligible": 0.4}, {"reach_cm": 0.3}):
        cut = replace(case, kernels=replace(case.kernels, **changed))
        one, two = (as_matrix(cut.columns(name, 0.0), n_rows) for name in BACKENDS)
        assert (np.abs(one - two).max(axis=1) <= 1e-4 * two.max(axis=1)).all()
        assert 0.3 * everything.sum() < two.sum() < 0.98 * everything.sum()


def test_only_entries_above_the_threshold_are_kept():
    # mutant: compare with the threshold alone, not with that part of the largest
    case = random_case(0.05 * 2.0 ** np.arange(6), 1)
    n_rows = int(case.row_of.max()) + 1
    whole = as_matrix(case.columns("cpu", 0.0), n_rows)
    for name in BACKENDS:
        kept = as_matrix(case.columns(name, 0.3), n_rows)
        expected = np.where(whole > 0.3 * whole.max(axis=1, keepdims=True), whole, 0.0)
        assert np.abs(kept - expected).max() <= 1e-4 * whole.max()
        assert 0 < (kept == 0).sum() < kept.size


def test_columns_that_leave_nothing_out_sum_to_the_full_superposition():
    # mutant: start every line one voxel late; mutant: deposit of the source's own voxel without its part (1 - g)
    table = load_kernel_table()
    case = random_case(table.exponents_per_cm, 1)
    same = np.broadcast_to(case.kernels.per_cone[:1], case.kernels.per_cone.shape)
    kernels = replace(case.kernels, per_cone=same, local=np.zeros(1, np.float32))
    rows = np.arange(case.density.size, dtype=np.int32)
    case = replace(case, kernels=kernels, row_of=rows, per_energy=np.ones_like(case.density))
    sum_of_columns = as_matrix(case.columns("cpu", 0.0), len(rows)).sum(axis=0).reshape(case.density.shape)
    released = np.zeros(case.density.size, np.float32)
    np.add.at(released, case.sources.voxel, case.sources.fraction * case.released.reshape(-1)[case.sources.voxel])
    cones = np.zeros((1, len(case.directions), N_TERMS, len(table.exponents_per_cm)), np.float32)
    cones[0, :, 0] = same[0, :, 0]
    full = get_backend("reference").superpose(
        case.density, [Released((0, 0, 0), released.reshape(1, *case.density.shape))], cones, case.directions,
        grid=case.grid,
        beams=[BeamGeometry(np.array([0.0, -1000.0, 0.0]), np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]), 1000.0)],
        phases=np.full(len(case.directions), 0.5), smallest_exponent_per_cm=table.smallest_exponent_per_cm,
    )  # fmt: skip
    assert np.abs(sum_of_columns - full).max() <= 1e-4 * full.max()


def test_threads_do_not_change_a_bit(all_threads):
    # mutant: as many partial sums as threads
    beam = Beam("b", 30.0, 10.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    operator = columns(lung_slab((14, 24, 24), (5.0, 5.0, 5.0)), beamlets_of(beam, 20.0, 10.0), "cpu")
    w = np.random.default_rng(1).random(len(operator.beamlets))
    usual, dose = numba.get_num_threads(), []
    try:
        for threads in (1, usual):
            numba.set_num_threads(threads)
            dose.append(operator.apply(w))
    finally:
        numba.set_num_threads(usual)
    np.testing.assert_array_equal(dose[0], dose[1])


def test_blocks_beyond_the_lanes_are_refused():
    case = random_case(0.05 * 2.0 ** np.arange(6), 1)
    start = np.minimum(np.arange(21) * 3, 60).astype(np.int64)
    sources = replace(case.sources, start=start, block=np.array([0, 20], np.int64))
    with pytest.raises(ValueError, match="at most"):
        replace(case, sources=sources).columns("cpu", 0.0)


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
