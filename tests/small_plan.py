"""A small case that the tests of output share: a CT, structures, a machine, a prescription, a plan and a dose."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np

from rtplan.domain.beams import Beam
from rtplan.domain.case import Patient, SeriesReference
from rtplan.domain.dose import Dose
from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage, DensityImage
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, ArcLimits, BeamModel, Jaws, Machine, Mlc
from rtplan.domain.plan import Aperture, ControlPoint, DeliverablePlan, PlanBeam, Segment, step_and_shoot_beam
from rtplan.domain.prescription import (
    BeamArrangement,
    PrescribedTarget,
    Prescription,
    PrescriptionLevel,
    Protocol,
)
from rtplan.domain.structures import Structure, StructureSet

NOW = datetime(2025, 3, 4, 5, 6, 7)
CT_GRID = Grid((20, 64, 80), (3.0, 2.0, 2.0), (-80.0, -60.0, -30.0))
DOSE_GRID = Grid((22, 36, 44), (2.5, 3.25, 3.5), (-76.123456, -57.5, -26.5))
ISO = (3.25, -1.5, 2.75)


def machine(machine_id: str = "test_machine", energy_id: str = "6X") -> Machine:
    mlc = Mlc(
        np.concatenate([np.arange(-50, -20, 10), np.arange(-20, 21, 5), np.arange(30, 51, 10)]).astype(float),
        200.0,
        150.0,
        150.0,
        0.5,
        True,
        25.0,
        0.015,
        0.015,
        0.0,
        0.0,
    )
    beam = BeamModel(
        energy_id,
        6.0,
        np.array([1.0, 2.0]),
        np.array([0.5, 0.5]),
        1e9,
        0.5,
        0.5,
        400.0,
        np.array([0.0, 200.0]),
        np.array([1.0, 1.02]),
        np.array([0.0, 300.0]),
        np.array([1.0, 1.0]),
        NO_EXTRA_FOCAL_SOURCE,
        NO_CONTAMINATION,
        "b" * 64,
    )
    jaws = Jaws((-200, 20), (-20, 200), (-200, 100), (-100, 200), 0.005, 25.0)
    return Machine(
        machine_id,
        "1",
        "Test machine",
        "generic, not commissioned",
        ("nowhere",),
        "Acme",
        "Linac 1",
        1000.0,
        mlc,
        jaws,
        beam,
        6.0,
        600.0,
        2.0,
        1.0,
        1000.0,
        (-180.0, 180.0),
        ArcLimits(30.0, (), 0.1, 20.0, 5.0),
        "m" * 64,
    )


def aperture(seed: int) -> Aperture:
    draw = np.random.default_rng(seed)
    n = machine().mlc.n_pairs
    centre = draw.uniform(-10, 10, n)
    half = draw.uniform(1, 20, n)
    return Aperture(centre - half, centre + half, -31.25 - seed, 33.1234567, -28.5, 29.75 + seed)


def static_beam(number: int, gantry: float, mus: tuple[float, ...]) -> PlanBeam:
    beam = Beam(f"B{number} G{gantry:g}", gantry, 10.0, 0.0, ISO, 1000.0)
    segments = tuple(Segment(number - 1, aperture(10 * number + i), mu) for i, mu in enumerate(mus))
    return step_and_shoot_beam(number, beam, segments)


def arc_beam(number: int) -> PlanBeam:
    beam = Beam(f"A{number}", 350.0, 30.0, 0.0, ISO, 1000.0)
    angles = [350.0, 355.0, 0.0, 5.0, 10.0]
    mus = [0.0, 3.3, 9.7, 11.123456, 20.987654]
    points = tuple(ControlPoint(m, a, aperture(90 + i)) for i, (m, a) in enumerate(zip(mus, angles, strict=True)))
    return PlanBeam(number, beam, points, "CW")


def plan(beams: tuple[PlanBeam, ...] | None = None) -> DeliverablePlan:
    if beams is None:
        beams = (
            static_beam(1, 0.0, (31.4159265, 2.718281)),
            static_beam(2, 120.0, (17.0 / 3, 10.0, 0.1 + 0.2)),
            static_beam(3, 240.0, (50.0,)),
        )
    return DeliverablePlan("test_machine", "6X", 35, beams)


def sound_aperture(seed: int) -> Aperture:
    """Eight pairs open between the jaws, the others closed under the X2 jaw."""
    draw = np.random.default_rng(seed)
    x1, x2 = np.full(14, 40.0), np.full(14, 40.5)
    x1[3:11], x2[3:11] = draw.uniform(-28, -15, 8), draw.uniform(15, 28, 8)
    return Aperture(x1, x2, -31.25, 33.1234567, -28.5, 29.75)


def sound_plan() -> DeliverablePlan:
    """Two step-and-shoot beams and an arc that the test machine can deliver."""
    fixed = []
    for number, gantry in ((1, 0.0), (2, 120.0)):
        beam = Beam(f"B{number}", gantry, 10.0, 0.0, ISO, 1000.0)
        segments = tuple(Segment(number - 1, sound_aperture(10 * number + i), 7.0 / 3 + i) for i in range(3))
        fixed.append(step_and_shoot_beam(number, beam, segments))
    arc = arc_beam(4)
    points = tuple(replace(p, aperture=sound_aperture(90 + i)) for i, p in enumerate(arc.control_points))
    return plan((*fixed, replace(arc, control_points=points)))


def goals() -> tuple[Goal, ...]:
    def goal(structure: str, metric: str, sense: str, limit: float, priority: int) -> Goal:
        return Goal(structure, parse_metric(metric), sense, limit, priority, "a paper", "unverified")  # type: ignore[arg-type]

    return (
        goal("PTV_70", "D95[Gy]", ">=", 66.5, 1),
        goal("SpinalCord", "D0.03cc[Gy]", "<=", 5.0, 0),
        goal("Parotid_L", "Mean[Gy]", "<=", 80.0, 2),
        goal("Larynx", "Mean[Gy]", "<=", 45.0, 3),
    )


def prescription() -> Prescription:
    protocol = Protocol(
        "test_site",
        "1",
        "A test site",
        "unverified",
        ("a paper",),
        35,
        (PrescriptionLevel("PTV_70", 70.0, ("PTV.*",)),),
        True,
        3.0,
        5.0,
        (),
        (),
        goals(),
        BeamArrangement((0.0, 120.0, 240.0), 10.0),
        None,
        5.0,
        2.5,
        4.0,
        6,
        "p" * 64,
    )
    return Prescription(protocol, (PrescribedTarget("PTV_70", 70.0), PrescribedTarget("PTV_56", 56.0)), goals(), ())


def ct(name: str = "Müller^Ünal", patient_id: str = "ID 1") -> CtImage:
    x, y = np.meshgrid(CT_GRID.x_mm(), CT_GRID.y_mm())
    body = (x / 70) ** 2 + (y / 50) ** 2 < 1
    hu = np.where(body, 20, -1000)[None].repeat(CT_GRID.shape_zyx[0], axis=0)
    hu[:, ((x - 20) ** 2 + (y - 20) ** 2 < 64)] = 900  # bone at the patient's left back
    uids = tuple(f"1.2.826.0.1.3680043.8.498.{i + 10}" for i in range(CT_GRID.shape_zyx[0]))
    series = SeriesReference(
        Patient(patient_id, name, "19500101", "F"),
        "1.2.826.0.1.3680043.8.498.1",
        "1.2.826.0.1.3680043.8.498.2",
        "1.2.826.0.1.3680043.8.498.3",
        "1.2.840.10008.5.1.4.1.1.2",
        uids,
        "20250101",
        "120000",
        "S1",
        "A1",
        "Dr^Who",
    )
    return CtImage(CT_GRID, hu.astype(np.int16), series, "HFS", "c" * 64)


def structures(organ: str = "Parotid_L") -> StructureSet:
    z, y, x = np.meshgrid(CT_GRID.z_mm(), CT_GRID.y_mm(), CT_GRID.x_mm(), indexing="ij")

    def ball(cx: float, cy: float, cz: float, r: float):
        return (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < r**2

    body = (x / 70) ** 2 + (y / 50) ** 2 < 1
    return StructureSet(
        CT_GRID,
        (
            Structure("External", "EXTERNAL", body),
            Structure("PTV_70", "PTV", ball(*ISO, 12)),
            Structure("PTV_56", "PTV", ball(*ISO, 18)),
            Structure("SpinalCord", "ORGAN", ball(0, 35, 0, 6)),
            Structure(organ, "ORGAN", ball(40, 0, 5, 9)),
            Structure("Ring", "CONTROL", ball(*ISO, 25) & ~ball(*ISO, 18)),
        ),
    )


def density() -> DensityImage:
    water = structures().external.mask.astype(np.float32)
    return DensityImage(CT_GRID, water, water)


def dose() -> Dose:
    z, y, x = np.meshgrid(DOSE_GRID.z_mm(), DOSE_GRID.y_mm(), DOSE_GRID.x_mm(), indexing="ij")
    r = np.sqrt((x - ISO[0]) ** 2 + (y - ISO[1]) ** 2 + (z - ISO[2]) ** 2)
    return Dose(DOSE_GRID, (74.0 / (1 + np.exp((r - 20) / 4)) + 0.05 * (x + 80)).astype(np.float32))
