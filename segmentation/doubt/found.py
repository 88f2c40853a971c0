"""Organs that were not found: is their place in the scan?"""

from __future__ import annotations

from collections.abc import Mapping

from segmentation.contract import Doubt
from segmentation.doubt.body import Body
from segmentation.doubt.envelopes import Envelopes
from segmentation.doubt.measures import Shape, anchors, expected_zyx_mm
from segmentation.evidence import Evidence

# Nearer to an end of the scan than this, an organ may well lie beyond it.
MARGIN_MM = 15.0


def missing_doubts(evidence: Evidence, body: Body, shapes: Mapping[str, Shape], envelopes: Envelopes) -> tuple[Doubt, ...]:
    """ORGAN_NOT_FOUND (hold) when the others put it into the scan or nothing can be said, else ORGAN_OUTSIDE_SCAN (flag)."""
    points = anchors(shapes)
    ends = body.ends or (0, evidence.hu.shape[0] - 1)
    low_mm, high_mm = (k * evidence.spacing_zyx_mm[0] for k in ends)
    doubts = []
    for name in evidence.names:
        if name in shapes:
            continue
        place = expected_zyx_mm(name, points, envelopes.offsets_zyx_mm)
        if place is None:
            message = f"{name} was not found, nor enough of its neighbours to say whether it lies in the scan"
            doubts.append(Doubt("ORGAN_NOT_FOUND", name, "hold", message))
            continue
        beyond_mm = max(low_mm + MARGIN_MM - place[0], place[0] - high_mm + MARGIN_MM)
        if beyond_mm > 0:
            end = "lower" if place[0] < (low_mm + high_mm) / 2 else "upper"
            end = "lower" if place[0] < (low_mm + high_mm) / 2 else "upper"
            message = f"{name} was not found; it probably lies beyond the {end} end of the scan"
            doubts.append(Doubt("ORGAN_OUTSIDE_SCAN", name, "flag", message))
            continue
        index = [
            min(max(round(mm / step), 0), n - 1)
            for mm, step, n in zip(place, evidence.spacing_zyx_mm, evidence.hu.shape, strict=True)
        ]
        message = f"{name} was not found, though the scan covers its place"
        doubts.append(Doubt("ORGAN_NOT_FOUND", name, "hold", message, (index[0], index[1], index[2])))
    return tuple(doubts)
