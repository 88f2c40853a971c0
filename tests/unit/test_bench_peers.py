"""The comparison with other engines: ratios, rows of peers that fail, phantoms, figures against Monte Carlo."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_peers
from benchmarks.egsnrc_cases import ReferenceField
from benchmarks.peers import accuracy, environments, phantom
from benchmarks.peers.measure import LIBRARY_VARIABLES, THREADS_VARIABLE, thread_environment, timed
from benchmarks.peers.tables import ratios, table
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.library.machines import load_machine

COLUMNS = (("cpu_s", "CPU s"), ("n_nonzero", "non-zeros"))
ROWS = {
    "rtplan": {"cpu_s": 10.0, "n_nonzero": 20_000_000, "idle": 0.0},
    "slower": {"cpu_s": 50.0, "n_nonzero": 120_000_000, "settings": "defaults", "idle": 1.0},
    "absent": {"error": "not installed: no matching distribution"},
}


def test_a_ratio_above_one_says_that_rtplan_needs_less():
    # mutant: ours over theirs
    assert ratios(ROWS, ["cpu_s", "n_nonzero", "settings", "idle", "unknown"]) == {
        "slower": {"cpu_s": 5.0, "n_nonzero": 6.0},
        "absent": {},
    }


def test_a_peer_that_did_not_run_keeps_its_row_and_tells_why():
    # mutant: rows with an error left out
    text = table("title", ROWS, COLUMNS, with_ratios=True)
    assert "absent" in text and "DID NOT RUN: not installed: no matching distribution" in text
    assert "5" in text.splitlines()[4] and "over rtplan" in text.splitlines()[4]


def test_an_environment_that_cannot_be_made_is_tried_once_and_becomes_a_row(tmp_path, monkeypatch):
    # mutant: PeerFailed not caught
    attempts = []

    def fails(peer, folder):
        attempts.append(peer)
        raise environments.PeerFailed("no network")

    monkeypatch.setattr(bench_peers, "peer_interpreter", fails)
    bench = bench_peers.Bench(tmp_path, 2, tmp_path)
    for _ in range(2):
        result = bench.theirs(environments.PYDOSERT, ["fields", "x.npz"])
        assert bench_peers.row(result) == {"error": "not installed: no network"}
    assert attempts == [environments.PYDOSERT]


def test_a_script_that_breaks_off_is_told_by_its_last_words(tmp_path):
    # mutant: return code not looked at
    missing = str(tmp_path / "missing.npz")
    with pytest.raises(environments.PeerFailed, match=r"missing\.npz"):
        environments.run(Path(sys.executable), environments.RTPLAN_SCRIPT, ["fields", missing], tmp_path / "out", 2)


def test_the_same_threads_are_given_to_every_library():
    # mutant: a library left to spin while it waits
    given = thread_environment(2)
    assert {given[name] for name in (THREADS_VARIABLE, *LIBRARY_VARIABLES)} == {"2"}
    assert given["OMP_WAIT_POLICY"] == "PASSIVE"
    assert set(timed(lambda: None)[1]) == {"cpu_s", "wall_s"}


def test_phantoms_come_back_as_they_were_saved(tmp_path):
    # mutant: x_mm and y_mm swapped in the file
    for made, load in (
        (phantom.c_shape(), phantom.load_beamlets),
        (phantom.cylinder_fields(16, 3, 0.667), phantom.load_fields),
    ):
        phantom.save(tmp_path / "p.npz", made)
        again = load(tmp_path / "p.npz")
        for name in made.__slots__:
            np.testing.assert_array_equal(getattr(again, name), getattr(made, name))


def test_beamlets_of_the_c_cover_its_target_from_every_side():
    """The issue's problem: 167x167x108 voxels of 3 mm, 7 beams, about 2,200 beamlets."""
    # mutant: rows and columns of the raster swapped
    c = phantom.c_shape()
    assert c.density.shape == (108, 167, 167) and len(c.gantry_deg) == 7
    assert 2100 < len(c.beam) < 2300
    assert not c.target[:, 83, 83].any() and c.body[c.target].all()
    z, y, x = (np.argwhere(c.target) * c.spacing_mm + c.origin_xyz_mm[::-1]).T
    for index, angle in enumerate(np.radians(c.gantry_deg)):
        scale = c.sad_mm / (c.sad_mm - (x * np.sin(angle) - y * np.cos(angle)))
        u, v = (x * np.cos(angle) + y * np.sin(angle)) * scale, z * scale
        own = {(a, b) for a, b in zip(c.x_mm[c.beam == index], c.y_mm[c.beam == index], strict=True)}
        middles = (np.floor(np.stack([u, v]) / c.beamlet_mm) + 0.5) * c.beamlet_mm
        assert set(map(tuple, middles.T)) <= own


@pytest.fixture
def water_field() -> ReferenceField:
    """A made-up field whose dose falls with depth and is known exactly: 40 voxels of 5 mm to each side."""
    edges = np.linspace(-100.0, 100.0, 41)
    grid = Grid((40, 40, 40), (5.0,) * 3, (-97.5, 2.5, -97.5))
    water = np.ones(grid.shape_zyx, np.float32)
    beam = Beam("G000", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    depth = np.arange(40) * 5.0 + 2.5
    inside = np.where(np.abs((edges[1:] + edges[:-1]) / 2) < 50.0, 1.0, 0.05)
    dose = (np.exp(-0.005 * depth) * (1 - np.exp(-depth / 4)))[None, :, None] * inside[:, None, None] * inside
    return ReferenceField(
        "made_up",
        DensityImage(grid, water, water),
        FluenceMap(beam, np.array([-50.0, 50.0]), np.array([-50.0, 50.0]), np.ones((1, 1))),
        load_machine("generic_6mv").beam,
        (edges, edges + 100.0, edges),
        dose,
        0.01 * dose,
        np.ones(grid.shape_zyx, bool),
    )


def test_an_engine_that_is_monte_carlo_but_for_its_units_is_not_off(water_field):
    # mutant: scale inverted
    figures = bench_peers.slab_rows({accuracy.WATER_CASE: water_field}, lambda field: 8.0 * field.dose)
    made = figures[accuracy.WATER_CASE]
    assert made["scale"] == pytest.approx(1 / 8)
    for key in (
        "axis_mean_abs_pct",
        "axis_max_abs_pct",
        "inhomogeneity_mean_abs_pct",
        "voxels_off_pct",
        "inner_voxels_off_pct",
    ):
        assert made[key] == pytest.approx(0.0, abs=1e-9)
    assert 0 < made["voxels_off_by_noise_pct"] < 1


def test_a_dose_6_per_cent_off_beyond_11_cm_is_found(water_field):
    # mutant: signed differences averaged before the absolute value; share of all voxels instead of those above 10 %
    depth = np.arange(40) * 5.0 + 2.5
    factor = np.where(depth > 110.0, 1.06, 1.0) * np.where(depth > 150.0, 0.94 / 1.06, 1.0)
    wrong = water_field.dose * factor[None, :, None]
    figures = bench_peers.slab_rows({accuracy.WATER_CASE: water_field}, lambda field: wrong)[accuracy.WATER_CASE]
    top = water_field.dose[20, :, 20].max()
    difference = np.abs(wrong - water_field.dose)[20, :, 20]
    beyond = np.arange(40) > int(water_field.dose[20, :, 20].argmax())
    assert figures["scale"] == pytest.approx(1.0)
    assert figures["axis_mean_abs_pct"] == pytest.approx(100 * difference[beyond].mean() / top, rel=1e-6)
    assert figures["axis_max_abs_pct"] == pytest.approx(100 * difference.max() / top, rel=1e-6)
    inside = water_field.dose[20] > 0.1 * top
    off = np.abs(wrong - water_field.dose)[20] > 0.03 * top
    assert 0 < off[inside].mean() < 1
    assert figures["voxels_off_pct"] == pytest.approx(100 * off[inside].mean())


def test_without_a_dose_in_water_no_case_has_figures(water_field):
    # mutant: unscaled figures in place of the error
    def only_in_lung(field):
        return "broke off" if field.name == "made_up" else field.dose

    rows = bench_peers.slab_rows({accuracy.WATER_CASE: water_field}, only_in_lung)
    assert rows == {accuracy.WATER_CASE: {"error": "broke off"}}


def test_peers_get_the_slab_with_vacuum_in_front_and_give_it_back(water_field):
    # mutant: origin not moved
    made = accuracy.slab_phantom(water_field)
    assert (made.density[:, : accuracy.AIR_VOXELS] == 0).all()
    np.testing.assert_array_equal(accuracy.without_air(made.density), water_field.density.electron_density_rel)
    assert made.origin_xyz_mm[1] + accuracy.AIR_VOXELS * made.spacing_mm == water_field.density.grid.y_mm()[0]


def test_what_stands_in_the_results_file_is_plain_json():
    # mutant: an array among the figures
    kept = json.loads(json.dumps(bench_peers.with_ratios(ROWS, COLUMNS)))
    assert kept["over_rtplan"]["slower"]["cpu_s"] == 5.0
    assert kept["engines"]["absent"]["error"].startswith("not installed")
