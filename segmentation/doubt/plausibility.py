"""Volume, place, shape and density of an organ against the training patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segmentation.contract import Doubt, Severity
from segmentation.doubt.calibration import Limits
from segmentation.doubt.envelopes import Envelopes, Range
from segmentation.doubt.measures import OPEN_ENDED, PAIRS, Shape, off_mm, pair_measures


@dataclass(frozen=True, slots=True)
class Measure:
    """What a measure is called in a message. `whole`: means something only of an organ that is in the scan entirely."""

    code: str
    words: str
    unit: str
    whole: bool = False
    may_hold: bool = True


MEASURES = {
    "volume_cc": Measure("UNUSUAL_VOLUME", "volume", "cm³", whole=True),
    "extent_z_mm": Measure("UNUSUAL_SHAPE", "height", "mm", whole=True),
    "area_mean_cm2": Measure("UNUSUAL_SHAPE", "mean cross-section", "cm²", whole=True),
    "area_max_cm2": Measure("UNUSUAL_SHAPE", "largest cross-section", "cm²", whole=True),
    "elongation": Measure("UNUSUAL_SHAPE", "length over thickness", "", whole=True),
    "left_of_middle_mm": Measure("UNUSUAL_POSITION", "distance to the left of the midline", "mm"),
    "depth_share": Measure("UNUSUAL_POSITION", "depth from the front (0) to the back (1) of the body", ""),
    "up_mm": Measure("UNUSUAL_POSITION", "height above where the other organs put it", "mm"),
    "back_mm": Measure("UNUSUAL_POSITION", "distance behind where the other organs put it", "mm"),
    "left_mm": Measure("UNUSUAL_POSITION", "distance to the left of where the other organs put it", "mm"),
    "hu_mean": Measure("UNUSUAL_DENSITY", "CT number", "HU", may_hold=False),
}
_PAIR_LIMIT = 1.0  # widths of the usual range


@dataclass(frozen=True, slots=True)
class Oddity:
    """A measure outside the usual range, by `excess` of its widths (negative below)."""

    key: str
    value: float
    usual: Range
    excess: float


def oddities(shapes: Mapping[str, Shape], envelopes: Envelopes) -> dict[str, tuple[Oddity, ...]]:
    """What is outside the usual range of each structure, the oddest first."""
    off = off_mm(shapes, envelopes.offsets_zyx_mm)
    out = {}
    for name, shape in shapes.items():
        values = {**shape.measures, **off.get(name, {})}
        found = []
        for key, usual in envelopes.structures.get(name, {}).items():
            if key in MEASURES and key in values:
                excess = usual.excess(values[key])
                # Cut off by the scan it is smaller than it is, never larger. A run-on organ's section stands for itself.
                too_small_is_no_news = MEASURES[key].whole and shape.cut and name not in OPEN_ENDED
                if excess != 0.0 and not (too_small_is_no_news and (excess < 0 or key == "elongation")):
                    found.append(Oddity(key, values[key], usual, excess))
        out[name] = tuple(sorted(found, key=lambda odd: -abs(odd.excess)))
    return out


def total(odd: tuple[Oddity, ...]) -> float:
    """One figure for how odd a structure is: excesses added, the CT number left out (contrast and dental metal move it)."""
    return float(sum(abs(o.excess) for o in odd if MEASURES[o.key].may_hold))


def plausibility_doubts(
    shapes: Mapping[str, Shape], odd: Mapping[str, tuple[Oddity, ...]], limits: Limits
) -> tuple[Doubt, ...]:
    """At most one doubt of each code and structure: its oddest measure."""
    doubts = []
    for name, found in odd.items():
        told = set()
        for oddity in found:
            code = MEASURES[oddity.key].code
            if abs(oddity.excess) > limits.flag_excess and code not in told:
                told.add(code)
                held = MEASURES[oddity.key].may_hold and abs(oddity.excess) > limits.hold_excess
                severity: Severity = "hold" if held else "flag"
                doubts.append(Doubt(code, name, severity, _message(name, oddity), shapes[name].centre))
    return tuple(doubts)


def pair_doubts(shapes: Mapping[str, Shape], envelopes: Envelopes) -> tuple[Doubt, ...]:
    """PAIR_ASYMMETRIC: the two organs of a pair differ in volume, or lie nearer or farther apart, as in few patients."""
    doubts = []
    for left, right in PAIRS:
        usual = envelopes.structures.get(left, {})
        if left not in shapes or right not in shapes or shapes[left].cut or shapes[right].cut:
            continue
        measured = pair_measures(shapes[left], shapes[right])
        for key, words in (("log_volume_ratio", _ratio_words), ("distance_mm", _distance_words)):
            if key in usual and abs(usual[key].excess(measured[key])) > _PAIR_LIMIT:
                message = words(left, right, shapes, measured[key], usual[key])
                smaller = min((left, right), key=lambda name: shapes[name].measures["volume_cc"])
                doubts.append(Doubt("PAIR_ASYMMETRIC", smaller, "flag", message, shapes[smaller].centre))
    return tuple(doubts)


def _message(name: str, odd: Oddity) -> str:
    measure = MEASURES[odd.key]
    low, high = (figure(bound) for bound in odd.usual.usual)
    unit = f" {measure.unit}" if measure.unit else ""
    return f"{name}: {measure.words} {figure(odd.value)}{unit}, usually {low} to {high}{unit}"


def figure(value: float) -> str:
    """A number with as many digits as a reader needs."""
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}" if abs(value) >= 2 else f"{value:.2f}"


def _ratio_words(left: str, right: str, shapes: Mapping[str, Shape], _: float, usual: Range) -> str:
    volumes = sorted((shapes[n].measures["volume_cc"], n) for n in (left, right))
    (small, one), (large, other) = volumes
    limit = max(abs(bound) for bound in usual.usual)
    return (
        f"{other} has {figure(large)} cm³ and {one} {figure(small)} cm³: {large / small:.1f} times as much, "
        f"usually at most {2.718281828**limit:.1f} times"
    )


def _distance_words(left: str, right: str, _: Mapping[str, Shape], value: float, usual: Range) -> str:
    low, high = usual.usual
    return f"{left} and {right} lie {value:.0f} mm apart, usually {low:.0f} to {high:.0f} mm"
