"""Turns one item of an RT Plan's beam sequence into a beam, or refuses what rtplan cannot reproduce."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset

from rtplan.dicom.open_rt import number, numbers, required
from rtplan.domain.beams import Beam
from rtplan.domain.grid import Float3
from rtplan.domain.machine import Machine
from rtplan.domain.plan import Aperture, ControlPoint, PlanBeam, Rotation
from rtplan.errors import CaseRejected

_MAX_CONTROL_POINTS = 5000
_ANGLE_TOLERANCE_DEG = 1e-3
_LENGTH_TOLERANCE_MM = 0.01
_WEIGHT_TOLERANCE = 1e-5  # of the final weight: files round the last control point
_JAW_X, _JAW_Y = ("ASYMX", "X"), ("ASYMY", "Y")
_COUNTS = ("NumberOfWedges", "NumberOfCompensators", "NumberOfBoli", "NumberOfBlocks")
# Each must be zero or absent: the beam frame has couch rotation about the isocentre only.
_ZERO_ANGLES = ("GantryPitchAngle", "TableTopPitchAngle", "TableTopRollAngle", "TableTopEccentricAngle")


def read_beam(item: Dataset, mu: float, machine: Machine, positions: Mapping[int, str]) -> PlanBeam:
    """The beam with `mu` MU per fraction. Raises CaseRejected with a code that starts with RTPLAN_."""
    beam_number = int(item.BeamNumber)
    where = f"beam {beam_number}"
    if not mu > 0:
        raise CaseRejected("RTPLAN_METERSET", f"{where} has {mu:g} MU", "more than 0")
    _refuse_modifiers(item, where)
    _refuse_other_machine(item, machine, where)
    _refuse_other_fluence_mode(item, machine, where)
    setup = item.get("ReferencedPatientSetupNumber")
    if setup not in (None, "") and int(setup) not in positions:
        raise CaseRejected(
            "RTPLAN_PATIENT_POSITION", f"{where} refers to patient setup {setup}, which is missing", "a setup"
        )
    points = required(item, "ControlPointSequence", code="RTPLAN_CONTROL_POINTS", where=where)
    stated = number(item, "NumberOfControlPoints", code="RTPLAN_CONTROL_POINTS", where=where)
    if stated != len(points) or not 2 <= len(points) <= _MAX_CONTROL_POINTS:
        found = f"{where} states {stated:g} control points and has {len(points)}"
        raise CaseRejected("RTPLAN_CONTROL_POINTS", found, f"equal numbers from 2 to {_MAX_CONTROL_POINTS}")
    _refuse_other_energy(list(points), machine, where)
    cumulative_mu = _cumulative_mu(item, list(points), mu, where)
    control_points, rotation = _control_points(list(points), cumulative_mu, machine, where)
    collimator, couch, isocentre = _fixed_geometry(list(points), where)
    name = str(item.get("BeamName", "") or where)
    beam = Beam(name, control_points[0].gantry_angle_deg, collimator, couch, isocentre, machine.sad_mm)
    return _refusing_turns(PlanBeam(beam_number, beam, control_points, rotation), where)


def _refuse_modifiers(item: Dataset, where: str) -> None:
    """Electrons, wedges, compensators, bolus, blocks, applicators: none of them is in the dose engine."""
    radiation = str(item.get("RadiationType", "") or "missing")
    if radiation != "PHOTON":
        raise CaseRejected("RTPLAN_RADIATION", f"{where} has radiation type {radiation}", "PHOTON")
    unit = str(item.get("PrimaryDosimeterUnit", "MU") or "MU")
    if unit != "MU":
        raise CaseRejected("RTPLAN_METERSET", f"{where} counts in {unit}", "MU")
    for keyword in _COUNTS:
        if number(item, keyword, code="RTPLAN_MODIFIER", where=where, default=0.0) != 0:
            raise CaseRejected("RTPLAN_MODIFIER", f"{where} has {keyword[8:].lower()}", "none")
    for keyword in ("ReferencedBolusSequence", "ApplicatorSequence", "GeneralAccessorySequence", "WedgeSequence"):
        if len(item.get(keyword) or []):
            raise CaseRejected("RTPLAN_MODIFIER", f"{where} has a {keyword}", "none")


def _refuse_other_machine(item: Dataset, machine: Machine, where: str) -> None:
    """Axis distance, jaws and leaves must be those of the machine that the plan names."""
    sad = number(item, "SourceAxisDistance", code="RTPLAN_MACHINE_GEOMETRY", where=where)
    if abs(sad - machine.sad_mm) > _LENGTH_TOLERANCE_MM:
        raise CaseRejected("RTPLAN_MACHINE_GEOMETRY", f"{where} has SAD {sad:g} mm", f"{machine.sad_mm:g} mm")
    devices = required(item, "BeamLimitingDeviceSequence", code="RTPLAN_DEVICES", where=where)
    kinds = sorted(str(d.get("RTBeamLimitingDeviceType", "")) for d in devices)
    if (
        len(kinds) != 3
        or sum(k in _JAW_X for k in kinds) != 1
        or sum(k in _JAW_Y for k in kinds) != 1
        or "MLCX" not in kinds
    ):
        raise CaseRejected("RTPLAN_DEVICES", f"{where} has {', '.join(kinds)}", "one X jaw pair, one Y jaw pair, one MLCX")
    leaves = next(d for d in devices if d.RTBeamLimitingDeviceType == "MLCX")
    expected = machine.mlc.leaf_boundaries_mm
    found = numbers(leaves, "LeafPositionBoundaries", code="RTPLAN_LEAVES", where=where, count=len(expected))
    if np.max(np.abs(np.array(found) - expected)) > _LENGTH_TOLERANCE_MM:
        raise CaseRejected(
            "RTPLAN_LEAVES", f"{where}: leaf boundaries differ from {machine.machine_id}", "the machine's leaves"
        )


def _refuse_other_energy(points: list[Dataset], machine: Machine, where: str) -> None:
    """Nominal energy and fluence mode must be the machine's beam, at every control point that states them."""
    first = number(points[0], "NominalBeamEnergy", code="RTPLAN_ENERGY", where=f"{where}, control point 0")
    for point in points:
        energy = number(point, "NominalBeamEnergy", code="RTPLAN_ENERGY", where=where, default=first)
        if abs(energy - machine.beam.nominal_energy_mv) > 1e-6:
            expected = f"{machine.beam.nominal_energy_mv:g} MV"
            raise CaseRejected("RTPLAN_ENERGY", f"{where} has {energy:g} MV", expected)
        if len(point.get("WedgePositionSequence") or []):
            raise CaseRejected("RTPLAN_MODIFIER", f"{where} has wedge positions", "none")


def fluence_mode(item: Dataset) -> str:
    """The primary fluence mode that a beam states, STANDARD when it states none (DICOM PS3.3 C.8.8.14).

    Raises RTPLAN_ENERGY for a NON_STANDARD fluence that is not FFF, such as that of total skin irradiation.
    """
    modes = item.get("PrimaryFluenceModeSequence") or []
    if not len(modes):
        return "STANDARD"
    mode, name = str(modes[0].get("FluenceMode", "STANDARD")), str(modes[0].get("FluenceModeID", "") or "FFF")
    if mode == "NON_STANDARD" and name.upper() != "FFF":
        raise CaseRejected("RTPLAN_ENERGY", f"beam {item.get('BeamNumber')} has fluence mode {mode} {name}", "FFF")
    return mode


def _refuse_other_fluence_mode(item: Dataset, machine: Machine, where: str) -> None:
    """An unflattened beam must not be calculated with a flattened model, nor the other way round."""
    stated = fluence_mode(item)
    expected = "NON_STANDARD" if machine.beam.unflattened else "STANDARD"
    if stated != expected:
        raise CaseRejected("RTPLAN_ENERGY", f"{where} has fluence mode {stated}", expected)


def _cumulative_mu(item: Dataset, points: list[Dataset], mu: float, where: str) -> list[float]:
    """MU per fraction delivered at each control point: BeamMeterset x weight / final weight."""
    final = number(item, "FinalCumulativeMetersetWeight", code="RTPLAN_METERSET", where=where)
    weights = [
        number(p, "CumulativeMetersetWeight", code="RTPLAN_METERSET", where=f"{where}, control point {i}")
        for i, p in enumerate(points)
    ]
    slack = _WEIGHT_TOLERANCE * abs(final)
    if not (final > 0 and weights[0] == 0 and np.all(np.diff(weights) >= 0) and abs(weights[-1] - final) <= slack):
        found = f"{where}: cumulative meterset weight runs from {weights[0]:g} to {weights[-1]:g}, final {final:g}"
        raise CaseRejected("RTPLAN_METERSET", found, "a weight that rises from 0 to the final weight")
    return [mu * w / weights[-1] for w in weights]


def _control_points(
    points: list[Dataset], cumulative_mu: list[float], machine: Machine, where: str
) -> tuple[tuple[ControlPoint, ...], Rotation]:
    """Control points with inherited positions and gantry angle, and the direction in which the gantry turns."""
    angle = number(points[0], "GantryAngle", code="RTPLAN_GANTRY", where=f"{where}, control point 0") % 360.0
    positions, rotation = dict[str, list[float]](), "NONE"
    result: list[ControlPoint] = []
    turned: set[str] = set()
    for index, (point, mu) in enumerate(zip(points, cumulative_mu, strict=True)):
        place = f"{where}, control point {index}"
        stated_index = number(point, "ControlPointIndex", code="RTPLAN_CONTROL_POINTS", where=place)
        if stated_index != index:
            raise CaseRejected("RTPLAN_CONTROL_POINTS", f"{place} has index {stated_index:g}", f"{index}")
        before, angle = angle, number(point, "GantryAngle", code="RTPLAN_GANTRY", where=place, default=angle) % 360.0
        if angle != before:
            turned.add(rotation)
        rotation = str(point.get("GantryRotationDirection", "") or rotation)
        positions = {**positions, **_stated_positions(point, machine, place)}
        result.append(ControlPoint(mu, angle, _aperture(positions, place)))
    return tuple(result), _direction(turned, where)


def _direction(turned: set[str], where: str) -> Rotation:
    """The one direction of all intervals in which the gantry turns. DICOM states it for the interval that follows."""
    if not turned:
        return "NONE"
    if turned == {"CW"}:
        return "CW"
    if turned == {"CC"}:
        return "CC"
    found = f"{where}: the gantry turns, with direction {' and '.join(sorted(turned))}"
    raise CaseRejected("RTPLAN_GANTRY", found, "CW or CC, one for the whole beam", "split the beam where it turns back")


def _refusing_turns(beam: PlanBeam, where: str) -> PlanBeam:
    """More than a full turn is a step against the stated direction, which would be a wrong dose either way."""
    whole = float(np.abs(beam.turns_deg).sum())
    if whole > 360.0 + _ANGLE_TOLERANCE_DEG:
        found = f"{where}: gantry angles that turn by {whole:g} deg when read as {beam.rotation}"
        raise CaseRejected("RTPLAN_GANTRY", found, "at most a full turn", "correct GantryRotationDirection")
    return beam


def _stated_positions(point: Dataset, machine: Machine, place: str) -> dict[str, list[float]]:
    """Positions that this control point states, by device: X, Y or MLCX."""
    stated: dict[str, list[float]] = {}
    for device in point.get("BeamLimitingDevicePositionSequence") or []:
        kind = str(device.get("RTBeamLimitingDeviceType", ""))
        name = "X" if kind in _JAW_X else "Y" if kind in _JAW_Y else kind
        if name not in ("X", "Y", "MLCX") or name in stated:
            raise CaseRejected("RTPLAN_DEVICES", f"{place} positions device {kind!r}", "X jaws, Y jaws and MLCX, each once")
        count = 2 * machine.mlc.n_pairs if name == "MLCX" else 2
        stated[name] = numbers(device, "LeafJawPositions", code="RTPLAN_LEAVES", where=f"{place}, {kind}", count=count)
    return stated


def _aperture(positions: dict[str, list[float]], place: str) -> Aperture:
    """The aperture of fully known positions; opposing leaves and jaws must not cross."""
    missing = [name for name in ("X", "Y", "MLCX") if name not in positions]
    if missing:
        raise CaseRejected("RTPLAN_DEVICES", f"{place} has no position of {', '.join(missing)}", "all devices positioned")
    pairs = len(positions["MLCX"]) // 2
    x1, x2 = np.array(positions["MLCX"][:pairs]), np.array(positions["MLCX"][pairs:])
    if np.any(x1 > x2):
        raise CaseRejected("RTPLAN_LEAVES", f"{place}: leaf pair {int(np.argmax(x1 > x2)) + 1} crosses", "X1 <= X2")
    if positions["X"][0] > positions["X"][1] or positions["Y"][0] > positions["Y"][1]:
        raise CaseRejected("RTPLAN_LEAVES", f"{place}: the jaws cross", "X1 <= X2 and Y1 <= Y2")
    return Aperture(x1, x2, positions["X"][0], positions["X"][1], positions["Y"][0], positions["Y"][1])


def _fixed_geometry(points: list[Dataset], where: str) -> tuple[float, float, Float3]:
    """Collimator angle, couch angle and isocentre, which must not change within the beam."""
    first = points[0]
    collimator = number(first, "BeamLimitingDeviceAngle", code="RTPLAN_COLLIMATOR", where=where)
    couch = number(first, "PatientSupportAngle", code="RTPLAN_COUCH", where=where, default=0.0)
    isocentre = numbers(first, "IsocenterPosition", code="RTPLAN_ISOCENTRE", where=where, count=3)
    for index, point in enumerate(points):
        place = f"{where}, control point {index}"
        for keyword in _ZERO_ANGLES:
            if abs(number(point, keyword, code="RTPLAN_COUCH", where=place, default=0.0)) > _ANGLE_TOLERANCE_DEG:
                raise CaseRejected("RTPLAN_COUCH", f"{place}: {keyword} is not 0", "0")
        for keyword, start, code in (
            ("BeamLimitingDeviceAngle", collimator, "RTPLAN_COLLIMATOR"),
            ("PatientSupportAngle", couch, "RTPLAN_COUCH"),
        ):
            if abs(number(point, keyword, code=code, where=place, default=start) - start) > _ANGLE_TOLERANCE_DEG:
                raise CaseRejected(code, f"{place}: {keyword} changes within the beam", "one angle for the whole beam")
        if point.get("IsocenterPosition") not in (None, ""):
            here = numbers(point, "IsocenterPosition", code="RTPLAN_ISOCENTRE", where=place, count=3)
            if np.max(np.abs(np.array(here) - isocentre)) > _LENGTH_TOLERANCE_MM:
                raise CaseRejected("RTPLAN_ISOCENTRE", f"{place}: the isocentre moves", "one isocentre for the whole beam")
    return collimator % 360.0, couch % 360.0, (isocentre[0], isocentre[1], isocentre[2])
