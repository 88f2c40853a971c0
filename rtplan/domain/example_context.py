"""A small sound plan on a made-up machine: the good example of every plan check, and what the bad ones are broken from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.beams import Beam
from rtplan.domain.context import PartDose, PlanContext
from rtplan.domain.dose import Dose
from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, ArcLimits, BeamModel, Jaws, Machine, Mlc
from rtplan.domain.plan import Aperture, ControlPoint, DeliverablePlan, PlanBeam, Segment, step_and_shoot_beam
from rtplan.domain.prescription import BeamArrangement, PrescribedTarget, Prescription, PrescriptionLevel, Protocol
from rtplan.domain.structures import Structure, StructureSet

PRESCRIBED_GY = 60.0
EXAMPLE_ARC = ArcLimits(30.0, (), 0.1, 20.0, 5.0)


def example_machine() -> Machine:
    """Ten central 5 mm pairs between two 10 mm pairs on either side; numbers of no real machine."""
    boundaries = np.concatenate([[-45.0, -35.0], np.linspace(-25.0, 25.0, 11), [35.0, 45.0]])
    mlc = Mlc(
        leaf_boundaries_mm=boundaries,
        max_position_mm=200.0,
        max_overtravel_mm=160.0,
        max_span_mm=150.0,
        min_gap_mm=0.5,
        interdigitation=True,
        max_leaf_speed_mm_s=25.0,
        transmission=0.015,
        interleaf_transmission=0.015,
        tongue_mm=0.0,
        dosimetric_leaf_gap_mm=0.0,
    )
    jaws = Jaws(
        x1_range_mm=(-200.0, 20.0),
        x2_range_mm=(-20.0, 200.0),
        y1_range_mm=(-45.0, 20.0),
        y2_range_mm=(-20.0, 45.0),
        transmission=0.004,
        max_speed_mm_s=25.0,
    )
    return Machine(
        machine_id="example",
        version="1",
        title="Example machine",
        status="example, not commissioned",
        sources=("made up",),
        manufacturer="none",
        model_name="example",
        sad_mm=1000.0,
        mlc=mlc,
        jaws=jaws,
        beam=_example_beam_model(),
        max_gantry_speed_deg_s=6.0,
        max_dose_rate_mu_min=600.0,
        min_segment_mu=2.0,
        min_segment_area_cm2=1.0,
        max_beam_mu=1000.0,
        gantry_range_deg=(-180.0, 180.0),
        arc=EXAMPLE_ARC,
        sha256="",
    )


def _example_beam_model() -> BeamModel:
    return BeamModel(
        energy_id="6X",
        nominal_energy_mv=6.0,
        energy_mev=np.array([2.0]),
        photon_fraction=np.array([1.0]),
        energy_fluence_per_mu_mev_cm2=1.0,
        source_sigma_x_mm=0.0,
        source_sigma_y_mm=0.0,
        collimator_distance_mm=500.0,
        off_axis_radius_mm=np.array([0.0, 200.0]),
        off_axis_factor=np.array([1.0, 1.0]),
        softening_radius_mm=np.array([0.0, 300.0]),
        softening_mu_ratio=np.array([1.0, 1.0]),
        extra_focal=NO_EXTRA_FOCAL_SOURCE,
        contamination=NO_CONTAMINATION,
        sha256="",
    )


def example_aperture(left_mm: float, right_mm: float) -> Aperture:
    """The ten central pairs open from `left_mm` to `right_mm`, the others closed under the X2 jaw."""
    x1, x2 = np.full(14, 45.0), np.full(14, 45.5)
    x1[2:12], x2[2:12] = left_mm, right_mm
    return Aperture(x1, x2, -40.0, 40.0, -25.0, 25.0)


def example_plan() -> DeliverablePlan:
    """Two beams of two segments each on the example machine."""
    beams = []
    for i, angle in enumerate((0.0, 90.0)):
        beam = Beam(f"Beam {i + 1}", angle, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
        segments = (Segment(i, example_aperture(-20.0, 20.0), 60.0), Segment(i, example_aperture(-10.0, 20.0), 40.0))
        beams.append(step_and_shoot_beam(i + 1, beam, segments))
    return DeliverablePlan("example", "6X", 30, tuple(beams))


def example_context() -> PlanContext:
    """The example plan in a water cube of 120 mm with a target of 40 mm at its centre and a dose that fits."""
    grid = Grid((30, 30, 30), (4.0, 4.0, 4.0), (-58.0, -58.0, -58.0))
    target = np.zeros(grid.shape_zyx, dtype=bool)
    target[10:20, 10:20, 10:20] = True
    body = np.zeros(grid.shape_zyx, dtype=bool)
    body[1:-1, 1:-1, 1:-1] = True
    structures = StructureSet(grid, (Structure("External", "EXTERNAL", body), Structure("PTV_60", "PTV", target)))
    total = np.where(target, PRESCRIBED_GY, np.where(body, 20.0, 0.0)).astype(np.float32)
    water = body.astype(np.float32)
    half = Dose(grid, (total / 2).astype(np.float32))
    return PlanContext(
        example_plan(),
        example_machine(),
        DensityImage(grid, water, water),
        Dose(grid, total),
        (PartDose((1,), half), PartDose((2,), half)),
        structures,
        _example_prescription(),
    )


def with_beam(context: PlanContext, index: int, beam: PlanBeam) -> PlanContext:
    """The context with one beam of its plan exchanged."""
    beams = tuple(beam if i == index else old for i, old in enumerate(context.plan.beams))
    return replace(context, plan=replace(context.plan, beams=beams))


def with_control_point(context: PlanContext, index: int, point: ControlPoint) -> PlanContext:
    """The context with one control point of its plan's first beam exchanged."""
    beam = context.plan.beams[0]
    points = tuple(point if i == index else old for i, old in enumerate(beam.control_points))
    return with_beam(context, 0, replace(beam, control_points=points))


def with_first_segment(context: PlanContext, aperture: Aperture) -> PlanContext:
    """The context with the aperture of its plan's first segment exchanged."""
    first, second = context.plan.beams[0].control_points[:2]
    changed = with_control_point(context, 0, replace(first, aperture=aperture))
    return with_control_point(changed, 1, replace(second, aperture=aperture))


def _example_prescription() -> Prescription:
    goal = Goal("PTV_60", parse_metric("D95[Gy]"), ">=", 57.0, 1, "made up", "unverified")
    protocol = Protocol(
        protocol_id="example",
        version="1",
        title="Example",
        status="unverified",
        sources=("made up",),
        fractions=30,
        levels=(PrescriptionLevel("PTV_60", PRESCRIBED_GY, ("PTV_60",)),),
        nested_targets=False,
        target_skin_crop_mm=0.0,
        target_margin_mm=5.0,
        organs=(),
        helpers=(),
        goals=(goal,),
        beams=BeamArrangement((0.0, 90.0), 0.0),
        normalisation=None,
        beamlet_mm=5.0,
        dose_grid_mm=4.0,
        optimisation_grid_mm=5.0,
        segments_per_beam=2,
        sha256="",
    )
    return Prescription(protocol, (PrescribedTarget("PTV_60", PRESCRIBED_GY),), (goal,), ())
