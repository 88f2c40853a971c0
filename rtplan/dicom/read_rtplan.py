"""Reads an RT Plan, rtplan's own or one from elsewhere for a machine that rtplan knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RTPlanStorage

from rtplan.dicom.header import machine_name
from rtplan.dicom.open_rt import number, open_rt_object, refusing_malformed, required
from rtplan.dicom.read_beam import fluence_mode, read_beam
from rtplan.domain.machine import Machine
from rtplan.domain.plan import DeliverablePlan, PlanBeam
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected

_MAX_BYTES = 256 * 2**20
_MAX_BEAMS = 100


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A plan as it stands in a file, with what links it to other objects and what a reviewer must know about it.

    `machine` is the one that the plan names, at the plan's energy.
    """

    plan: DeliverablePlan
    machine: Machine
    sop_instance_uid: str
    frame_of_reference_uid: str
    study_instance_uid: str
    structure_set_uid: str
    patient_id: str
    label: str
    approval_status: str
    patient_position: str
    findings: tuple[Finding, ...]


def read_rtplan(path: Path, machines: Mapping[str, Machine]) -> ReadPlan:
    """Read the plan in `path`, delivered by one of `machines` (by name; a machine of several beams comes once for each).

    Raises CaseRejected with MACHINE_UNKNOWN or a code that starts with RTPLAN_ for whatever rtplan cannot reproduce.
    Unspecified values of a control point are those of the one before (DICOM PS3.3 C.8.8.14.5).
    """
    with refusing_malformed("RTPLAN", path):
        return _read(open_rt_object(path, sop_class_uid=RTPlanStorage, kind="RTPLAN", max_bytes=_MAX_BYTES), machines)


def _read(dataset: FileDataset, machines: Mapping[str, Machine]) -> ReadPlan:
    """The plan that a data set holds."""
    if dataset.get("RTPlanGeometry") != "PATIENT":
        raise CaseRejected("RTPLAN_GEOMETRY", f"RTPlanGeometry is {dataset.get('RTPlanGeometry')!r}", "PATIENT")
    fractions, meterset = _fraction_group(dataset)
    positions = _patient_positions(dataset)
    items, findings = _treatment_beams(dataset, meterset)
    machine = _machine_of(items, machines)
    beams = tuple(read_beam(item, meterset[int(item.BeamNumber)], machine, positions) for item in items)
    plan = DeliverablePlan(machine.machine_id, machine.beam.energy_id, fractions, beams)
    return ReadPlan(
        plan=plan,
        machine=machine,
        sop_instance_uid=str(required(dataset, "SOPInstanceUID", code="RTPLAN_HEADER", where="plan")),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
        study_instance_uid=str(required(dataset, "StudyInstanceUID", code="RTPLAN_HEADER", where="plan")),
        structure_set_uid=_structure_set_uid(dataset),
        patient_id=str(dataset.get("PatientID", "") or ""),
        label=str(dataset.get("RTPlanLabel", "") or ""),
        approval_status=str(dataset.get("ApprovalStatus", "") or ""),
        patient_position="HFS",
        findings=(*findings, *_isocentre_finding(beams)),
    )


def _structure_set_uid(dataset: FileDataset) -> str:
    """The structure set that the plan refers to, or an empty text."""
    items = dataset.get("ReferencedStructureSetSequence") or []
    return str(items[0].get("ReferencedSOPInstanceUID", "")) if len(items) else ""


def _fraction_group(dataset: FileDataset) -> tuple[int, dict[int, float]]:
    """Number of fractions and MU per fraction by beam number, of the only fraction group."""
    groups = required(dataset, "FractionGroupSequence", code="RTPLAN_FRACTIONS", where="plan")
    if len(groups) != 1:
        raise CaseRejected("RTPLAN_FRACTIONS", f"{len(groups)} fraction groups", "exactly one", "export one fraction group")
    group = groups[0]
    fractions = number(group, "NumberOfFractionsPlanned", code="RTPLAN_FRACTIONS", where="fraction group")
    if fractions != int(fractions) or not 1 <= fractions <= 100:
        raise CaseRejected("RTPLAN_FRACTIONS", f"{fractions:g} fractions planned", "1 to 100")
    if number(group, "NumberOfBrachyApplicationSetups", code="RTPLAN_BRACHY", where="fraction group", default=0.0) != 0:
        raise CaseRejected("RTPLAN_BRACHY", "the plan has brachytherapy setups", "an external beam plan")
    meterset: dict[int, float] = {}
    for item in group.get("ReferencedBeamSequence") or []:
        beam = int(number(item, "ReferencedBeamNumber", code="RTPLAN_FRACTIONS", where="fraction group"))
        if beam in meterset:
            raise CaseRejected("RTPLAN_FRACTIONS", f"beam {beam} is referenced twice", "once")
        if item.get("BeamMeterset") not in (None, ""):
            meterset[beam] = number(item, "BeamMeterset", code="RTPLAN_METERSET", where=f"beam {beam}")
    return int(fractions), meterset


def _patient_positions(dataset: FileDataset) -> dict[int, str]:
    """Patient position by setup number; only head-first supine is accepted."""
    positions: dict[int, str] = {}
    for setup in required(dataset, "PatientSetupSequence", code="RTPLAN_PATIENT_POSITION", where="plan"):
        position = str(setup.get("PatientPosition", "") or "")
        if position != "HFS":
            raise CaseRejected("RTPLAN_PATIENT_POSITION", f"PatientPosition is {position or 'missing'}", "HFS")
        positions[int(number(setup, "PatientSetupNumber", code="RTPLAN_PATIENT_POSITION", where="setup"))] = position
    return positions


def _treatment_beams(dataset: FileDataset, meterset: Mapping[int, float]) -> tuple[list[Dataset], list[Finding]]:
    """Items of the beams that treat. Setup beams are left out and reported."""
    items: list[Dataset] = []
    findings: list[Finding] = []
    sequence = required(dataset, "BeamSequence", code="RTPLAN_BEAMS", where="plan")
    if len(sequence) > _MAX_BEAMS:
        raise CaseRejected("RTPLAN_BEAMS", f"{len(sequence)} beams", f"at most {_MAX_BEAMS}")
    seen: set[int] = set()
    for item in sequence:
        beam = int(number(item, "BeamNumber", code="RTPLAN_BEAMS", where="beam sequence"))
        if beam in seen:
            raise CaseRejected("RTPLAN_BEAMS", f"two beams have number {beam}", "every beam with its own number")
        seen.add(beam)
        delivery = str(item.get("TreatmentDeliveryType", "TREATMENT") or "TREATMENT")
        if delivery == "SETUP":
            findings.append(Finding("RTPLAN_SETUP_BEAM", "info", f"beam {beam} is a setup beam and gives no dose here"))
        elif delivery != "TREATMENT":
            raise CaseRejected("RTPLAN_DELIVERY_TYPE", f"beam {beam} has delivery type {delivery}", "TREATMENT or SETUP")
        elif beam not in meterset:
            raise CaseRejected("RTPLAN_METERSET", f"beam {beam} has no BeamMeterset", "MU for every treatment beam")
        else:
            items.append(item)
    missing = sorted(set(meterset) - seen)
    if missing:
        raise CaseRejected("RTPLAN_BEAMS", f"the fraction group names beams {missing} that the plan lacks", "all its beams")
    if not items:
        raise CaseRejected("RTPLAN_BEAMS", "the plan has no treatment beam", "at least one")
    return items, findings


def _machine_of(items: list[Dataset], machines: Mapping[str, Machine]) -> Machine:
    """The one machine that all beams name, at the energy of the first. Raises MACHINE_UNKNOWN, RTPLAN_ENERGY."""
    names = sorted({str(item.get("TreatmentMachineName", "") or "") for item in items})
    if len(names) != 1:
        raise CaseRejected("RTPLAN_MACHINES", f"beams on several machines: {names}", "one machine for all beams")
    # A plan holds only 16 characters, so a machine is known by its id or by what is left of it.
    known = [m for m in machines.values() if names[0] in (m.machine_id, machine_name(m.machine_id))]
    exact = [m for m in known if m.machine_id == names[0]] or known
    if len({m.machine_id for m in exact}) != 1:
        expected = f"one of {', '.join(sorted(machines))}"
        raise CaseRejected(
            "MACHINE_UNKNOWN", f"TreatmentMachineName {names[0]!r}", expected, "add the machine to the library"
        )
    # With a single beam the beam itself is refused if it has another energy, which names the beam and what it has.
    return exact[0] if len(exact) == 1 else _at_energy(items[0], exact)


def _at_energy(item: Dataset, machines: list[Machine]) -> Machine:
    """Of one machine's beams the one with the energy and fluence mode that a beam item states."""
    points = required(item, "ControlPointSequence", code="RTPLAN_CONTROL_POINTS", where="first beam")
    if not len(points):
        raise CaseRejected("RTPLAN_CONTROL_POINTS", "first beam has no control points", "at least two")
    energy = number(points[0], "NominalBeamEnergy", code="RTPLAN_ENERGY", where="first beam, control point 0")
    unflattened = fluence_mode(item) == "NON_STANDARD"
    for machine in machines:
        if machine.beam.nominal_energy_mv == energy and machine.beam.unflattened == unflattened:
            return machine
    found = f"{energy:g} MV, {'without' if unflattened else 'with'} flattening filter"
    expected = f"one of {', '.join(m.beam.energy_id for m in machines)}"
    raise CaseRejected("RTPLAN_ENERGY", f"first beam: {found}", f"{expected} of {machines[0].machine_id}")


def _isocentre_finding(beams: tuple[PlanBeam, ...]) -> list[Finding]:
    """Says so when beams do not share one isocentre."""
    points = {b.beam.isocentre_xyz_mm for b in beams}
    if len(points) == 1:
        return []
    listed = "; ".join(f"({x:.1f}, {y:.1f}, {z:.1f})" for x, y, z in sorted(points))
    return [Finding("RTPLAN_ISOCENTRES", "flag", f"{len(points)} isocentres, mm: {listed}")]
