"""Goals as plain values: what was reached, what was lost where, and whether more work could win what is missed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtplan.domain.goals import Certificate, Goal, GoalResult
from rtplan.domain.ledger import Ledger, LedgerRow, Stage
from rtplan.domain.structures import StructureSet

_MARGINS = ("PTV", "CONTROL")  # a shift is what these volumes are for: PTVs, and PRVs among the helpers


def goal_records(
    results: Sequence[GoalResult], certificates: Sequence[Certificate], ledger: Ledger, structures: StructureSet
) -> list[dict[str, Any]]:
    """A record for each goal, in their order. Raises ValueError when the ledger is of other goals."""
    if [row.goal for row in ledger.rows] != [result.goal for result in results]:
        raise ValueError("the ledger is of other goals than the verification")
    proved = {c.goal: c for c in certificates}
    margins = {s.name for s in structures if s.kind in _MARGINS}
    records = []
    for result, row in zip(results, ledger.rows, strict=True):
        record = _record(result, proved.get(result.goal), row)
        record["outlook"] = outlook(row, proved.get(result.goal), ledger)
        record["at_risk"] = bool(result.met and row.worst and not row.worst.met and result.goal.structure not in margins)
        records.append(record)
    return records


def _record(result: GoalResult, certificate: Certificate | None, row: LedgerRow) -> dict[str, Any]:
    """One goal: `difference` is achieved minus limit, `bound` what it provably cannot be better than, in its unit."""
    goal, worst = result.goal, row.worst
    conflict = certificate.conflict if certificate else None
    return {
        "structure": goal.structure,
        "metric": goal.metric.text,
        "sense": goal.sense,
        "limit": goal.limit,
        "unit": goal.metric.unit,
        "value": result.value,
        "difference": None if result.value is None else result.value - goal.limit,
        "bound": certificate.bound if certificate else None,
        "conflict": None if conflict is None else {"with": _in_words(conflict.goal), "bound": conflict.bound},
        "met": result.met,
        "stages": {s.stage: {"value": s.value, "met": goal.met_by(s.value)} for s in row.stages},
        "shifted": None if worst is None else {"value": worst.value, "towards": worst.towards, "met": worst.met},
        "priority": goal.priority,
        "ideal": goal.ideal,
        "source": goal.source,
        "status": goal.status,
    }


def outlook(row: LedgerRow, certificate: Certificate | None, ledger: Ledger) -> str | None:
    """Of a missed goal, in sentences: where it was lost, and whether more work on this plan could win it. Else None."""
    final = value_at(row, "final")
    if final is None or row.goal.met_by(final):
        return None
    proved = "No bound is proved for it." if certificate is None else _within_reach(certificate, final)
    return f"{_where_lost(row, ledger)} {proved}".strip()


def _where_lost(row: LedgerRow, ledger: Ledger) -> str:
    """The stage at which a missed goal was lost; an ideal fluence that met it at the cost of a higher goal says so."""
    goal, ideal, sequenced = row.goal, value_at(row, "ideal_fluence"), value_at(row, "sequenced")
    if ideal is None or sequenced is None:
        return ""
    if not goal.met_by(ideal):
        return f"The ideal fluence misses it too ({_figure(ideal, goal)}): leaves and segments are not why."
    if goal.met_by(sequenced):
        return f"It was met before the normalisation ({_figure(sequenced, goal)})."
    paid = [text for other in ledger.rows if other.goal.priority < goal.priority and (text := _paid(other))]
    if paid:
        return f"The ideal fluence meets it ({_figure(ideal, goal)}), but with {', '.join(paid)}."
    return f"The ideal fluence meets it ({_figure(ideal, goal)}): leaves and segments lose it."


def _paid(row: LedgerRow) -> str:
    """A goal that the plan meets and its ideal fluence does not, in words."""
    ideal, final = value_at(row, "ideal_fluence"), value_at(row, "final")
    if ideal is None or final is None or row.goal.met_by(ideal) or not row.goal.met_by(final):
        return ""
    return f"{row.goal.structure} {row.goal.metric.text} missed at {_figure(ideal, row.goal)}"


def value_at(row: LedgerRow, stage: Stage) -> float | None:
    """A goal's value at a stage; None where there is none."""
    return next((s.value for s in row.stages if s.stage == stage), None)


def _within_reach(certificate: Certificate, value: float) -> str:
    """What a certificate says of a missed goal."""
    goal, bound, conflict = certificate.goal, certificate.bound, certificate.conflict
    side = "below" if goal.sense == "<=" else "above"
    if conflict is not None:
        return (
            f"{_in_words(conflict.goal)} excludes it: with that alone at its limit, this is provably not {side} "
            f"{_figure(conflict.bound, goal)}, {_figure(abs(conflict.bound - goal.limit), goal)} beyond its own."
        )
    if not goal.met_by(bound):
        return (
            f"Provably not {side} {_figure(bound, goal)} while targets keep their coverage and every goal of a higher "
            "priority what it has: only other beams or other priorities could meet it."
        )
    return (
        f"Provably not {side} {_figure(bound, goal)}: the limit is not ruled out, and more work could win "
        f"{_figure(abs(value - bound), goal)} at most."
    )


def _in_words(goal: Goal) -> str:
    return f"{goal.structure} {goal.metric.text} {goal.sense} {goal.limit:g}"


def _figure(value: float, goal: Goal) -> str:
    return f"{value:.1f} {goal.metric.unit}"
