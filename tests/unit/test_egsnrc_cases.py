"""Monte Carlo cases are read as what they are, or refused by name."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import bench_accuracy
from benchmarks.egsnrc_cases import case_paths, load_field, with_machine
from rtplan.engines._beamline import load_backend
from rtplan.errors import BackendMissing, RequestInvalid
from rtplan.library.machines import load_machine

SPECTRUM = {"spectrum_edges_MeV": np.array([1.0, 2.0, 3.0]), "spectrum_prob": np.array([0.5, 0.5])}


def write(folder, name, arrays, facts):
    np.savez(folder / f"{name}.npz", **arrays)
    (folder / f"{name}.json").write_text(json.dumps(facts))
    return folder / f"{name}.npz"


def slab(folder, name="slab", drop=(), **changes):
    """8 x 6 x 10 cm (x, y, depth) of water on 1 cm voxels, its dose 1, 2, 3 ... in file order."""
    x, y, z = np.arange(-4.0, 5.0), np.arange(-3.0, 4.0), np.arange(0.0, 11.0)
    shape = (10, 6, 8)
    dose = np.arange(1.0, 481.0).reshape(shape)
    arrays = {
        "x_edges": x,
        "y_edges": y,
        "z_edges": z,
        "dose": dose,
        "sigma": 0.01 * dose,
        "density": np.ones(shape),
        "medium": np.ones(shape, dtype=np.int8),
    }
    facts = {
        "media": ["H2O700ICRU"],
        "field_cm_at_SSD": [4.0, 3.0],
        "SSD_cm": 100.0,
        "beam_axis_dir": [0.0, 0.0, 1.0],
        "entrance_axis_point": [0.0, 0.0, 0.0],
        "mean_cos3": 1.0,
        "mean_energy_MeV": 2.0,
    }
    arrays |= SPECTRUM
    return write(folder, name, {k: v for k, v in arrays.items() if k not in drop}, facts | changes)


def patient(folder, name="patient", **changes):
    """5 x 4 x 6 voxels (z, y, x) of 2.5 x 4 x 4 mm."""
    shape = (5, 4, 6)
    density = np.linspace(0.1, 1.3, 120).reshape(shape)
    arrays = {
        "dose": np.ones(shape),
        "rel_uncertainty": np.full(shape, 0.01),
        "density_g_cm3": density,
        "density_rel_electron": 0.99 * density,
        "spacing_zyx_mm": np.array([2.5, 4.0, 4.0]),
        "origin_xyz_mm": np.array([10.0, 20.0, 30.0]),
        "isocentre_xyz_mm": np.array([12.0, 24.0, 32.0]),
        "gantry_collimator_couch_deg": np.array([40.0, 0.0, 0.0]),
        "SAD_mm": np.array(1000.0),
        "field_x1x2y1y2_mm": np.array([-20.0, 50.0, -110.0, 0.0]),
    }
    facts = {"mean_cos3": 0.99, "mean_energy_MeV": 2.0}
    return write(folder, name, arrays | SPECTRUM | changes, facts)


def test_a_folder_may_hold_both_kinds(tmp_path):
    slab(tmp_path)
    patient(tmp_path)
    (tmp_path / "README.md").write_text("about")
    names = [load_field(path, 2.5).name for path in case_paths(tmp_path)]
    assert names == ["patient", "slab"]


def test_a_slabs_axes_turn_into_the_patients(tmp_path):
    # mutant: y and z exchanged
    field = load_field(slab(tmp_path), 5.0)
    assert field.dose.shape == (6, 10, 8)
    assert field.dose[1, 3, 2] == pytest.approx((3 * 48 + 1 * 8 + 2 + 1) / 2.0)
    assert field.density.grid.shape_zyx == (12, 20, 16)
    assert field.centres_xyz_mm()[1, 3, 2] == pytest.approx([-15.0, 35.0, -15.0])
    assert field.fluence.x_edges_mm == pytest.approx([-20.0, 20.0])
    assert field.unfolded is None


def test_a_patients_voxels_are_divided_and_keep_their_place(tmp_path):
    # mutant: the first part's centre at the whole voxel's; parts along the wrong axis
    whole, divided = (load_field(patient(tmp_path), spacing) for spacing in (5.0, 2.5))
    assert whole.density.grid.shape_zyx == (5, 4, 6)
    assert divided.density.grid.shape_zyx == (5, 8, 12)
    np.testing.assert_allclose(divided.density.grid.bounds_mm(), whole.density.grid.bounds_mm())
    density = whole.density.mass_density_g_cm3
    np.testing.assert_array_equal(divided.density.mass_density_g_cm3[:, 1::2, ::2], density)
    assert whole.scored.sum() == divided.scored.sum() == (density >= 0.5).sum()


@pytest.mark.parametrize("lacking", ["sigma", "medium", "spectrum_prob"])
def test_a_file_that_is_neither_is_refused_by_name(tmp_path, lacking):
    # mutant: the first missing array taken as zero
    path = slab(tmp_path, "odd_one", drop=(lacking,))
    with pytest.raises(RequestInvalid, match=rf"odd_one\.npz is neither a slab case \(lacks.*{lacking}"):
        load_field(path, 2.5)


def test_bad_files_are_refused_by_name(tmp_path):
    # mutant: no check for negative or missing values
    broken = slab(tmp_path, "broken")
    broken.write_bytes(b"no archive")
    with pytest.raises(RequestInvalid, match=r"broken\.npz"):
        load_field(broken, 2.5)
    with pytest.raises(RequestInvalid, match=r"strange\.npz.*UNOBTAINIUM"):
        load_field(slab(tmp_path, "strange", media=["UNOBTAINIUM700"]), 2.5)
    hole = np.ones((5, 4, 6))
    hole[1, 1, 1] = np.nan
    with pytest.raises(RequestInvalid, match=r"hole\.npz.*dose is not finite"):
        load_field(patient(tmp_path, "hole", dose=hole), 2.5)
    with pytest.raises(RequestInvalid, match=r"vague\.npz.*SSD_cm"):
        path = slab(tmp_path, "vague")
        facts = json.loads(path.with_suffix(".json").read_text())
        del facts["SSD_cm"]
        path.with_suffix(".json").write_text(json.dumps(facts))
        load_field(path, 2.5)


def test_a_case_without_its_pair_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(RequestInvalid, match="no cases in"):
        case_paths(tmp_path)
    slab(tmp_path, "alone").with_suffix(".json").unlink()
    with pytest.raises(RequestInvalid, match=r"alone\.npz has no alone\.json"):
        case_paths(tmp_path)
    with pytest.raises(RequestInvalid, match="is no folder"):
        case_paths(tmp_path / "absent")


def test_a_machine_of_another_spectrum_is_refused(tmp_path):
    # mutant: the machine's spectrum put in whatever the case's
    with pytest.raises(RequestInvalid, match=r"mean photon energy 2\.000 MeV"):
        with_machine(load_field(slab(tmp_path), 2.5), load_machine("point_source_mohan6").beam)
    with pytest.raises(RequestInvalid, match="no case of this machine's spectrum"):
        bench_accuracy.of_machine([load_field(slab(tmp_path), 2.5)], load_machine("point_source_mohan6").beam)


def test_a_missing_gpu_and_an_unknown_case_stop_the_benchmark(tmp_path, monkeypatch, capsys):
    # mutant: a quiet fallback to the processor
    slab(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench_accuracy", "--cases", str(tmp_path), "--only", "nothing"])
    with pytest.raises(SystemExit) as stop:
        bench_accuracy.main()
    assert stop.value.code == 2 and "no case nothing" in capsys.readouterr().err
    try:
        load_backend("cuda")
    except BackendMissing:
        monkeypatch.setattr(sys, "argv", ["bench_accuracy", "--cases", str(tmp_path), "--device", "gpu"])
        with pytest.raises(SystemExit) as stop:
            bench_accuracy.main()
        assert stop.value.code == 1 and "BACKEND_MISSING" in capsys.readouterr().err
    else:
        pytest.skip("a GPU is here")
