"""Treatment machines: `library/machines/<id>/machine.yaml` and its beam file to `Machine`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import BeamModel, Jaws, Machine, Mlc
from rtplan.errors import LibraryInvalid
from rtplan.library.schema import BeamFile, JawsFile, MachineFile, MlcFile, inconsistent, validated
from rtplan.library.yaml_lines import FieldPath, YamlDocument, read_yaml

MACHINES = Path(__file__).parent / "machines"
_SUM_TOLERANCE = 1e-4


def list_machines() -> tuple[str, ...]:
    """Ids of the machines that ship with rtplan, sorted."""
    return tuple(sorted(path.parent.name for path in MACHINES.glob("*/machine.yaml")))


def load_machine(machine_id: str) -> Machine:
    """The machine of that id, or the one in a folder or `machine.yaml` when `machine_id` is a path.

    Raises LibraryInvalid: MACHINE_UNKNOWN for an id that is not there, else as `check_machine`.
    """
    if machine_id.endswith((".yaml", ".yml")) or "/" in machine_id:
        return check_machine(Path(machine_id))
    if machine_id not in list_machines():
        raise LibraryInvalid(
            "MACHINE_UNKNOWN",
            f"machine {machine_id!r} is not known",
            "one of " + ", ".join(list_machines()),
            "name one of these, or give the path of a machine folder",
        )
    machine = check_machine(MACHINES / machine_id)
    if machine.machine_id != machine_id:
        raise LibraryInvalid(
            "FIELD_INCONSISTENT",
            f"{machine_id}/machine.yaml, id: {machine.machine_id!r}",
            f"id {machine_id!r}, as the folder is called",
            "correct the id or rename the folder",
        )
    return machine


def check_machine(path: Path) -> Machine:
    """Read and check a machine folder (or its `machine.yaml`). Raises LibraryInvalid as `check_protocol` does."""
    document = read_yaml(path / "machine.yaml" if path.is_dir() else path)
    file = validated(MachineFile, document)
    boundaries = _boundaries(file.mlc, document)
    _check_mlc(file.mlc, document)
    _check_jaws(file.jaws, document)
    beam_document = read_yaml(document.path.parent / file.beam)
    beam = _beam(validated(BeamFile, beam_document), beam_document)
    return Machine(
        machine_id=file.id,
        version=file.version,
        title=file.title,
        status=file.status,
        sources=tuple(file.sources),
        manufacturer=file.manufacturer,
        model_name=file.model_name,
        sad_mm=file.sad_mm,
        mlc=Mlc(
            boundaries,
            file.mlc.max_position_mm,
            file.mlc.max_overtravel_mm,
            file.mlc.max_span_mm,
            file.mlc.min_gap_mm,
            file.mlc.interdigitation,
            file.mlc.max_leaf_speed_mm_s,
            file.mlc.transmission,
        ),
        jaws=_jaws(file.jaws),
        beam=beam,
        max_gantry_speed_deg_s=file.max_gantry_speed_deg_s,
        max_dose_rate_mu_min=file.max_dose_rate_mu_min,
        min_segment_mu=file.min_segment_mu,
        min_segment_area_cm2=file.min_segment_area_cm2,
        max_beam_mu=file.max_beam_mu,
        sha256=hashlib.sha256(f"{document.sha256} {beam_document.sha256}".encode()).hexdigest(),
    )


def _boundaries(mlc: MlcFile, document: YamlDocument) -> NDArray[np.float64]:
    """Edges of the leaf pairs along Y, (n_pairs + 1,) mm. The bands must join and hold whole leaves."""
    edges = [mlc.leaf_bands[0].from_mm]
    for i, band in enumerate(mlc.leaf_bands):
        field: FieldPath = ("mlc", "leaf_bands", i)
        count = round((band.to_mm - band.from_mm) / band.width_mm)
        if band.from_mm != edges[-1]:
            raise inconsistent(document, field, f"starts at {band.from_mm:g} mm", f"{edges[-1]:g} mm")
        if count < 1 or abs(band.from_mm + count * band.width_mm - band.to_mm) > 1e-6:
            found = f"{band.from_mm:g} to {band.to_mm:g} mm in leaves of {band.width_mm:g} mm"
            raise inconsistent(document, field, found, "a whole number of leaves")
        edges += [band.from_mm + band.width_mm * (k + 1) for k in range(count)]
    if len(edges) > 401:
        raise inconsistent(document, ("mlc", "leaf_bands"), f"{len(edges) - 1} leaf pairs", "at most 400")
    return np.array(edges)


def _check_mlc(mlc: MlcFile, document: YamlDocument) -> None:
    for name in ("max_overtravel_mm", "min_gap_mm"):
        if getattr(mlc, name) > mlc.max_position_mm:
            raise inconsistent(
                document,
                ("mlc", name),
                f"{getattr(mlc, name):g} mm",
                f"at most max_position_mm, {mlc.max_position_mm:g} mm",
            )


def _check_jaws(jaws: JawsFile, document: YamlDocument) -> None:
    for name in ("x1_range_mm", "x2_range_mm", "y1_range_mm", "y2_range_mm"):
        low, high = getattr(jaws, name)
        if not low < high:
            raise inconsistent(document, ("jaws", name), f"{low:g} to {high:g} mm", "low < high")
        if (low >= 0) if name[1] == "1" else (high <= 0):
            expected = "jaw 1 reaches the negative side, jaw 2 the positive one"
            raise inconsistent(document, ("jaws", name), f"{low:g} to {high:g} mm", expected)


def _jaws(jaws: JawsFile) -> Jaws:
    return Jaws(
        x1_range_mm=(jaws.x1_range_mm[0], jaws.x1_range_mm[1]),
        x2_range_mm=(jaws.x2_range_mm[0], jaws.x2_range_mm[1]),
        y1_range_mm=(jaws.y1_range_mm[0], jaws.y1_range_mm[1]),
        y2_range_mm=(jaws.y2_range_mm[0], jaws.y2_range_mm[1]),
        transmission=jaws.transmission,
    )


def _beam(file: BeamFile, document: YamlDocument) -> BeamModel:
    """The beam model; photons of a histogram bin are given the energy of its middle."""
    edges = np.array(file.spectrum_edges_mev)
    fraction = np.array(file.spectrum_photon_fraction)
    _check_ascending(document, "spectrum_edges_mev", edges)
    _check_ascending(document, "off_axis_radius_mm", np.array(file.off_axis_radius_mm))
    if len(fraction) != len(edges) - 1:
        found, expected = f"{len(fraction)} fractions for {len(edges)} edges", "one fraction for each bin"
        raise inconsistent(document, ("spectrum_photon_fraction",), found, expected)
    if abs(fraction.sum() - 1.0) > _SUM_TOLERANCE:
        found = f"fractions sum to {fraction.sum():.5f}"
        raise inconsistent(document, ("spectrum_photon_fraction",), found, "1")
    if edges[-1] > file.nominal_energy_mv + 1e-6:
        found = f"photons up to {edges[-1]:g} MeV at {file.nominal_energy_mv:g} MV"
        raise inconsistent(document, ("spectrum_edges_mev",), found, "at most the nominal energy")
    if len(file.off_axis_factor) != len(file.off_axis_radius_mm) or file.off_axis_radius_mm[0] != 0:
        found = f"{len(file.off_axis_factor)} factors for {len(file.off_axis_radius_mm)} radii"
        raise inconsistent(document, ("off_axis_factor",), found, "one factor for each radius, from 0")
    if file.off_axis_factor[0] != 1.0:
        raise inconsistent(document, ("off_axis_factor", 0), f"{file.off_axis_factor[0]:g}", "1 on the axis")
    return BeamModel(
        energy_id=file.energy_id,
        nominal_energy_mv=file.nominal_energy_mv,
        energy_mev=(edges[1:] + edges[:-1]) / 2,
        photon_fraction=fraction / fraction.sum(),
        energy_fluence_per_mu_mev_cm2=file.energy_fluence_per_mu_mev_cm2,
        source_sigma_x_mm=file.source_sigma_x_mm,
        source_sigma_y_mm=file.source_sigma_y_mm,
        collimator_distance_mm=file.collimator_distance_mm,
        off_axis_radius_mm=np.array(file.off_axis_radius_mm),
        off_axis_factor=np.array(file.off_axis_factor),
        softening_radius_mm=np.array([0.0, 300.0]),
        softening_mu_ratio=np.array([1.0, 1.0]),
        sha256=document.sha256,
    )


def _check_ascending(document: YamlDocument, name: str, values: NDArray[np.float64]) -> None:
    steps = np.flatnonzero(np.diff(values) <= 0)
    if len(steps):
        i = int(steps[0]) + 1
        raise inconsistent(document, (name, i), f"{values[i]:g} follows {values[i - 1]:g}", "ascending values")
