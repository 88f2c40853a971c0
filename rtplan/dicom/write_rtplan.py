"""Writes a deliverable plan as a DICOM RT Plan that nobody has approved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import RTPlanStorage, RTStructureSetStorage

from rtplan.dicom.header import (
    base_dataset,
    cut,
    decimal,
    dicom_date,
    dicom_time,
    reference,
    save_dataset,
    uncommissioned_notice,
)
from rtplan.dicom.uids import OutputIds
from rtplan.dicom.write_beam import beam_item
from rtplan.domain.image import CtImage
from rtplan.domain.machine import Machine
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.prescription import Prescription
from rtplan.domain.verdict import Finding
from rtplan.errors import SafetyStop

PLAN_LABEL = "NOT APPROVED"  # RTPlanLabel is SH: at most 16 characters
_DESCRIPTION_LIMIT = 1024  # RTPlanDescription is ST


def write_rtplan(
    path: Path,
    plan: DeliverablePlan,
    prescription: Prescription,
    machine: Machine,
    ct: CtImage,
    ids: OutputIds,
    findings: Sequence[Finding] = (),
) -> None:
    """Write `plan` to `path` as an RT Plan (DICOM PS3.3 A.20), ApprovalStatus UNAPPROVED.

    The description names the codes of `findings` and of those of CT and prescription, but for those for information.
    Positions are rounded to 1e-6 mm, MU to 1e-6. Raises SafetyStop when the plan contradicts itself or the machine.
    """
    _refuse_contradictions(plan, machine, ct)
    dataset = base_dataset(
        RTPlanStorage,
        ids.plan_uid,
        modality="RTPLAN",
        series_uid=ids.plan_series_uid,
        ct=ct,
        created=ids.created,
        series_description="rtplan proposal, not approved",
        series_number=9002,
    )
    _add_general_plan(dataset, prescription, machine, ct, ids, findings)
    dataset.DoseReferenceSequence = Items(_dose_references(prescription))
    dataset.FractionGroupSequence = Items([_fraction_group(plan)])
    dataset.PatientSetupSequence = Items([_patient_setup(ct)])
    dataset.BeamSequence = Items([beam_item(beam, machine) for beam in plan.beams])
    dataset.ApprovalStatus = "UNAPPROVED"
    save_dataset(dataset, path)


def _refuse_contradictions(plan: DeliverablePlan, machine: Machine, ct: CtImage) -> None:
    """What must never be written: a plan for another machine or energy, no beams, or another patient position."""
    if plan.machine_id != machine.machine_id:
        raise SafetyStop("MACHINE_MODEL", f"the plan is for machine {plan.machine_id}", f"machine {machine.machine_id}")
    if plan.energy_id != machine.beam.energy_id:
        raise SafetyStop("MACHINE_MODEL", f"the plan has energy {plan.energy_id}", f"energy {machine.beam.energy_id}")
    if not plan.beams:
        raise SafetyStop("PLAN_EMPTY", "the plan has no beams", "at least one beam")
    if plan.fractions < 1:
        raise SafetyStop("PLAN_FRACTIONS", f"{plan.fractions} fractions", "at least one fraction")
    numbers = [b.number for b in plan.beams]
    if len(set(numbers)) != len(numbers):
        raise SafetyStop("PLAN_BEAM_NUMBERS", f"beam numbers {numbers} repeat", "every beam with its own number")
    if ct.patient_position != "HFS":
        raise SafetyStop("ORIENTATION_UNKNOWN", f"patient position {ct.patient_position!r}", "HFS")


def _add_general_plan(
    dataset: FileDataset,
    prescription: Prescription,
    machine: Machine,
    ct: CtImage,
    ids: OutputIds,
    findings: Sequence[Finding],
) -> None:
    """RT General Plan module (PS3.3 C.8.8.9)."""
    protocol = prescription.protocol
    dataset.RTPlanLabel = PLAN_LABEL
    dataset.RTPlanName = cut(f"NOT APPROVED {protocol.protocol_id}", 64)
    dataset.RTPlanDescription = _description(prescription, machine, (*ct.findings, *prescription.findings, *findings))
    dataset.RTPlanDate, dataset.RTPlanTime = dicom_date(ids.created), dicom_time(ids.created)
    dataset.TreatmentProtocols = cut(f"{protocol.protocol_id} {protocol.version}", 64)
    # The software is for research; only a physician can say that a plan is curative or palliative.
    dataset.PlanIntent = "RESEARCH"
    dataset.RTPlanGeometry = "PATIENT"
    dataset.ReferencedStructureSetSequence = Items([reference(RTStructureSetStorage, ids.structure_set_uid)])


def _description(prescription: Prescription, machine: Machine, findings: Sequence[Finding]) -> str:
    """The watermark, the protocol, and the codes of all findings that a reviewer must see."""
    protocol = prescription.protocol
    held = sorted({f.code for f in findings if f.severity == "hold"})
    codes = sorted({f.code for f in findings if f.severity == "flag"})
    text = uncommissioned_notice(machine.status)
    text += f" HELD, a named person must answer: {', '.join(held)}." if held else ""
    text += f" Protocol {protocol.protocol_id} {protocol.version} ({protocol.status})."
    return cut(text + (f" Flags: {', '.join(codes)}." if codes else ""), _DESCRIPTION_LIMIT)


def _dose_references(prescription: Prescription) -> list[Dataset]:
    """One dose reference per target with its dose over the whole course (PS3.3 C.8.8.10).

    The type is SITE with the target's name: VOLUME would need the ROI number of the structure set that is written beside it.
    """
    items = []
    for number, target in enumerate(prescription.targets, start=1):
        item = Dataset()
        item.DoseReferenceNumber = number
        item.DoseReferenceStructureType = "SITE"
        item.DoseReferenceDescription = cut(target.name, 64)
        item.DoseReferenceType = "TARGET"
        item.TargetPrescriptionDose = decimal(target.dose_gy)
        items.append(item)
    return items


def _fraction_group(plan: DeliverablePlan) -> Dataset:
    """The only fraction group: every beam with its MU per fraction (PS3.3 C.8.8.13)."""
    group = Dataset()
    group.FractionGroupNumber = 1
    group.NumberOfFractionsPlanned = plan.fractions
    group.NumberOfBeams = len(plan.beams)
    group.NumberOfBrachyApplicationSetups = 0
    group.ReferencedBeamSequence = Items()
    for beam in plan.beams:
        item = Dataset()
        item.BeamMeterset = decimal(beam.mu)
        item.ReferencedBeamNumber = beam.number
        group.ReferencedBeamSequence.append(item)
    return group


def _patient_setup(ct: CtImage) -> Dataset:
    """The only patient setup: the position of the CT (PS3.3 C.8.8.12)."""
    setup = Dataset()
    setup.PatientPosition = ct.patient_position
    setup.PatientSetupNumber = 1
    return setup
