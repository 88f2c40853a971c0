"""The confidence of a structure, the Dice to expect of it, and how much oddity is too much: constants fitted after training.

`calibration.json` ships with a model and is made by `segmentation.training.calibrate` on patients that neither trained nor
validate the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import ModelUnverified
from segmentation.doubt.envelopes import number, numbers, only_keys, read_json, table

FILE_NAME, FORMAT = "calibration.json", "rtplan-calibration-1"
# The order of the weights. `oddity` is the sum of what lies beyond the envelopes, see `plausibility`.
INPUTS = ("expected_dice", "members_dice", "levels_dice", "p_inside", "shell", "removed_share", "oddity", "cut")
_AS_LOGIT = frozenset({"expected_dice", "members_dice", "levels_dice", "p_inside"})
_NEVER_SURER = 0.98
MAX_ODDITY = 4.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a doubt begins. Confidence below; beyond the usual range by so many of its widths."""

    flag_confidence: float
    hold_confidence: float
    flag_excess: float
    hold_excess: float
    scan_excess: float


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Expected Dice = logistic(intercept of the structure + weights . inputs), at most 0.98."""

    weights: tuple[float, ...]  # in the order of INPUTS
    intercept: float
    intercepts: Mapping[str, float]  # added to `intercept`
    limits: Limits

    def expected_dice(self, name: str, inputs: NDArray[np.float64]) -> float:
        """Confidence of a structure whose inputs (see `inputs_of`) are given."""
        logit = self.intercept + self.intercepts.get(name, 0.0) + float(np.dot(self.weights, inputs))
        return min(_NEVER_SURER, float(1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0)))))


def inputs_of(agreement: Mapping[str, float], oddity: float, cut: bool) -> NDArray[np.float64]:
    """Inputs of the confidence, in the order of INPUTS, each about between -4 and 4."""
    values = {
        **agreement,
        "shell": float(np.log1p(agreement["shell_ratio"])),
        "oddity": min(oddity, MAX_ODDITY),
        "cut": float(cut),
    }
    return np.array([_logit(values[key]) if key in _AS_LOGIT else values[key] for key in INPUTS])


def _logit(share: float) -> float:
    clipped = min(max(share, 0.02), 0.995)
    return float(np.log(clipped / (1.0 - clipped)))


def load_calibration(folder: Path) -> Calibration:
    """Read `folder`/calibration.json. Raises ModelUnverified when it is missing or is not one."""
    return calibration_of(read_json(folder / FILE_NAME, FORMAT), str(folder / FILE_NAME))


def calibration_of(data: Mapping[str, Any], where: str) -> Calibration:
    """Calibration of parsed JSON. Raises ModelUnverified with the place at fault."""
    only_keys(data, {"format", "inputs", "weights", "intercept", "intercepts", "limits"}, where)
    if data["inputs"] != list(INPUTS):
        raise ModelUnverified(f"{where}: inputs {data['inputs']}, expected {list(INPUTS)}")
    weights = numbers(data["weights"], len(INPUTS), f"{where}: weights")
    intercepts = {name: number(v, f"{where}: {name}") for name, v in table(data, "intercepts", where).items()}
    limits = _limits(table(data, "limits", where), f"{where}: limits")
    return Calibration(weights, number(data["intercept"], f"{where}: intercept"), intercepts, limits)


def dumped(calibration: Calibration) -> dict[str, Any]:
    """What `calibration_of` reads back."""
    limits = {key: getattr(calibration.limits, key) for key in Limits.__dataclass_fields__}
    return {
        "format": FORMAT,
        "inputs": list(INPUTS),
        "weights": list(calibration.weights),
        "intercept": calibration.intercept,
        "intercepts": dict(calibration.intercepts),
        "limits": limits,
    }


def _limits(data: Mapping[str, Any], where: str) -> Limits:
    only_keys(data, set(Limits.__dataclass_fields__), where)
    limits = Limits(**{key: number(value, f"{where}: {key}") for key, value in data.items()})
    if not 0.0 <= limits.hold_confidence <= limits.flag_confidence <= 1.0:
        raise ModelUnverified(f"{where}: confidences must rise from hold to flag, within 0 and 1")
    if not 0.0 < limits.flag_excess <= limits.hold_excess or limits.scan_excess <= 0.0:
        raise ModelUnverified(f"{where}: excesses must be positive and rise from flag to hold")
    return limits
