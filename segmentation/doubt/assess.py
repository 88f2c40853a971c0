"""From what a model knows to what it says of itself: a confidence for each structure, and doubts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segmentation.contract import Doubt, Severity
from segmentation.doubt.agreement import agreement_of
from segmentation.doubt.body import body_of
from segmentation.doubt.calibration import Calibration, Limits, inputs_of
from segmentation.doubt.edges import cut_doubts, leak_doubts
from segmentation.doubt.envelopes import Envelopes
from segmentation.doubt.found import missing_doubts
from segmentation.doubt.measures import OPEN_ENDED, Shape, shapes_of
from segmentation.doubt.pieces import overlap_doubts, piece_doubts
from segmentation.doubt.plausibility import Oddity, oddities, pair_doubts, plausibility_doubts, total
from segmentation.doubt.sides import reversal_doubts, side_doubts
from segmentation.doubt.stranger import stranger_doubts
from segmentation.evidence import Evidence

# The network recognises little: so few of its structures are believed.
LOST_SHARE = 0.34


@dataclass(frozen=True, slots=True)
class Assessment:
    """`confidence`: expected Dice of each structure that was found. Indices of doubts are of the working grid (z, y, x)."""

    confidence: Mapping[str, float]
    doubts: tuple[Doubt, ...]


def assess(evidence: Evidence, envelopes: Envelopes, calibration: Calibration) -> Assessment:
    """Judge a segmentation. Each reason is a doubt of its own; each code appears at most once for a structure."""
    body = body_of(evidence.hu, evidence.spacing_zyx_mm)
    shapes = shapes_of(evidence, body)
    odd = oddities(shapes, envelopes)
    limits = calibration.limits
    confidence = {
        name: calibration.expected_dice(name, inputs) for name, inputs in confidence_inputs(evidence, shapes, odd).items()
    }
    found = (
        *stranger_doubts(evidence.hu, body, evidence.spacing_zyx_mm, envelopes.scan, limits.scan_excess),
        *reversal_doubts(shapes, envelopes.offsets_zyx_mm),
        *_lost(evidence, confidence, limits),
        *missing_doubts(evidence, body, shapes, envelopes),
        *_unsure(shapes, confidence, limits),
        *side_doubts(shapes),
        *plausibility_doubts(shapes, odd, limits),
        *pair_doubts(shapes, envelopes),
        *piece_doubts(evidence, shapes),
        *overlap_doubts(evidence, shapes),
        *cut_doubts(evidence, body, shapes, envelopes),
        *leak_doubts(evidence, body, shapes),
    )
    once = {(doubt.code, doubt.structure): doubt for doubt in reversed(found)}
    return Assessment(confidence, tuple(reversed(once.values())))


def confidence_inputs(
    evidence: Evidence, shapes: Mapping[str, Shape], odd: Mapping[str, tuple[Oddity, ...]]
) -> dict[str, np.ndarray]:
    """Inputs of the confidence of each structure found, in the order of `calibration.INPUTS`."""
    return {
        name: inputs_of(agreement_of(evidence, name), total(odd[name]), shape.cut and name not in OPEN_ENDED)
        for name, shape in shapes.items()
    }


def _unsure(shapes: Mapping[str, Shape], confidence: Mapping[str, float], limits: Limits) -> list[Doubt]:
    doubts = []
    for name, value in confidence.items():
        if value < limits.flag_confidence:
            severity: Severity = "hold" if value < limits.hold_confidence else "flag"
            message = (
                f"{name}: expected agreement with a careful reader is {100 * value:.0f} % (Dice); "
                f"below {100 * limits.flag_confidence:.0f} % it needs a person's eye"
            )
            doubts.append(Doubt("LOW_CONFIDENCE", name, severity, message, shapes[name].centre))
    return doubts


def _lost(evidence: Evidence, confidence: Mapping[str, float], limits: Limits) -> list[Doubt]:
    believed = [name for name, value in confidence.items() if value >= limits.hold_confidence and name != "External"]
    organs = [name for name in evidence.names if name != "External"]
    if not organs or len(believed) >= LOST_SHARE * len(organs):
        return []
    message = f"only {len(believed)} of {len(organs)} organs are recognised with confidence: the CT may show something else"
    return [Doubt("LITTLE_RECOGNISED", None, "hold", message)]
