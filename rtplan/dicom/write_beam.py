"""One beam of a plan as an item of the RT Plan's beam sequence (DICOM PS3.3 C.8.8.14)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from rtplan.dicom.header import decimal, machine_name
from rtplan.domain.machine import Machine
from rtplan.domain.plan import Aperture, ControlPoint, PlanBeam
from rtplan.errors import SafetyStop

SETUP_NUMBER = 1
_WEIGHT_DECIMALS = 12  # of the cumulative meterset weight, which runs from 0 to 1: 1e-9 MU


def beam_item(beam: PlanBeam, machine: Machine) -> Dataset:
    """The beam with all its control points. Raises SafetyStop when its MU are not positive and ascending from 0."""
    _refuse_contradictions(beam, machine)
    item = Dataset()
    if machine.manufacturer:
        item.Manufacturer = machine.manufacturer
    if machine.model_name:
        item.ManufacturerModelName = machine.model_name
    item.TreatmentMachineName = machine_name(machine.machine_id)
    item.PrimaryDosimeterUnit = "MU"
    item.SourceAxisDistance = decimal(beam.beam.sad_mm)
    item.BeamLimitingDeviceSequence = Sequence(_limiting_devices(machine))
    item.BeamNumber = beam.number
    item.BeamName = beam.beam.name
    item.BeamDescription = f"{machine.machine_id} version {machine.version} {machine.beam.energy_id} ({machine.status})"[
        :1024
    ]
    item.BeamType = "STATIC" if _is_static(beam) else "DYNAMIC"
    item.RadiationType = "PHOTON"
    item.PrimaryFluenceModeSequence = Sequence([_fluence_mode(machine)])
    item.TreatmentDeliveryType = "TREATMENT"
    item.NumberOfWedges = 0
    item.NumberOfCompensators = 0
    item.NumberOfBoli = 0
    item.NumberOfBlocks = 0
    item.FinalCumulativeMetersetWeight = "1"
    item.NumberOfControlPoints = len(beam.control_points)
    item.ReferencedPatientSetupNumber = SETUP_NUMBER
    item.ControlPointSequence = Sequence(_control_points(beam, machine))
    return item


def _refuse_contradictions(beam: PlanBeam, machine: Machine) -> None:
    """MU must start at 0, never fall, and end finite and positive; leaves must be the machine's; the gantry turns in one
    direction, by at most a full turn, or not at all."""
    where = f"beam {beam.number}"
    if len(beam.control_points) < 2:
        raise SafetyStop("PLAN_CONTROL_POINTS", f"{where} has {len(beam.control_points)} control points", "at least two")
    mu = np.array([p.cumulative_mu for p in beam.control_points])
    if not (np.all(np.isfinite(mu)) and mu[0] == 0 and np.all(np.diff(mu) >= 0) and mu[-1] > 0):
        raise SafetyStop("MU_RANGE", f"{where} has cumulative MU {mu[0]:g} to {mu[-1]:g}", "MU that rise from 0")
    if beam.beam.sad_mm != machine.sad_mm:
        raise SafetyStop("MACHINE_MODEL", f"{where} has SAD {beam.beam.sad_mm:g} mm", f"{machine.sad_mm:g} mm")
    turn = float(np.abs(beam.turns_deg).sum())
    if not (0.0 < turn <= 360.0 if beam.is_arc else turn == 0.0):
        raise SafetyStop(
            "GANTRY_PATH", f"{where} turns by {turn:g} degrees, rotation {beam.rotation}", "one direction, one turn"
        )
    for point in beam.control_points:
        if not len(point.aperture.leaf_x1_mm) == len(point.aperture.leaf_x2_mm) == machine.mlc.n_pairs:
            raise SafetyStop(
                "PLAN_LEAVES", f"{where} has {len(point.aperture.leaf_x1_mm)} leaf pairs", f"{machine.mlc.n_pairs}"
            )


def _is_static(beam: PlanBeam) -> bool:
    """PS3.3: STATIC when nothing changes between consecutive control points with changing meterset (step and shoot)."""
    if beam.is_arc:
        return False
    return all(
        a.cumulative_mu == b.cumulative_mu
        or (a.gantry_angle_deg == b.gantry_angle_deg and _positions(a.aperture) == _positions(b.aperture))
        for a, b in zip(beam.control_points, beam.control_points[1:], strict=False)
    )


def _limiting_devices(machine: Machine) -> list[Dataset]:
    """Both jaw pairs and the multileaf collimator. Distances from source are not known for a generic machine: left out."""
    devices = []
    for kind, pairs in (("ASYMX", 1), ("ASYMY", 1), ("MLCX", machine.mlc.n_pairs)):
        device = Dataset()
        device.RTBeamLimitingDeviceType = kind
        device.NumberOfLeafJawPairs = pairs
        if kind == "MLCX":
            device.LeafPositionBoundaries = [decimal(v) for v in machine.mlc.leaf_boundaries_mm]
        devices.append(device)
    return devices


def _fluence_mode(machine: Machine) -> Dataset:
    """STANDARD, or NON_STANDARD with the identifier FFF for a beam without flattening filter."""
    mode = Dataset()
    mode.FluenceMode = "NON_STANDARD" if machine.beam.unflattened else "STANDARD"
    if machine.beam.unflattened:
        mode.FluenceModeID = "FFF"
    return mode


def _control_points(beam: PlanBeam, machine: Machine) -> list[Dataset]:
    """The first control point in full; later ones state the meterset and whatever changed since the one before.

    Those of an arc repeat leaves, jaws, gantry angle and direction every time, as accelerators expect them.
    """
    points = beam.control_points
    items: list[Dataset] = []
    for index, point in enumerate(points):
        item = Dataset()
        item.ControlPointIndex = index
        if index == 0:
            item.NominalBeamEnergy = decimal(machine.beam.nominal_energy_mv)
            item.DoseRateSet = decimal(machine.max_dose_rate_mu_min)
        unchanged = index > 0 and _positions(point.aperture) == _positions(points[index - 1].aperture)
        if beam.is_arc or not unchanged:
            _add_positions(item, point)
        if beam.is_arc or index == 0:
            item.GantryAngle = decimal(angle_in_turn(point.gantry_angle_deg))
            # From this control point to the next, as IEC 61217 sees it: CW is towards greater angles.
            item.GantryRotationDirection = beam.rotation if index + 1 < len(points) else "NONE"
        if index == 0:
            _add_fixed_geometry(item, beam)
        item.CumulativeMetersetWeight = decimal(point.cumulative_mu / beam.mu, _WEIGHT_DECIMALS)
        items.append(item)
    return items


def _positions(aperture: Aperture) -> dict[str, list[str]]:
    """Positions per device as they are written, mm at the isocentre plane."""
    return {
        "ASYMX": [decimal(aperture.jaw_x1_mm), decimal(aperture.jaw_x2_mm)],
        "ASYMY": [decimal(aperture.jaw_y1_mm), decimal(aperture.jaw_y2_mm)],
        "MLCX": [decimal(v) for v in (*aperture.leaf_x1_mm, *aperture.leaf_x2_mm)],
    }


def _add_positions(item: Dataset, point: ControlPoint) -> None:
    """All devices whenever any of them changed, so that a reader never has to mix two control points."""
    item.BeamLimitingDevicePositionSequence = Sequence()
    for kind, values in _positions(point.aperture).items():
        device = Dataset()
        device.RTBeamLimitingDeviceType = kind
        device.LeafJawPositions = values
        item.BeamLimitingDevicePositionSequence.append(device)


def angle_in_turn(angle_deg: float) -> float:
    """The same angle in [0, 360) degrees."""
    turned = round(angle_deg % 360.0, 6)
    return 0.0 if turned == 360.0 else turned


def _add_fixed_geometry(item: Dataset, beam: PlanBeam) -> None:
    """What does not change within a beam: collimator, couch and isocentre. The couch position is left to the room."""
    item.BeamLimitingDeviceAngle = decimal(angle_in_turn(beam.beam.collimator_angle_deg))
    item.BeamLimitingDeviceRotationDirection = "NONE"
    item.PatientSupportAngle = decimal(angle_in_turn(beam.beam.couch_angle_deg))
    item.PatientSupportRotationDirection = "NONE"
    item.TableTopEccentricAngle = "0"
    item.TableTopEccentricRotationDirection = "NONE"
    item.TableTopVerticalPosition = None
    item.TableTopLongitudinalPosition = None
    item.TableTopLateralPosition = None
    item.TableTopPitchAngle = 0.0
    item.TableTopPitchRotationDirection = "NONE"
    item.TableTopRollAngle = 0.0
    item.TableTopRollRotationDirection = "NONE"
    item.IsocenterPosition = [decimal(v) for v in beam.beam.isocentre_xyz_mm]
