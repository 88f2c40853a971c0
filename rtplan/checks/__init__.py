"""Shelf: one plan check per file. Each defines PLUGIN with `kind`, `check(context)` and `example()` (good, bad)."""

from __future__ import annotations

from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.verdict import CheckResult
from rtplan.registry import shelf

# Checks that need no dose, structures or prescription: what can be said of a plan from elsewhere.
OF_DELIVERY = (
    *(
        "APERTURE_OPEN",
        "ARC_DOSE_RATE",
        "ARC_MU_PER_DEGREE",
        "BEAM_ENERGY",
        "GANTRY_PATH",
        "HIGH_DENSITY",
        "INTERDIGITATION",
    ),
    *("JAW", "LARGE_FIELD", "LEAF_SPEED", "METERSET", "MLC_GAP", "MLC_PAIRS", "MLC_SPAN", "MLC_TRAVEL", "MU_RANGE"),
    *("SEGMENT_AREA", "SMALL_FIELD"),
)


def run_checks(context: PlanContext) -> tuple[CheckResult, ...]:
    """Every check of the shelf on one plan, in order of the file names. A check that breaks down has failed."""
    return tuple(_run(kind, plugin, context) for kind, plugin in shelf(__name__).items())


def run_delivery_checks(delivery: Delivery) -> tuple[CheckResult, ...]:
    """The checks of `OF_DELIVERY` on what is to be delivered. A check that breaks down has failed."""
    plugins = shelf(__name__)
    return tuple(_run(kind, plugins[kind], delivery) for kind in OF_DELIVERY)


def _run(kind: str, plugin: object, context: Delivery) -> CheckResult:
    try:
        result: CheckResult = plugin.check(context)  # type: ignore[attr-defined]
    except Exception as error:  # A gate fails closed: whatever breaks a check, the plan has not passed it.
        return CheckResult(kind, False, f"the check could not be made: {type(error).__name__}: {error}")
    return result
