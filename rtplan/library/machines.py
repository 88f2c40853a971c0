"""Treatment machines by name: `library/machines/<id>/machine.yaml` and one of its beam files to `Machine`.

A name is the id of a machine with one beam, or `id:energy`, such as `generic_carm:10FFF`; a folder's path may end so too.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from rtplan.domain.machine import Machine
from rtplan.errors import LibraryInvalid
from rtplan.library.machine_files import arc_of, beam_of, gantry_range_of, jaws_of, mlc_of
from rtplan.library.schema import BeamFile, MachineAliasFile, MachineFile, inconsistent, validated
from rtplan.library.yaml_lines import YamlDocument, read_yaml

MACHINES = Path(__file__).parent / "machines"
_WITH_ENERGY = re.compile(r"^(?P<place>.+):(?P<energy>[0-9]{1,2}(X|FFF))$")


def list_machines() -> tuple[str, ...]:
    """Names of the machines that ship with rtplan, every beam by its own, sorted by machine and energy."""
    names: list[str] = []
    for machine_id in _ids():
        energies = _energies(read_yaml(MACHINES / machine_id / "machine.yaml"))
        names += [f"{machine_id}:{energy}" for energy in energies] if len(energies) > 1 else [machine_id]
    return tuple(names)


def load_machine(name: str) -> Machine:
    """The machine of that name, or the one in a folder or `machine.yaml` when `name` is a path; both may end in `:energy`.

    Raises LibraryInvalid: MACHINE_UNKNOWN for an id that is not there, else as `check_machine`.
    """
    match = _WITH_ENERGY.match(name)
    place, energy = (match["place"], match["energy"]) if match else (name, None)
    if place.endswith((".yaml", ".yml")) or "/" in place:
        return check_machine(Path(place), energy)
    if place not in _ids():
        raise LibraryInvalid(
            "MACHINE_UNKNOWN",
            f"machine {name!r} is not known",
            "one of " + ", ".join(list_machines()),
            "name one of these, or give the path of a machine folder",
        )
    machine = check_machine(MACHINES / place, energy)
    if machine.machine_id != place:
        raise LibraryInvalid(
            "FIELD_INCONSISTENT",
            f"{place}/machine.yaml, id: {machine.machine_id!r}",
            f"id {place!r}, as the folder is called",
            "correct the id or rename the folder",
        )
    return machine


def check_machine(path: Path, energy_id: str | None = None) -> Machine:
    """Read and check a machine folder (or its `machine.yaml`) at one energy, which may be left out if there is only one.

    Raises LibraryInvalid as `check_protocol` does, MACHINE_ENERGY for an energy that is not there or not named.
    """
    document = read_yaml(path / "machine.yaml" if path.is_dir() else path)
    energies = _energies(document)
    if energy_id is None and len(energies) == 1:
        energy_id = energies[0]
    if energy_id is None or energy_id not in energies:
        found = "no energy named" if energy_id is None else f"energy {energy_id}"
        raise LibraryInvalid(
            "MACHINE_ENERGY",
            f"{document.path.parent.name}: {found}, and the machine has {len(energies)}",
            "one of " + ", ".join(energies),
            f"name it, such as {document.path.parent.name}:{energies[0]}",
        )
    return _alias(document) if _is_alias(document) else _machine(document, energy_id)


def check_beams(path: Path) -> tuple[Machine, ...]:
    """Read and check a machine folder at every energy. Raises LibraryInvalid as `check_machine`."""
    document = read_yaml(path / "machine.yaml" if path.is_dir() else path)
    return tuple(check_machine(path, energy) for energy in _energies(document))


def _ids() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in MACHINES.glob("*/machine.yaml")))


def _is_alias(document: YamlDocument) -> bool:
    return "same_as" in document.data


def _energies(document: YamlDocument) -> tuple[str, ...]:
    """Energies that a machine's file names, in its order."""
    if _is_alias(document):
        return (validated(MachineAliasFile, document).same_as.split(":")[1],)
    names = validated(MachineFile, document).beams
    if len(set(names)) != len(names):
        raise inconsistent(document, ("beams",), ", ".join(names), "every beam once")
    return tuple(name.removeprefix("beam_").removesuffix(".yaml") for name in names)


def _alias(document: YamlDocument) -> Machine:
    """One beam of another shipped machine under a name of its own."""
    file = validated(MachineAliasFile, document)
    machine = load_machine(file.same_as)
    both = hashlib.sha256(f"{document.sha256} {machine.sha256}".encode()).hexdigest()
    return replace(machine, machine_id=file.id, title=file.title, model_name=file.model_name, sha256=both)


def _machine(document: YamlDocument, energy_id: str) -> Machine:
    file = validated(MachineFile, document)
    beam_document = read_yaml(document.path.parent / f"beam_{energy_id}.yaml")
    beam = validated(BeamFile, beam_document)
    return Machine(
        machine_id=file.id,
        version=file.version,
        title=file.title,
        status=file.status,
        sources=tuple(file.sources),
        manufacturer=file.manufacturer,
        model_name=file.model_name,
        sad_mm=file.sad_mm,
        mlc=mlc_of(file, beam, document),
        jaws=jaws_of(file.jaws, beam, document),
        beam=beam_of(beam, beam_document, file.sad_mm),
        max_gantry_speed_deg_s=file.max_gantry_speed_deg_s,
        max_dose_rate_mu_min=beam.max_dose_rate_mu_min,
        min_segment_mu=file.min_segment_mu,
        min_segment_area_cm2=file.min_segment_area_cm2,
        max_beam_mu=file.max_beam_mu,
        gantry_range_deg=gantry_range_of(file, document),
        arc=arc_of(file.arc, beam, document),
        sha256=hashlib.sha256(f"{document.sha256} {beam_document.sha256}".encode()).hexdigest(),
    )
