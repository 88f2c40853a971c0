"""Left and right, front and back, head and foot: organs against the body's midline and against each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from segmentation.contract import Doubt, Float3
from segmentation.doubt.measures import PAIRS, Shape, anchors

# Further over the midline than this a tilted head does not bring a parotid.
OVER_MIDDLE_MM = 10.0
# Only organs that lie so far apart tell a direction; at least so many pairs of them must speak.
TELLING_MM = 30.0
MIN_PAIRS = 3

_REVERSED = (
    (0, "HEAD_FOOT_REVERSED", "above and below", "head to foot"),
    (1, "FRONT_BACK_REVERSED", "in front and behind", "front to back"),
)


def side_doubts(shapes: Mapping[str, Shape]) -> tuple[Doubt, ...]:
    """SIDES_SWAPPED when both organs of a pair lie on the other's side, WRONG_SIDE when one does."""
    doubts = []
    for left, right in PAIRS:
        strays = {n: _over_middle_mm(n, shapes[n]) for n in (left, right) if n in shapes}
        wrong = [n for n, over_mm in strays.items() if over_mm > OVER_MIDDLE_MM]
        if len(wrong) == 2:
            message = f"{left} lies on the right and {right} on the left of the body's midline: left and right are swapped"
            doubts += [Doubt("SIDES_SWAPPED", n, "hold", message, shapes[n].centre) for n in wrong]
        elif wrong:
            name, side = wrong[0], "right" if wrong[0] == left else "left"
            message = f"{name} lies {strays[name]:.0f} mm to the {side} of the body's midline, on the wrong side"
            doubts.append(Doubt("WRONG_SIDE", name, "hold", message, shapes[name].centre))
    return tuple(doubts)


def reversal_doubts(shapes: Mapping[str, Shape], offsets_zyx_mm: Mapping[str, Mapping[str, Float3]]) -> tuple[Doubt, ...]:
    """The order of the organs along the patient, or from front to back, is mostly the other way round."""
    points = anchors(shapes)
    doubts = []
    for axis, code, order, way in _REVERSED:
        votes = []
        for name, other in combinations(points, 2):
            usual_mm = offsets_zyx_mm.get(name, {}).get(other, (0.0, 0.0, 0.0))[axis]
            if abs(usual_mm) >= TELLING_MM:
                votes.append((points[name][axis] - points[other][axis]) * usual_mm < 0)
        if len(votes) >= MIN_PAIRS and sum(votes) > len(votes) / 2:
            message = (
                f"{sum(votes)} of {len(votes)} pairs of organs lie the other way round ({order}): "
                f"the CT or its contours may be reversed {way}"
            )
            doubts.append(Doubt(code, None, "hold", message, next(iter(shapes.values())).centre))
    return tuple(doubts)


def _over_middle_mm(name: str, shape: Shape) -> float:
    to_left_mm = shape.measures["left_of_middle_mm"]
    return -to_left_mm if name.endswith("_L") else to_left_mm
