"""What every RT object that rtplan writes has in common: patient, study, frame of reference, equipment."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from rtplan.domain.case import SeriesReference
from rtplan.domain.image import CtImage
from rtplan.errors import SafetyStop
from rtplan.provenance import package_version

MANUFACTURER = "rtplan"
IMPLEMENTATION_CLASS_UID = "2.25.190891505883569930509737548876710933629"  # of rtplan as an application, drawn once


def base_dataset(
    sop_class_uid: str,
    sop_instance_uid: str,
    *,
    modality: str,
    series_uid: str,
    ct: CtImage,
    created: datetime,
    series_description: str,
    series_number: int,
) -> FileDataset:
    """A data set with the modules that all RT objects share, copied from the CT series it belongs to.

    Patient, General Study, RT Series, Frame of Reference, General Equipment and SOP Common (DICOM PS3.3 C.7, C.8.8.1,
    C.12.1). The caller adds the module of its own object. Explicit VR little endian.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = "RTPLAN"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dicom_date(created), dicom_time(created)
    _add_patient_and_study(dataset, ct.series)
    dataset.Modality = modality
    dataset.SeriesInstanceUID = series_uid
    dataset.SeriesNumber = series_number
    dataset.SeriesDescription = series_description
    dataset.SeriesDate, dataset.SeriesTime = dicom_date(created), dicom_time(created)
    dataset.OperatorsName = ""
    dataset.FrameOfReferenceUID = ct.series.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ct.series.position_reference_indicator
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "rtplan"
    dataset.SoftwareVersions = package_version()
    return dataset


def _add_patient_and_study(dataset: Dataset, series: SeriesReference) -> None:
    """Patient and General Study modules exactly as the CT states them."""
    dataset.PatientName = series.patient.name
    dataset.PatientID = series.patient.patient_id
    dataset.PatientBirthDate = series.patient.birth_date
    dataset.PatientSex = series.patient.sex
    dataset.StudyInstanceUID = series.study_instance_uid
    dataset.StudyDate = series.study_date
    dataset.StudyTime = series.study_time
    dataset.StudyID = series.study_id
    dataset.AccessionNumber = series.accession_number
    dataset.ReferringPhysicianName = series.referring_physician


def dicom_date(moment: datetime) -> str:
    """A moment's date as DICOM DA, in the local time that DICOM means when it states no offset."""
    return _local(moment).strftime("%Y%m%d")


def dicom_time(moment: datetime) -> str:
    """A moment's time as DICOM TM, to the second, local."""
    return _local(moment).strftime("%H%M%S")


def _local(moment: datetime) -> datetime:
    """A moment in local time; one without zone is taken as local already."""
    return moment.astimezone() if moment.tzinfo else moment


def save_dataset(dataset: FileDataset, path: Path) -> None:
    """Write a DICOM part 10 file. Raises OSError when the file cannot be written."""
    dataset.save_as(path, enforce_file_format=True)


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An item that refers to another object."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def decimal(value: float, decimals: int = 6) -> str:
    """A number as DICOM DS: at most 16 characters, rounded to `decimals`. Raises SafetyStop when it is not finite."""
    if not math.isfinite(value):
        raise SafetyStop("DICOM_VALUE_NOT_FINITE", f"{value} was about to be written", "a finite number")
    rounded = round(float(value), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    return str(format_number_as_ds(rounded)).removesuffix(".0")


def cut(text: str, limit: int) -> str:
    """Text within a DICOM length limit; an ellipsis shows that something was left out."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def uncommissioned_notice(machine_status: str) -> str:
    """The watermark that every plan and dose carries in words."""
    return f"AUTO-GENERATED - NOT APPROVED - recalculate & QA before use. Machine: {machine_status}."


def machine_name(machine_id: str) -> str:
    """A machine's name as it stands in a plan: TreatmentMachineName is SH, at most 16 characters."""
    return machine_id[:16].rstrip()
