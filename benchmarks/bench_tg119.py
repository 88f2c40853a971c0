"""TG-119's planning cases beside the goals and the institutions' means of the report.

    python -m benchmarks.bench_tg119 [--cases c_shape multi_target ...] [--threads N] [--out DIR]

Each phantom of sample_data is written as DICOM and planned from CT to files on `generic_6mv` in a process of its own. The
metrics are of RTDOSE.dcm as it was written, at the centres of the phantom's voxels. A published mean counts as met when ours
is no worse in whole cGy, as the report gives it. Plans go to OUT (bench_out/tg119), figures to
benchmarks/results/tg119.json: of the cases that were run, all of them unless named.

Goals and means are from memory of Ezzell et al., Med Phys 36:5359 (2009), given there in cGy. Mock prostate and mock head
and neck are phantoms of its description, not of its contours: their comparison says less than that of the others.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.openkbp.judge import plan_figures, plan_report
from benchmarks.plan_process import PlanRun, plan_in_process
from benchmarks.results_file import write_results
from rtplan.dicom.read_rtdose import read_rtdose
from rtplan.domain.case import Order
from rtplan.domain.dose import Dose, dose_in_mask
from rtplan.domain.goals import evaluate_metric, parse_metric
from rtplan.service.cluster import available_cores
from sample_data.phantom import Phantom
from sample_data.tg119 import c_shape, multi_target
from sample_data.tg119_mock import head_neck_mock, prostate
from sample_data.write_dicom import write_phantom

MACHINE = "generic_6mv"


@dataclass(frozen=True, slots=True)
class Published:
    """A metric of a structure of the phantom: the report's goal, and mean and standard deviation of its institutions."""

    structure: str
    metric: str
    sense: str
    goal_gy: float
    mean_gy: float
    sd_gy: float


@dataclass(frozen=True, slots=True)
class Case:
    """One planning problem of the report."""

    title: str
    draw: Callable[[], Phantom]
    protocol_id: str
    published: tuple[Published, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Ours beside a published figure. Without a plan `ours_gy` is None, and neither goal nor mean is met."""

    published: Published
    ours_gy: float | None
    goal_met: bool
    mean_met: bool


CASES: Mapping[str, Case] = {
    "c_shape": Case(
        "C-shape, easier",
        c_shape,
        "tg119_c_shape",
        (
            Published("PTV", "D95[Gy]", ">=", 50.0, 50.10, 0.17),
            Published("PTV", "D10[Gy]", "<=", 55.0, 54.40, 0.52),
            Published("Core", "D10[Gy]", "<=", 25.0, 22.00, 3.14),
        ),
    ),
    "c_shape_hard": Case(
        "C-shape, harder",
        c_shape,
        "tg119_c_shape_hard",
        (
            Published("PTV", "D95[Gy]", ">=", 50.0, 50.11, 0.17),
            Published("PTV", "D10[Gy]", "<=", 55.0, 57.02, 2.20),
            Published("Core", "D10[Gy]", "<=", 10.0, 16.30, 3.07),
        ),
    ),
    "multi_target": Case(
        "Multi-target",
        multi_target,
        "tg119_multi_target",
        (
            Published("Central Target", "D99[Gy]", ">=", 50.0, 49.55, 1.62),
            Published("Central Target", "D10[Gy]", "<=", 53.0, 54.55, 1.73),
            Published("Superior Target", "D99[Gy]", ">=", 25.0, 25.16, 0.85),
            Published("Superior Target", "D10[Gy]", "<=", 35.0, 34.12, 3.04),
            Published("Inferior Target", "D99[Gy]", ">=", 12.5, 14.07, 1.85),
            Published("Inferior Target", "D10[Gy]", "<=", 25.0, 24.18, 2.72),
        ),
    ),
    "prostate": Case(
        "Mock prostate",
        prostate,
        "tg119_prostate",
        (
            Published("PTV", "D95[Gy]", ">=", 75.6, 75.66, 0.21),
            Published("PTV", "D5[Gy]", "<=", 83.0, 81.43, 1.56),
            Published("Rectum", "D30[Gy]", "<=", 70.0, 65.36, 2.97),
            Published("Rectum", "D10[Gy]", "<=", 75.0, 73.03, 1.50),
            Published("Bladder", "D30[Gy]", "<=", 70.0, 43.94, 8.78),
            Published("Bladder", "D10[Gy]", "<=", 75.0, 62.69, 8.15),
        ),
    ),
    "head_neck": Case(
        "Mock head and neck",
        head_neck_mock,
        "tg119_head_neck",
        (
            Published("PTV", "D90[Gy]", ">=", 50.0, 50.28, 0.58),
            Published("PTV", "D99[Gy]", ">=", 46.5, 47.04, 0.52),
            Published("PTV", "D20[Gy]", "<=", 55.0, 52.99, 0.93),
            Published("Cord", "Max[Gy]", "<=", 40.0, 37.41, 2.50),
            Published("Parotid L", "D50[Gy]", "<=", 20.0, 17.98, 1.84),
            Published("Parotid R", "D50[Gy]", "<=", 20.0, 17.98, 1.84),
        ),
    ),
}


def compared(published: Published, ours_gy: float | None) -> Row:
    """A value beside the published one; the mean is compared in whole cGy, as it is published."""
    if ours_gy is None:
        return Row(published, None, False, False)
    goal_met = ours_gy >= published.goal_gy if published.sense == ">=" else ours_gy <= published.goal_gy
    ours, mean = round(100 * ours_gy), round(100 * published.mean_gy)
    return Row(published, ours_gy, goal_met, ours >= mean if published.sense == ">=" else ours <= mean)


def judged(case: Case, phantom: Phantom, dose: Dose | None) -> tuple[Row, ...]:
    """Every published figure of a case beside the dose's; None is a case without a plan."""
    return tuple(compared(p, None if dose is None else value_gy(p, phantom, dose)) for p in case.published)


def value_gy(published: Published, phantom: Phantom, dose: Dose) -> float:
    """The metric over the voxels of the phantom's structure, Gy."""
    inside = dose_in_mask(dose, phantom.masks[published.structure], phantom.grid)
    return evaluate_metric(parse_metric(published.metric), inside, phantom.grid.voxel_cc, published.goal_gy)


def planned(case: Case, folder: Path, *, threads: int) -> dict[str, Any]:
    """Plan one case into `folder` with `threads` kernel threads: its rows, and what the plan took."""
    shutil.rmtree(folder, ignore_errors=True)
    phantom = case.draw()
    with TemporaryDirectory(prefix="rtplan-tg119-") as written:
        write_phantom(phantom, Path(written))
        order = Order(f"{written}/CT", f"{written}/RS.dcm", case.protocol_id, MACHINE, "auto")
        run = plan_in_process(order, folder, threads=threads)
    dose = read_rtdose(folder / "RTDOSE.dcm") if run.planned else None
    return result(case, judged(case, phantom, dose), run, plan_report(folder) if run.planned else None)


def result(case: Case, rows: Sequence[Row], run: PlanRun, report: dict[str, Any] | None) -> dict[str, Any]:
    """A case as plain values."""
    plan = None if report is None else plan_figures(report)
    return {
        "title": case.title,
        "protocol": case.protocol_id,
        "code": run.code,
        "message": run.message,
        "goals_met": sum(r.goal_met for r in rows),
        "means_met": sum(r.mean_met for r in rows),
        "of": len(rows),
        "seconds": run.seconds,
        "cpu_s": run.cpu_s,
        "peak_memory_gb": run.peak_memory_gb,
        "mu": None if plan is None else plan.mu,
        "segments": None if plan is None else plan.segments,
        "rows": [asdict(r) for r in rows],
    }


def text(found: Mapping[str, Any]) -> str:
    """One case for a reader."""
    lines = [found["title"]]
    if found["mu"] is None:
        lines.append(f"  NO PLAN: {found['message']}")
    else:
        memory = found["peak_memory_gb"]
        told = "" if memory is None else f", {memory:.2f} GB"
        told += "" if found["cpu_s"] is None else f", {found['cpu_s']:.0f} s of processor time"
        lines.append(f"  {found['mu']:.0f} MU, {found['segments']} segments, {found['seconds']:.0f} s{told}")
    lines.append(f"  {'metric':26s}{'goal':>10s}{'published mean':>18s}{'rtplan':>9s}  goal    mean")
    for row in found["rows"]:
        p = row["published"]
        goal, mean = f"{p['sense']} {p['goal_gy']:g}", f"{p['mean_gy']:.2f} ± {p['sd_gy']:.2f}"
        ours = "-" if row["ours_gy"] is None else f"{row['ours_gy']:.2f}"
        verdicts = f"{'met' if row['goal_met'] else 'MISSED':8s}{'met' if row['mean_met'] else 'MISSED'}"
        lines.append(f"  {p['structure'] + ' ' + p['metric']:26s}{goal:>10s}{mean:>18s}{ours:>9s}  {verdicts}")
    lines.append(f"  goals met {found['goals_met']} of {found['of']}, published means met or beaten {found['means_met']}")
    return "\n".join(lines)


def main() -> None:
    """Plan the cases one after the other, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--out", type=Path, default=Path("bench_out") / "tg119")
    chosen = parser.parse_args()
    found = {}
    for name in chosen.cases:
        found[name] = planned(CASES[name], (chosen.out / name).resolve(), threads=chosen.threads)
        print(text(found[name]), flush=True)
    goals, means, of = (sum(case[key] for case in found.values()) for key in ("goals_met", "means_met", "of"))
    print(f"all {len(found)} cases: goals met {goals} of {of}, published means met or beaten {means} of {of}")
    print(
        write_results("tg119", {"threads": chosen.threads, "goals_met": goals, "means_met": means, "of": of, "cases": found})
    )


if __name__ == "__main__":
    main()
