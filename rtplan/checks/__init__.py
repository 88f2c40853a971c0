"""Shelf: one plan check per file. Each defines PLUGIN with `kind`, `check(context)` and `example()` (good, bad)."""

from __future__ import annotations

from rtplan.domain.context import PlanContext
from rtplan.domain.verdict import CheckResult
from rtplan.registry import shelf


def run_checks(context: PlanContext) -> tuple[CheckResult, ...]:
    """Every check of the shelf on one plan, in order of the file names. A check that breaks down has failed."""
    return tuple(_run(kind, plugin, context) for kind, plugin in shelf(__name__).items())


def _run(kind: str, plugin: object, context: PlanContext) -> CheckResult:
    try:
        result: CheckResult = plugin.check(context)  # type: ignore[attr-defined]
    except Exception as error:  # A gate fails closed: whatever breaks a check, the plan has not passed it.
        return CheckResult(kind, False, f"the check could not be made: {type(error).__name__}: {error}")
    return result
