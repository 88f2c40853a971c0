"""Machine files: what ships is sound and found by its name, and every mistake names file, line and field."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, ArcLimits
from rtplan.errors import LibraryInvalid
from rtplan.library.machines import MACHINES, check_beams, check_machine, list_machines, load_machine


def edited(tmp_path: Path, original: Path, old: str, new: str) -> Path:
    """A copy of a library file with one passage changed."""
    text = original.read_text(encoding="utf-8")
    assert text.count(old) >= 1, old
    path = tmp_path / original.name
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_machines_ship_with_sixty_pairs_and_their_beams():
    assert list_machines() == (
        "generic_6mv",
        "generic_carm:6X",
        "generic_carm:6FFF",
        "generic_carm:10X",
        "generic_carm:10FFF",
        "generic_carm:15X",
        "point_source_mohan6",
    )
    for name in list_machines():
        machine = load_machine(name)
        widths = np.diff(machine.mlc.leaf_boundaries_mm)
        assert machine.mlc.n_pairs == 60
        assert (np.sum(widths == 5), np.sum(widths == 10)) == (40, 20)
        assert machine.mlc.leaf_boundaries_mm[[0, -1]].tolist() == [-200, 200]
        assert np.all(np.abs(machine.mlc.leaf_boundaries_mm[10:51]) <= 100)
        assert machine.beam.photon_fraction.sum() == pytest.approx(1, abs=1e-12)
        assert machine.machine_id == name.split(":")[0]
        assert name.split(":")[-1] in (machine.beam.energy_id, machine.machine_id)
        assert machine.beam.unflattened == ("FFF" in name)
        assert "commissioned" in machine.status or "no real machine" in machine.status
    # mean energy of mohan6 as EGSnrc reports it
    beam = load_machine("point_source_mohan6").beam
    assert beam.energy_mev @ beam.photon_fraction == pytest.approx(1.8985, abs=2e-4)


def test_the_reference_beam_is_ideal_and_the_generic_one_is_not_commissioned():
    reference, generic = load_machine("point_source_mohan6"), load_machine("generic_carm:6X")
    assert (reference.mlc.transmission, reference.jaws.transmission, reference.beam.source_sigma_x_mm) == (0, 0, 0)
    assert (reference.mlc.tongue_mm, reference.mlc.dosimetric_leaf_gap_mm) == (0, 0)
    assert np.all(reference.beam.off_axis_factor == 1) and np.all(reference.beam.softening_mu_ratio == 1)
    assert (reference.beam.extra_focal, reference.beam.contamination) == (NO_EXTRA_FOCAL_SOURCE, NO_CONTAMINATION)
    assert generic.status == "generic, not commissioned"
    assert generic.mlc.mean_transmission == pytest.approx(0.015, abs=1e-4)
    assert generic.beam.extra_focal.fraction > 0 and generic.beam.contamination.amplitude > 0


def test_the_old_name_is_the_six_megavolt_beam():
    # mutant: the other machine's hash kept under the old name
    old, new = load_machine("generic_6mv"), load_machine("generic_carm:6X")
    assert old.machine_id == "generic_6mv" and old.status == new.status
    assert old.beam.sha256 == new.beam.sha256 and old.sha256 != new.sha256
    assert (old.mlc.mean_transmission, old.sources) == (new.mlc.mean_transmission, new.sources)


@pytest.mark.parametrize("name", ["generic_carm", "generic_carm:18X", "generic_carm:6", "generic_6mv:10X"])
def test_a_beam_that_is_not_named_or_not_there_is_refused_with_the_energies(name):
    # mutant: the first beam of several taken
    with pytest.raises(LibraryInvalid) as caught:
        load_machine(name)
    assert caught.value.code in ("MACHINE_ENERGY", "MACHINE_UNKNOWN")
    assert "6X" in caught.value.expected


def test_a_folder_is_checked_at_every_energy_and_loaded_at_one(tmp_path):
    copied = tmp_path / "mine"
    copied.mkdir()
    for original in (MACHINES / "generic_carm").glob("*.yaml"):
        (copied / original.name).write_bytes(original.read_bytes())
    assert [m.beam.energy_id for m in check_beams(copied)] == ["6X", "6FFF", "10X", "10FFF", "15X"]
    assert load_machine(f"{copied}:10FFF").sha256 == load_machine("generic_carm:10FFF").sha256
    edited(copied, copied / "beam_15X.yaml", "sigma_mm: 65", "sigma_mm: -65")
    assert load_machine(f"{copied}:10FFF").beam.energy_id == "10FFF"
    with pytest.raises(LibraryInvalid, match=r"beam_15X\.yaml"):
        check_beams(copied)


MACHINE_MISTAKES = [
    ("machine.yaml", "to_mm: 100, width_mm: 5", "to_mm: 101, width_mm: 5", "mlc.leaf_bands[1]"),
    ("machine.yaml", "from_mm: 100, to_mm: 200", "from_mm: 110, to_mm: 200", "mlc.leaf_bands[2]"),
    ("machine.yaml", "min_gap_mm: 0.5", "min_gap_mm: -0.5", "mlc.min_gap_mm"),
    ("machine.yaml", "tongue_mm: 0.4", "tongue_mm: 4", "mlc.tongue_mm"),
    ("machine.yaml", "interdigitation: true", "interdigitation: yes", "mlc.interdigitation"),
    ("machine.yaml", "x1_range_mm: [-200, 20]", "x1_range_mm: [20, -200]", "jaws.x1_range_mm"),
    ("machine.yaml", "x1_range_mm: [-200, 20]", "x1_range_mm: [20, 200]", "jaws.x1_range_mm"),
    ("machine.yaml", "y2_range_mm: [-100, 200]", "y2_range_mm: [-200, -100]", "jaws.y2_range_mm"),
    ("machine.yaml", "sad_mm: 1000", "sad_mm: 100", "sad_mm"),
    ("machine.yaml", "beams: [beam_6X.yaml", "beams: [../beam_6X.yaml", "beams[0]"),
    ("machine.yaml", "beam_15X.yaml]", "beam_6X.yaml]", "beams"),
    ("beam_6X.yaml", "[0.00, 0.25,", "[0.25, 0.00,", "spectrum_edges_mev[1]"),
    ("beam_6X.yaml", "[0.00", "[0.0, 0.1", "spectrum_photon_fraction"),
    ("beam_6X.yaml", "energy_id: 6X", "energy_id: 10X", "energy_id"),
    ("beam_6X.yaml", "nominal_energy_mv: 6", "nominal_energy_mv: 4", "nominal_energy_mv"),
    ("beam_6X.yaml", "5.50, 5.75, 5.76]", "5.50, 5.75, 9.76]", "spectrum_edges_mev"),
    ("beam_6X.yaml", "off_axis_factor: [1,", "off_axis_factor: [1.1,", "off_axis_factor[0]"),
    ("beam_6X.yaml", "off_axis_factor: [1,", "off_axis_factor: [1, 1,", "off_axis_factor"),
    ("beam_6X.yaml", "off_axis_radius_mm: [0, 10,", "off_axis_radius_mm: [10, 0,", "off_axis_radius_mm[1]"),
    ("beam_6X.yaml", "energy_fluence_per_mu_mev_cm2: ", "energy_fluence_per_mu_mev_cm2: -", "energy_fluence_per_mu_mev_cm2"),
    ("beam_6X.yaml", "mlc_transmission: 0.014", "mlc_transmission: 1.4", "collimation.mlc_transmission"),
    ("beam_6X.yaml", "interleaf_transmission: 0.03", "interleaf_transmission: 0", "collimation.mlc_interleaf_transmission"),
    ("beam_6X.yaml", "mu_ratio: [1,", "mu_ratio: [1.1,", "softening.mu_ratio[0]"),
    ("beam_6X.yaml", "mu_ratio: [1,", "mu_ratio: [1, 1,", "softening.mu_ratio"),
    ("beam_6X.yaml", "radius_mm: [0, 25, 50", "radius_mm: [0, 50, 25", "softening.radius_mm[2]"),
    ("beam_6X.yaml", "distance_mm: 125", "distance_mm: 399\n  # here", "extra_focal"),
    ("beam_6X.yaml", "range_cm: 2.2", "range_cm: 0", "contamination.range_cm"),
    ("beam_6X.yaml", "  range_cm: 2.2\n", "", "contamination.range_cm"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "field"), MACHINE_MISTAKES)
def test_a_mistake_in_a_machine_names_file_and_field(tmp_path, name, old, new, field):
    for original in (MACHINES / "generic_carm").glob("*.yaml"):
        (tmp_path / original.name).write_bytes(original.read_bytes())
    assert check_machine(tmp_path, "6X").mlc.n_pairs == 60
    if field == "extra_focal":
        edited(tmp_path, tmp_path / name, "  collimator_distance_mm: 500", "  collimator_distance_mm: 390")
    edited(tmp_path, tmp_path / name, old, new)
    with pytest.raises(LibraryInvalid) as caught:
        check_machine(tmp_path, "6X")
    assert re.match(rf"{re.escape(name)} line \d+, {re.escape(field)}: ", caught.value.found), caught.value.found


def test_both_files_of_a_machine_are_in_its_hash(tmp_path):
    for original in (MACHINES / "generic_carm").glob("*.yaml"):
        (tmp_path / original.name).write_bytes(original.read_bytes())
    before = check_machine(tmp_path, "6X")
    assert before.sha256 == load_machine("generic_carm:6X").sha256
    edited(tmp_path, tmp_path / "beam_6X.yaml", "a generic choice", "a  generic choice")
    changed_beam = check_machine(tmp_path, "6X")
    edited(tmp_path, tmp_path / "machine.yaml", "min_segment_mu: 2", "min_segment_mu: 3")
    changed_both = check_machine(tmp_path, "6X")
    assert len({before.sha256, changed_beam.sha256, changed_both.sha256}) == 3


def machine_with(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The generic machine with passages of its file changed."""
    folder = tmp_path / "generic_carm"
    shutil.copytree(MACHINES / "generic_carm", folder)
    text = (folder / "machine.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "machine.yaml").write_text(text, encoding="utf-8")
    return folder


def test_machines_say_what_they_ask_of_an_arc():
    machine = load_machine("generic_carm:6X")
    assert machine.gantry_range_deg == (-180.0, 180.0)
    assert machine.arc == ArcLimits(30.0, (), 0.1, 20.0, 5.0)
    assert machine.jaws.max_speed_mm_s == 25.0


def test_a_machine_may_have_no_arcs_or_dose_rates_in_steps(tmp_path):
    # mutant: the steps of the fastest beam for all: 600 MU/min would be 1400
    steps = ("dose_rates_mu_min: null   # continuous", "dose_rates_mu_min: [75, 150, 300, 600, 1400]")
    folder = machine_with(tmp_path, steps)
    assert check_machine(folder, "6X").arc.dose_rates_mu_min == (75.0, 150.0, 300.0, 600.0)
    assert check_machine(folder, "6FFF").arc.dose_rates_mu_min[-1] == 1400.0
    text = (folder / "machine.yaml").read_text(encoding="utf-8")
    (folder / "machine.yaml").write_text(text[: text.index("arc:")] + "arc: null\n", encoding="utf-8")
    assert check_machine(folder, "6X").arc is None


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("gantry_range_deg: [-180, 180]", "gantry_range_deg: [180, -180]", "gantry_range_deg"),
        ("min_mu_per_deg: 0.1", "min_mu_per_deg: 20", "min_mu_per_deg"),
        ("min_dose_rate_mu_min: 30", "min_dose_rate_mu_min: 600", "min_dose_rate_mu_min"),
        ("dose_rates_mu_min: null   # continuous", "dose_rates_mu_min: [10, 600]", "dose_rates_mu_min"),
        ("dose_rates_mu_min: null   # continuous", "dose_rates_mu_min: [300, 150]", "dose_rates_mu_min"),
        ("dose_rates_mu_min: null   # continuous", "dose_rates_mu_min: [700]", "dose_rates_mu_min"),
        ("max_spacing_deg: 5", "max_spacing_deg: 0", "max_spacing_deg"),
    ],
)
def test_limits_of_an_arc_that_contradict_each_other_are_named(tmp_path, old, new, field):
    with pytest.raises(LibraryInvalid) as caught:
        check_machine(machine_with(tmp_path, (old, new)), "6X")
    assert field in caught.value.found
