"""Counts and means over patients, ours beside the reference's, and the text and JSON that show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.openkbp.judge import BODY_MEAN, FIGURES, TARGETS
from benchmarks.openkbp.records import Judged, Record

Summary = dict[str, Any]


def summary(records: Sequence[Record]) -> Summary:
    """Everything that is said over these patients, as plain values. Patients without a plan count as failing everything."""
    planned = [r for r in records if r.plan is not None]
    return {
        "patients": len(records),
        "planned": len(planned),
        "failed": {r.patient: r.run.message for r in records if r.plan is None},
        "criteria": {name: counts(records, {name}.__contains__) for name in criteria_names(records)},
        "targets": counts(records, is_target),
        "organs": counts(records, lambda key: not is_target(key)),
        "all": counts(records, lambda key: True),
        "beside_reference": beside_reference(records),
        "figures": {name: figure(planned, name) for name in (*FIGURES, BODY_MEAN)},
        "plan": plan_summary(planned),
        "certificates": certificates(planned),
    }


def is_target(criterion: str) -> bool:
    """Whether a criterion is one of a target."""
    return criterion.startswith(TARGETS)


def criteria_names(records: Iterable[Record]) -> list[str]:
    """Every criterion that some patient has, in the order in which they are first seen, organs before targets."""
    names = list(dict.fromkeys(name for r in records for name in r.reference.criteria))
    return sorted(names, key=is_target)


def counts(records: Iterable[Record], wanted: Callable[[str], bool]) -> dict[str, int]:
    """How many of the wanted criteria there are, and how many each dose meets."""
    judged = [name for r in records for name in r.reference.criteria if wanted(name)]
    return {
        "of": len(judged),
        "rtplan": sum(c.met for r in records for name, c in r.ours.criteria.items() if wanted(name)),
        "reference": sum(c.met for r in records for name, c in r.reference.criteria.items() if wanted(name)),
    }


def beside_reference(records: Iterable[Record]) -> dict[str, int]:
    """In how many patients more, as many, or fewer criteria are met than by the reference; and fewer by two or more."""
    ahead = [r.ours.met - r.reference.met for r in records]
    return {
        "better": sum(a > 0 for a in ahead),
        "equal": sum(a == 0 for a in ahead),
        "worse": sum(a < 0 for a in ahead),
        "worse_by_more_than_one": sum(a < -1 for a in ahead),
    }


def figure(planned: Iterable[Record], name: str) -> dict[str, float] | None:
    """Means of one figure, ours and the reference's, over the patients that have both; None where nobody has."""
    both = [
        (r.ours.figures[name], r.reference.figures[name]) for r in planned if has(r.ours, name) and has(r.reference, name)
    ]
    if not both:
        return None
    ours, reference = np.array(both).mean(axis=0)
    return {"n": len(both), "rtplan": float(ours), "reference": float(reference)}


def has(judged: Judged, name: str) -> bool:
    """Whether a dose has this figure: a patient may lack the target."""
    return name in judged.figures


def plan_summary(planned: Sequence[Record]) -> dict[str, Any] | None:
    """MU, segments, goals, time and memory of the plans; None without any."""
    if not planned:
        return None
    plans = [r.plan for r in planned if r.plan is not None]
    minutes = np.array([r.run.seconds for r in planned]) / 60.0
    cpu = [r.run.cpu_s / 60.0 for r in planned if r.run.cpu_s is not None]
    memory = [r.run.peak_memory_gb for r in planned if r.run.peak_memory_gb is not None]
    steps = list(dict.fromkeys(step for p in plans for step in p.steps_s))
    return {
        "mu_mean": float(np.mean([p.mu for p in plans])),
        "segments_mean": float(np.mean([p.segments for p in plans])),
        "goals_met": sum(p.goals_met for p in plans),
        "goals_judged": sum(p.goals_judged for p in plans),
        "minutes_median": float(np.median(minutes)),
        "minutes_90th": float(np.percentile(minutes, 90)),
        "minutes_max": float(minutes.max()),
        "cpu_minutes_median": float(np.median(cpu)) if cpu else None,
        "peak_memory_gb_median": float(np.median(memory)) if memory else None,
        "peak_memory_gb_max": max(memory) if memory else None,
        "steps_s_median": {s: float(np.median([p.steps_s[s] for p in plans if s in p.steps_s])) for s in steps},
    }


def certificates(planned: Iterable[Record]) -> dict[str, Any] | None:
    """Mean distance of the goals from their bounds, by unit and by goal; None where no report carries certificates.

    `broken` counts values beyond what was proven impossible: each is a mistake in a certificate.
    """
    by_unit: dict[str, list[float]] = defaultdict(list)
    by_goal: dict[str, list[float]] = defaultdict(list)
    for record in planned:
        for d in (record.plan.distances if record.plan is not None else None) or ():
            by_unit[d.unit].append(d.distance)
            by_goal[f"{d.goal} [{d.unit}]"].append(d.distance)
    if not by_unit:
        return None
    return {
        "mean_distance": {unit: {"n": len(v), "mean": float(np.mean(v))} for unit, v in by_unit.items()},
        "goals": {goal: {"n": len(v), "mean": float(np.mean(v))} for goal, v in by_goal.items()},
        "broken": sum(v < -BROKEN for values in by_unit.values() for v in values),
    }


BROKEN = 1e-6  # of the metric's unit: rounding is not a broken proof


def text(found: Summary, title: str) -> str:
    """The summary for a reader."""
    lines = [f"{title}: {found['planned']} of {found['patients']} patients have a plan"]
    lines += [f"  {patient}: {message}" for patient, message in found["failed"].items()]
    lines += [f"  {'criterion':28s}{'rtplan':>22s}{'reference':>22s}"]
    lines += [_counts_line(name, row) for name, row in found["criteria"].items()]
    lines += [_counts_line(name, found[name]) for name in ("organs", "targets", "all")]
    side, n = found["beside_reference"], found["patients"]
    lines += [
        f"  better than the reference in {side['better']} of {n}, equal in {side['equal']}, worse in {side['worse']};"
        f" worse by more than one: {side['worse_by_more_than_one']}"
    ]
    lines += _figure_lines(found["figures"])
    if found["plan"] is not None:
        lines += _plan_lines(found["plan"])
        lines += _certificate_lines(found["certificates"])
    return "\n".join(lines)


def _counts_line(name: str, row: dict[str, int]) -> str:
    cells = [f"{row[who]} of {row['of']} {100 * row[who] / max(1, row['of']):6.1f} %" for who in ("rtplan", "reference")]
    return f"  {name:28s}{cells[0]:>22s}{cells[1]:>22s}"


def _figure_lines(figures: dict[str, dict[str, float] | None]) -> list[str]:
    lines = ["  means over the patients with a plan"]
    for name, row in figures.items():
        if row is not None:
            lines.append(
                f"  {LABELS.get(name, name + ', Gy'):38s}{row['rtplan']:12.3f}{row['reference']:22.3f}   n={row['n']}"
            )
    return lines


LABELS = {
    "HI70": "homogeneity of PTV70, (D2-D98)/D50",
    "CI95_all": "conformity at 95 %, all targets",
    "CI95_70": "conformity at 95 %, PTV70",
    "Dmax": "highest dose, Gy",
    BODY_MEAN: "body mean within the dose grid, Gy",
}


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    memory = plan["peak_memory_gb_max"]
    told = "not told by the system" if memory is None else f"median {plan['peak_memory_gb_median']:.2f}, max {memory:.2f} GB"
    cpu = "" if plan["cpu_minutes_median"] is None else f", of processor time median {plan['cpu_minutes_median']:.1f}"
    steps = ", ".join(f"{step} {seconds:.0f}" for step, seconds in plan["steps_s_median"].items())
    wall = f"median {plan['minutes_median']:.1f}, 90th {plan['minutes_90th']:.1f}, max {plan['minutes_max']:.1f}"
    return [
        f"  MU per fraction {plan['mu_mean']:.0f}, segments {plan['segments_mean']:.0f} (means); "
        f"protocol goals met {plan['goals_met']} of {plan['goals_judged']}",
        f"  minutes: {wall}{cpu}",
        f"  peak memory: {told}",
        f"  seconds by step (medians): {steps}",
    ]


def _certificate_lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["  certificates: the reports carry none"]
    means = ", ".join(f"{v['mean']:.2f} {unit} (n={v['n']})" for unit, v in found["mean_distance"].items())
    lines = [f"  mean distance to the certificates' bounds: {means}"]
    lines += [f"    {goal:44s}{v['mean']:8.2f}   n={v['n']}" for goal, v in found["goals"].items()]
    if found["broken"]:
        lines.append(f"  {found['broken']} VALUES LIE BEYOND THEIR BOUND: those certificates are wrong")
    return lines


def patient_line(record: Record, number: int, total: int) -> str:
    """One patient as it is done."""
    side = f"{record.ours.met} of {len(record.ours.criteria)} criteria, reference {record.reference.met}"
    head = f"{record.patient} ({number} of {total}): {side}"
    if record.plan is None:
        return f"{head}; NO PLAN: {record.run.message}"
    memory = "" if record.run.peak_memory_gb is None else f", {record.run.peak_memory_gb:.2f} GB"
    return f"{head}; {record.plan.mu:.0f} MU, {record.plan.segments} segments, {record.run.seconds / 60:.1f} min{memory}"


def patient_json(record: Record, *, with_figures: bool) -> dict[str, Any]:
    """One patient for the results file: [ours, reference] where there are two, rounded to what a reader can use."""
    plan, run = record.plan, record.run
    result: dict[str, Any] = {
        "code": run.code,
        "met": [record.ours.met, record.reference.met],
        "judged": len(record.reference.criteria),
        "minutes": round(run.seconds / 60, 2),
        "cpu_minutes": None if run.cpu_s is None else round(run.cpu_s / 60, 2),
        "peak_memory_gb": None if run.peak_memory_gb is None else round(run.peak_memory_gb, 3),
    }
    if plan is not None:
        result |= {"mu": round(plan.mu, 1), "segments": plan.segments}
    if with_figures:
        result["criteria"] = {
            name: [_rounded(record.ours.criteria[name].value_gy), _rounded(reference.value_gy)]
            for name, reference in record.reference.criteria.items()
        }
        shared = [name for name in record.reference.figures if has(record.ours, name)]
        result["figures"] = {n: [_rounded(record.ours.figures[n]), _rounded(record.reference.figures[n])] for n in shared}
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
