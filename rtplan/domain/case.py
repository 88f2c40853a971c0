"""Who and what a case is about: identities and the order."""

from __future__ import annotations

from dataclasses import dataclass

from rtplan.domain.prescription import Technique


@dataclass(frozen=True, slots=True)
class Patient:
    """Identity of the patient exactly as the CT series states it (DICOM Patient module)."""

    patient_id: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True)
class SeriesReference:
    """Everything that an RT object has to repeat of the CT series it belongs to."""

    patient: Patient
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    sop_class_uid: str
    sop_instance_uids: tuple[str, ...]  # one per slice, in the order of the image's z index
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    accession_number: str = ""
    referring_physician: str = ""
    position_reference_indicator: str = ""
    manufacturer: str = ""
    model_name: str = ""
    kvp: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """One request for a plan: where the inputs lie and which protocol and machine were named.

    `model_id` names the model that outlines the organs which the protocol needs and the structure set lacks; with None
    nothing is outlined. `technique` ("imrt", "vmat", "conformal") takes the place of the protocol's own; None keeps that.
    """

    ct_dir: str
    structures_path: str | None
    protocol_id: str
    machine_id: str
    device: str
    model_id: str | None = None
    technique: Technique | None = None
