"""Densities carry the patient's mass, from the CT grid to the dose grid, and nothing beside the patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtplan.domain.case import Patient, SeriesReference
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage, DensityImage, HuCalibration
from rtplan.errors import CaseRejected, LibraryInvalid
from rtplan.steps.ingest import (
    body_findings,
    body_mask,
    densities,
    density_findings,
    dose_grid,
    resample_density,
)

GRID = Grid((10, 40, 50), (3.0, 2.0, 2.0), (-49.0, -39.0, -60.0))
CALIBRATION = HuCalibration("test", "sourced", "none", (-1000, 0, 1000), (0.0012, 1.0, 1.6), (0.001, 1.0, 1.5))


def image(hu: NDArray[np.int16], grid: Grid = GRID) -> CtImage:
    series = SeriesReference(Patient("1", "", "", ""), "", "", "", "", ())
    return CtImage(grid, hu, series, "HFS", "")


def disc(radius_mm: float = 30.0, centre_x_mm: float = 0.0) -> NDArray[np.bool_]:
    y, x = np.meshgrid(GRID.y_mm(), GRID.x_mm(), indexing="ij")
    return np.repeat((np.hypot(x - centre_x_mm, y) < radius_mm)[None], GRID.shape_zyx[0], axis=0)


def water(body: NDArray[np.bool_]) -> CtImage:
    return image(np.where(body, 0, -1000).astype(np.int16))


def mass_g(density: DensityImage) -> float:
    return float(density.mass_density_g_cm3.sum(dtype=np.float64)) * density.grid.voxel_cc


def random_density(seed: int) -> DensityImage:
    random = np.random.default_rng(seed).random((2, *GRID.shape_zyx)).astype(np.float32)
    return DensityImage(GRID, random[0], random[1])


def test_the_body_of_a_phantom_is_the_phantom() -> None:
    assert np.array_equal(body_mask(water(disc())), disc())


def test_a_scan_of_air_is_refused() -> None:
    with pytest.raises(CaseRejected) as caught:
        body_mask(image(np.full(GRID.shape_zyx, -1000, np.int16)))
    assert caught.value.code == "BODY_NOT_FOUND"


@pytest.mark.parametrize(("centre_x_mm", "expected"), [(0.0, []), (30.0, ["FOV_TRUNCATED"]), (-30.0, ["FOV_TRUNCATED"])])
def test_a_body_at_the_lateral_border_is_flagged(centre_x_mm: float, expected: list[str]) -> None:
    # mutant: one of the four borders not looked at
    body = disc(centre_x_mm=centre_x_mm)
    for turned in (body, body.transpose(0, 2, 1)):
        grid = Grid((10, turned.shape[1], turned.shape[2]), GRID.spacing_zyx_mm, GRID.origin_xyz_mm)
        ct = image(np.zeros(turned.shape, np.int16), grid)
        assert [f.code for f in body_findings(ct, turned)] == expected


def test_densities_are_linear_between_the_points() -> None:
    body = disc()
    hu = np.where(body, 500, -1000).astype(np.int16)
    hu[0][body[0]] = -250
    density = densities(image(hu), body, CALIBRATION)
    np.testing.assert_allclose(density.mass_density_g_cm3[1][body[1]], 1.3, rtol=1e-6)
    np.testing.assert_allclose(density.electron_density_rel[1][body[1]], 1.25, rtol=1e-6)
    np.testing.assert_allclose(density.mass_density_g_cm3[0][body[0]], 0.0012 + 0.75 * 0.9988, rtol=1e-6)


def test_outside_the_body_there_is_nothing() -> None:
    # mutant: density of the air and the couch kept
    body = disc(20.0)
    density = densities(water(disc(30.0)), body, CALIBRATION)
    assert not density.mass_density_g_cm3[~body].any()
    assert not density.electron_density_rel[~body].any()
    assert density.mass_density_g_cm3[body].all()


@pytest.mark.parametrize(("hu", "mass"), [(-1024, 0.0012), (-1000, 0.0012), (1000, 1.6), (3071, 1.6), (30_000, 1.6)])
def test_beyond_the_table_the_end_holds(hu: int, mass: float) -> None:
    body = disc()
    density = densities(image(np.full(GRID.shape_zyx, hu, np.int16)), body, CALIBRATION)
    np.testing.assert_allclose(density.mass_density_g_cm3[body], mass, rtol=1e-6)


def test_tissue_denser_than_the_table_is_flagged() -> None:
    body = disc()
    hu = np.where(body, 0, 2500).astype(np.int16)
    assert density_findings(image(hu), body, CALIBRATION) == ()
    hu[5, 18:22, 22:28] = 1001
    [finding] = density_findings(image(hu), body, CALIBRATION)
    assert finding.code == "HU_ABOVE_TABLE"
    assert "0.3 cc" in finding.message


@pytest.mark.parametrize(
    ("hu", "mass"),
    [((-1000, 0, 0), (0.0, 1.0, 1.6)), ((-1000, 0, 1000), (0.1, 1.0, 0.9)), ((0,), (1.0,)), ((0, 1), (-1.0, 1.0))],
)
def test_a_calibration_that_does_not_rise_is_refused(hu: tuple[float, ...], mass: tuple[float, ...]) -> None:
    with pytest.raises(LibraryInvalid) as caught:
        densities(water(disc()), disc(), HuCalibration("bad", "sourced", "none", hu, mass, mass))
    assert caught.value.code == "CALIBRATION_INVALID"


@pytest.mark.parametrize("spacing_mm", [1.7, 2.5, 4.0])
def test_the_dose_grid_covers_the_body_and_a_voxel_around_it(spacing_mm: float) -> None:
    body = disc(20.0, 10.0)
    body[:3] = False
    ct = water(body)
    grid = dose_grid(ct, body, spacing_mm)
    assert set(grid.spacing_zyx_mm) == {spacing_mm}
    index = np.argwhere(body)
    low, high = ct.grid.to_point_mm(index.min(0)), ct.grid.to_point_mm(index.max(0))
    half = np.array(ct.grid.spacing_zyx_mm[::-1]) / 2
    grid_low, grid_high = grid.bounds_mm()
    for grid_edge, body_edge, sign in ((grid_low, low - half, -1), (grid_high, high + half, 1)):
        reach = sign * (np.array(grid_edge) - body_edge)
        assert np.all(reach >= spacing_mm - 1e-9)
        assert np.all(reach <= 1.5 * spacing_mm + 1e-9)


@given(
    spacing_mm=st.tuples(*[st.floats(0.7, 7.0)] * 3),
    shift_mm=st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_mass_is_conserved_on_any_grid_that_covers_the_body(spacing_mm, shift_mm, seed: int) -> None:
    # mutants: values at the nearest or interpolated centre; weights over the source's length
    source = random_density(seed)
    low, high = GRID.bounds_mm()
    shape, origin = [], []
    for a, b, spacing, shift in zip(low, high, spacing_mm, shift_mm, strict=True):
        shape.append(int(np.ceil((b - a + 8) / spacing)) + 1)
        origin.append(a - 4 + shift + spacing / 2)
    grid = Grid(
        (shape[2], shape[1], shape[0]), (spacing_mm[2], spacing_mm[1], spacing_mm[0]), (origin[0], origin[1], origin[2])
    )
    target = resample_density(source, grid)
    assert mass_g(target) == pytest.approx(mass_g(source), rel=1e-5)
    electrons = [float(d.electron_density_rel.sum(dtype=np.float64)) * d.grid.voxel_cc for d in (target, source)]
    assert electrons[0] == pytest.approx(electrons[1], rel=1e-5)


def test_a_coarse_voxel_holds_the_mean_of_the_voxels_in_it() -> None:
    source = random_density(3)
    grid = Grid((5, 20, 25), (6.0, 4.0, 4.0), (-48.0, -38.0, -58.5))
    mean = source.mass_density_g_cm3.reshape(5, 2, 20, 2, 25, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(resample_density(source, grid).mass_density_g_cm3, mean, rtol=1e-5)


def test_a_finer_grid_repeats_the_voxel_it_lies_in() -> None:
    source = random_density(4)
    grid = Grid((20, 80, 100), (1.5, 1.0, 1.0), (-49.5, -39.5, -60.75))
    fine = np.kron(source.mass_density_g_cm3, np.ones((2, 2, 2)))
    np.testing.assert_allclose(resample_density(source, grid).mass_density_g_cm3, fine, rtol=1e-5)


def test_the_same_grid_changes_nothing() -> None:
    source = random_density(5)
    np.testing.assert_allclose(resample_density(source, GRID).mass_density_g_cm3, source.mass_density_g_cm3, rtol=1e-6)


def test_uniform_water_stays_uniform_water_inside() -> None:
    body = np.ones(GRID.shape_zyx, bool)
    density = densities(water(body), body, CALIBRATION)
    grid = dose_grid(water(body), body, 2.5)
    inner = resample_density(density, grid).mass_density_g_cm3[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, 1.0, rtol=1e-6)
