"""Reads a folder of DICOM files as one CT volume, or says which slice or tag forbids it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtplan.dicom import tags
from rtplan.dicom.ct_checks import check_identity, check_pixels, check_provenance, drop_duplicates, pick_ct_files
from rtplan.dicom.ct_geometry import Stack, stack_slices
from rtplan.dicom.ct_slice import KEYWORDS, CtSlice, parse_slice, read_voxels
from rtplan.dicom.scan import scan_folder
from rtplan.domain.case import SeriesReference
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected

AIR_HU = -1000
LOWEST_HU = -1024
HIGHEST_HU = 30_000  # metal on an extended scale reaches 20,000; a wrapped sign lies above
METAL_HU = 3000
METAL_CC = 0.1
MIN_FRACTION = 1e-3  # of the voxels that must look like air, and like soft tissue


def read_ct(folder: Path) -> CtImage:
    """The one CT series below a folder, on a Grid: x to the left, y to posterior, z to superior.

    Slices are ordered by position; stored rows or columns that run against an axis are flipped, nothing is resampled.
    HU = slope * stored + intercept per slice, rounded to int16. The hash covers voxels, geometry and identity, so neither
    file names nor order change it. Raises CaseRejected with the codes of group A in docs/codes.md.
    """
    scan = scan_folder(Path(folder), KEYWORDS)
    if not scan.files:
        odd = f"; {scan.not_dicom[0]} is not DICOM" if scan.not_dicom else ""
        found = f"no DICOM image in the folder{odd}"
        raise CaseRejected("NO_CT_FOUND", found, "one axial CT series", "name the folder of the planning CT")
    files, picked = pick_ct_files(scan.files)
    slices, duplicates = drop_duplicates([parse_slice(file) for file in files])
    check_identity(slices)
    rescaling = check_pixels(slices)
    stack, thickness = stack_slices(slices)
    hu, voxels = _read_volume(stack)
    findings = (*scan.findings, *picked, *duplicates, *rescaling, *thickness, *check_provenance(stack.slices), *voxels)
    series = _series(stack.slices)
    position = stack.slices[0].patient_position
    return CtImage(stack.grid, hu, series, position, volume_sha256(hu, stack.grid, series, position), findings)


def _read_volume(stack: Stack) -> tuple[NDArray[np.int16], list[Finding]]:
    volume = np.empty(stack.grid.shape_zyx, np.int16)
    padded = below = metal = air = soft = 0
    for k, s in enumerate(stack.slices):
        voxels = read_voxels(s)
        hu = np.rint(voxels.hu)
        hu[voxels.padding] = AIR_HU
        if hu.max() > HIGHEST_HU:
            found = f"{s.place} holds {hu.max():g} HU; PixelRepresentation (0028,0103) or the rescale is wrong"
            raise CaseRejected("HU_IMPLAUSIBLE", found, f"at most {HIGHEST_HU} HU", "export the series again")
        padded += int(voxels.padding.sum())
        below += int((hu < LOWEST_HU).sum())
        hu = np.maximum(hu, LOWEST_HU)
        air += int((hu < -800).sum())
        soft += int((np.abs(hu) < 250).sum())
        metal += int((hu > METAL_HU).sum())
        volume[k] = hu[:: -1 if stack.flip_rows else 1, :: -1 if stack.flip_columns else 1]
    _require_plausible(air, soft, volume.size)
    volume.flags.writeable = False
    return volume, _voxel_findings(padded, below, metal, stack.grid)


def _require_plausible(air: int, soft: int, voxels: int) -> None:
    """Air near -1000 and soft tissue near 0 HU; a wrong intercept or sign loses the one or the other."""
    for what, count in (("air (below -800 HU)", air), ("soft tissue (within 250 HU of water)", soft)):
        if count < MIN_FRACTION * voxels:
            found = f"{100 * count / voxels:.3f} % of the voxels are {what}"
            expected = f"at least {100 * MIN_FRACTION:g} %"
            raise CaseRejected("HU_IMPLAUSIBLE", found, expected, "check RescaleIntercept (0028,1052) and the pixel format")


def _voxel_findings(padded: int, below: int, metal: int, grid: Grid) -> list[Finding]:
    findings = []
    if padded:
        message = f"{padded} voxels carry PixelPaddingValue (0028,0120); they are taken as air ({AIR_HU} HU)"
        findings.append(Finding("PADDING_AS_AIR", "flag", message))
    if below:
        findings.append(Finding("HU_BELOW_AIR", "flag", f"{below} voxels lie below {LOWEST_HU} HU; they are taken as air"))
    if metal * grid.voxel_cc >= METAL_CC:
        message = f"{metal * grid.voxel_cc:.1f} cc lie above {METAL_HU} HU (metal); densities there and nearby are uncertain"
        findings.append(Finding("METAL_ARTEFACT", "flag", message))
    return findings


def _series(slices: tuple[CtSlice, ...]) -> SeriesReference:
    first = slices[0]
    return SeriesReference(
        patient=first.patient,
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        sop_class_uid=first.sop_class_uid,
        sop_instance_uids=tuple(s.sop_instance_uid for s in slices),
        study_date=tags.text(first.file, "StudyDate"),
        study_time=tags.text(first.file, "StudyTime"),
        study_id=tags.text(first.file, "StudyID"),
        accession_number=tags.text(first.file, "AccessionNumber"),
        referring_physician=tags.text(first.file, "ReferringPhysicianName"),
        position_reference_indicator=tags.text(first.file, "PositionReferenceIndicator"),
        manufacturer=tags.text(first.file, "Manufacturer"),
        model_name=tags.text(first.file, "ManufacturerModelName"),
        kvp=first.kvp,
    )


def volume_sha256(hu: NDArray[np.int16], grid: Grid, series: SeriesReference, patient_position: str) -> str:
    """Hash of voxels, geometry and identity of a CT. Hex, 64 characters."""
    digest = hashlib.sha256()
    for part in (grid.shape_zyx, grid.spacing_zyx_mm, grid.origin_xyz_mm, series, patient_position):
        digest.update(repr(part).encode() + b"\0")
    digest.update(np.ascontiguousarray(hu, dtype="<i2").data)
    return digest.hexdigest()
