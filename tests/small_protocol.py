"""A small protocol in which every rule has something to do, to be changed in one thing each."""

from __future__ import annotations

from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.prescription import (
    BeamArrangement,
    HelperRule,
    OrganRule,
    PrescriptionLevel,
    Protocol,
)


def goal(structure: str, metric: str, limit: float) -> Goal:
    return Goal(structure, parse_metric(metric), "<=", limit, 2, "a paper", "unverified")


PROTOCOL = Protocol(
    protocol_id="test_site",
    version="1",
    title="A test site",
    status="unverified",
    sources=("a paper",),
    fractions=35,
    levels=(
        PrescriptionLevel("PTV_7000", 70.0, ("PTV_?70(00)?", "Boost")),
        PrescriptionLevel("PTV_5600", 56.0, ("PTV_?56(00)?",), optional=True),
    ),
    nested_targets=True,
    target_skin_crop_mm=4.0,
    target_margin_mm=5.0,
    organs=(
        OrganRule("SpinalCord", ("my cord",)),
        OrganRule("Parotid_L", ("Parotid_L",)),
        OrganRule("Parotid_R", ("Parotid_R",)),
    ),
    helpers=(
        HelperRule("zPTV_All", "union", ("PTV_7000", "PTV_5600")),
        HelperRule("PTV!_5600", "subtract", ("PTV_5600",), ("PTV_7000",), inner_mm=4.0),
        HelperRule("SpinalCord_PRV05", "expand", ("SpinalCord",), outer_mm=5.0),
        HelperRule("zRing_1", "ring", ("zPTV_All",), inner_mm=4.0, outer_mm=12.0),
    ),
    goals=(goal("SpinalCord", "D0.03cc[Gy]", 45.0), goal("Larynx", "Mean[Gy]", 45.0), goal("zRing_1", "Max[Gy]", 60.0)),
    beams=BeamArrangement((0.0, 120.0, 240.0), 0.0),
    normalisation=None,
    beamlet_mm=5.0,
    dose_grid_mm=2.5,
    optimisation_grid_mm=4.0,
    segments_per_beam=5,
    sha256="0" * 64,
)
