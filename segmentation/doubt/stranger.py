"""A CT that the model was not made for: too short, no CT, a phantom, another part of the body, a child, turned round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import Doubt, Float3
from segmentation.doubt.body import Body
from segmentation.doubt.envelopes import Range
from segmentation.doubt.plausibility import figure
from segmentation.doubt.scan import METAL_HU, scan_measures

MIN_SLICES, MIN_LENGTH_MM = 12, 60.0
# No airway, sinus or bowel gas at all.
NO_GAS_SHARE = 0.002
NO_BONE_SHARE = 0.01
UNIFORM_HU = 30.0
METAL_CC = 10.0
LUNGS_HIGH_SHARE = 0.6
# Nothing more is to be said of what is no head and neck: the other ranges do not apply to it.
_NO_HEAD_AND_NECK = frozenset({"LOOKS_LIKE_PHANTOM", "OTHER_BODY_REGION"})


@dataclass(frozen=True, slots=True)
class Rule:
    """Beyond the usual range of `measure`, above (+1) or below (-1) it, means `code`."""

    measure: str
    side: int
    code: str
    words: str
    unit: str
    meaning: str


RULES = (
    Rule("area_narrow_cm2", 1, "OTHER_BODY_REGION", "narrowest cross-section", "cm²", "no neck or head is in the scan"),
    Rule("lung_slices_share", 1, "OTHER_BODY_REGION", "share of slices with lung", "", "the scan is mostly thorax"),
    Rule("air_share", 1, "OTHER_BODY_REGION", "share of air in the body", "", "the scan is mostly thorax"),
    Rule("area_cm2", -1, "SMALL_PATIENT", "middle cross-section", "cm²", "a child, or a part of a body"),
    Rule("soft_median_hu", -1, "NOT_CT_LIKE", "soft tissue", "HU", "the CT numbers are not Hounsfield units"),
    Rule("soft_median_hu", 1, "NOT_CT_LIKE", "soft tissue", "HU", "the CT numbers are not Hounsfield units"),
    Rule("bone_share", 1, "NOT_CT_LIKE", "share of bone", "", "the CT numbers are not Hounsfield units"),
    Rule("gas_depth_share", 1, "FRONT_BACK_REVERSED", "depth of the airway (0 to 1)", "", "front and back reversed"),
    Rule("bone_above_below", -1, "HEAD_FOOT_REVERSED", "bone above less bone below", "", "head and foot reversed"),
)


def stranger_doubts(
    hu: NDArray[np.float32], body: Body, spacing_zyx_mm: Float3, usual: Mapping[str, Range], limit_excess: float
) -> tuple[Doubt, ...]:
    """Doubts about the whole CT, from the CT alone: each code once."""
    if body.ends is None:
        return (Doubt("NO_PATIENT", None, "hold", "no patient is to be seen in the CT"),)
    measures = scan_measures(hu, body, spacing_zyx_mm)
    at = _middle(body)
    doubts = _short(body, measures, at) + _phantom(measures, at) + _metal(hu, body, measures) + _lungs_on_top(measures, at)
    if {doubt.code for doubt in doubts} & _NO_HEAD_AND_NECK:
        return tuple(doubts)
    for rule in RULES:
        if rule.measure in measures and rule.measure in usual:
            excess = rule.side * usual[rule.measure].excess(measures[rule.measure])
            told = {doubt.code for doubt in doubts}
            if excess > limit_excess and rule.code not in told and not told & _NO_HEAD_AND_NECK:
                doubts.append(Doubt(rule.code, None, "hold", _message(rule, measures, usual), at))
    return tuple(doubts)


def _short(body: Body, measures: Mapping[str, float], at: tuple[int, int, int]) -> list[Doubt]:
    slices = int(body.imaged.sum())
    if slices >= MIN_SLICES and measures["length_mm"] >= MIN_LENGTH_MM:
        return []
    message = f"the scan shows {measures['length_mm']:.0f} mm of the patient; at least {MIN_LENGTH_MM:.0f} mm are needed"
    return [Doubt("SCAN_TOO_SHORT", None, "hold", message, at)]


def _phantom(measures: Mapping[str, float], at: tuple[int, int, int]) -> list[Doubt]:
    uniform = measures.get("soft_spread_hu", 0.0) < UNIFORM_HU
    hollow = measures["air_share"] >= NO_GAS_SHARE
    bony = measures["bone_share"] >= NO_BONE_SHARE
    if uniform or not bony:
        message = (
            f"bone is {100 * measures['bone_share']:.1f} % of the body and its soft tissue varies by "
            f"{measures.get('soft_spread_hu', 0.0):.0f} HU: a phantom, or no CT of a patient"
        )
        return [Doubt("LOOKS_LIKE_PHANTOM", None, "hold", message, at)]
    if not hollow:
        return [Doubt("OTHER_BODY_REGION", None, "hold", "no airway is to be seen: not a head and neck", at)]
    return []


def _metal(hu: NDArray[np.float32], body: Body, measures: Mapping[str, float]) -> list[Doubt]:
    if measures["metal_cc"] <= METAL_CC:
        return []
    z, y, x = (int(i) for i in np.argwhere(body.mask & (hu > METAL_HU))[0])
    message = f"{measures['metal_cc']:.0f} cm³ of metal: contours near its streaks are less sure"
    return [Doubt("HEAVY_METAL", None, "flag", message, (z, y, x))]


def _lungs_on_top(measures: Mapping[str, float], at: tuple[int, int, int]) -> list[Doubt]:
    height = measures.get("lung_height_share", 0.0)
    thorax = measures["lung_slices_share"] > 0.5
    if height <= LUNGS_HIGH_SHARE or thorax:
        return []
    message = f"the lungs lie in the upper part of the scan ({100 * height:.0f} % of its height): head and foot reversed"
    return [Doubt("HEAD_FOOT_REVERSED", None, "hold", message, at)]


def _message(rule: Rule, measures: Mapping[str, float], usual: Mapping[str, Range]) -> str:
    low, high = (figure(bound) for bound in usual[rule.measure].usual)
    unit = f" {rule.unit}" if rule.unit else ""
    return f"{rule.words} {figure(measures[rule.measure])}{unit}, usually {low} to {high}{unit}: {rule.meaning}"


def _middle(body: Body) -> tuple[int, int, int]:
    found = np.flatnonzero(body.imaged)
    k = int(found[found.size // 2])
    return k, int((body.front[k] + body.back[k]) // 2), int((body.right[k] + body.left[k]) // 2)
