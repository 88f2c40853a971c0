"""Replays every Monte Carlo field of a folder and tells how far the dose engine is off.

python -m benchmarks.bench_accuracy --cases DIR [--machine ID] [--device cpu|gpu] [--quality final] [--spacing-mm 2.5]
                                    [--only NAME] [--explain]
Absolute comparison in Gy per energy fluence on the axis, dose to medium, nothing renormalised.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.dose_comparison import compare, view
from benchmarks.dose_profiles import profile_figures
from benchmarks.egsnrc_cases import ReferenceField, case_paths, load_field, with_machine
from benchmarks.failure_regions import RegionRow, failure_table
from benchmarks.results_file import write_results
from rtplan.domain.machine import BeamModel
from rtplan.engines import collapsed_cone
from rtplan.errors import RequestInvalid, RtplanError
from rtplan.library.machines import load_machine

DEVICES = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "reference": "reference"}
COLUMNS = (
    ("axis_2.5cm_mean", "dd mean"),
    ("axis_2.5cm_rms", "rms"),
    ("axis_2.5cm_max", "max"),
    ("axis_2.5cm_worst_3cm", "any 3cm"),
    ("axis_2.5cm_noise", "(noise)"),
    ("axis_1cm_mean", "1cm mean"),
    ("axis_1cm_max", "max"),
    ("axis_1cm_noise", "(noise)"),
    ("in_field_mean", "in field"),
    ("in_field_max", "max"),
    ("out_of_field_mean", "outside"),
    ("out_of_field_max", "max"),
    ("penumbra_shift_mm", "pen. mm"),
    ("penumbra_shift_max_mm", "max"),
    ("idd_mean", "IDD mean"),
    ("idd_mae", "IDD MAE"),
    ("mae_above_10pct", "MAE"),
    ("noise_above_10pct", "(noise)"),
    ("gamma_2pct_2mm", "g2%/2mm"),
    ("noise_gamma_2pct_2mm", "(noise)"),
    ("gamma_3pct_2mm", "g3%/2mm"),
    ("noise_gamma_3pct_2mm", "(noise)"),
    ("seconds", "s"),
)
LEGEND = """
All in % of the Monte Carlo maximum (largest mean over the central 2.5 cm square, layers of 5 mm),
engine less Monte Carlo; but mm, s and gamma.
dd: depth dose beyond the depth of maximum over the central 2.5 cm (or 0.8 of the field): mean; rms and largest of runs of
    2.5 cm of depth; 'any 3cm' the largest mean over any 3 cm of depth. 1cm: the same over the central 1 cm square.
in field, outside: profiles along X and Y in layers of 40 mm, runs of 1 cm, within 0.8 of the half side, from 10 mm outside.
pen.: how much further out the engine's 50 % point lies. IDD: integral depth dose, in % of its maximum.
MAE: mean absolute difference above 10 % of the maximum. g: voxels above 10 % with gamma <= 1, global, absolute.
(noise): what the Monte Carlo's own noise makes. Of depth doses, 1 sigma of one run of 2.5 cm, from the spread of the parts
    that symmetry makes equal (without such parts: voxels as if independent, 2 to 3 times too little). Of MAE, the mean
    absolute noise of a voxel. Of gamma, the pass rate of a perfect engine: the engine's dose plus Gaussian noise of each
    voxel's own sigma, compared with the engine."""


def chosen_paths(folder: Path, only: list[str] | None) -> list[Path]:
    """The cases to replay. Raises RequestInvalid for a name that is not there."""
    paths = case_paths(folder)
    absent = set(only or []) - {p.stem for p in paths}
    if absent:
        raise RequestInvalid("BENCHMARK_CASES", f"no case {', '.join(sorted(absent))} in {folder}", "names of cases")
    return [p for p in paths if not only or p.stem in only]


def of_machine(fields: list[ReferenceField], model: BeamModel) -> list[ReferenceField]:
    """The fields of a machine's spectrum, from its beam; the others are left out, one printed line each.

    Raises RequestInvalid where none is left.
    """
    kept: list[ReferenceField] = []
    for field in fields:
        try:
            kept.append(with_machine(field, model))
        except RequestInvalid as error:
            print(f"{field.name:20s} left out: {error.found}")
    if not kept:
        raise RequestInvalid("BENCHMARK_SPECTRUM", "no case of this machine's spectrum", "one", "leave --machine out")
    return kept


def timed_dose(field: ReferenceField, device: str, quality: str) -> tuple[NDArray[np.float32], float]:
    """The engine's dose and its wall time in seconds. Raises BackendMissing."""
    start = time.perf_counter()
    dose = collapsed_cone.dose(field.density, [field.fluence], field.model, quality=quality, backend=DEVICES[device])
    return dose, time.perf_counter() - start


def print_regions(rows: list[RegionRow]) -> None:
    """Table of one case's regions."""
    titles = ("voxels", "fail %", "(noise)", "mean %", "rms %", "(noise)")
    print(f"    {'material':14s}{'place':10s}" + "".join(f"{t:>8s}" for t in titles))
    for r in rows:
        print(
            f"    {r.material:14s}{r.place:10s}{r.voxels:8d}{r.fail_pct:8.2f}{r.noise_fail_pct:8.2f}"
            f"{r.mean_pct:8.2f}{r.rms_pct:8.2f}{r.noise_pct:8.2f}"
        )


def replay_all(chosen: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Every case in turn, one printed row each. All files are read before the first dose, so that a bad one stops all."""
    fields = [load_field(path, chosen.spacing_mm) for path in chosen_paths(chosen.cases, chosen.only)]
    if chosen.machine:
        fields = of_machine(fields, load_machine(chosen.machine).beam)
    timed_dose(fields[0], chosen.device, chosen.quality)  # compilation is no part of the times
    print(f"{'case':20s}" + "".join(f"{title:>9s}" for _, title in COLUMNS))
    rows: dict[str, dict[str, object]] = {}
    for field in fields:
        dose, seconds = timed_dose(field, chosen.device, chosen.quality)
        seen = view(field, dose)
        figures = compare(field, dose) | profile_figures(seen) | {"seconds": seconds}
        print(f"{field.name:20s}" + "".join(f"{figures[key]:9.2f}" for key, _ in COLUMNS), flush=True)
        rows[field.name] = dict(figures)
        if chosen.explain:
            table = failure_table(seen, dose)
            print_regions(table)
            rows[field.name]["regions"] = [asdict(row) for row in table]
    return rows


def main() -> None:
    """One row a case, and a JSON file in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--machine", help="a machine's beam instead of the case's own point source")
    parser.add_argument("--device", choices=sorted(DEVICES), default="cpu")
    parser.add_argument("--quality", default="final")
    parser.add_argument("--spacing-mm", type=float, default=2.5, help="largest side of the engine's voxels")
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--explain", action="store_true", help="tell where the engine and Monte Carlo disagree")
    chosen = parser.parse_args()
    try:
        rows = replay_all(chosen)
    except RtplanError as error:
        print(error.line(), file=sys.stderr)
        sys.exit(error.exit_code)
    print(LEGEND)
    if chosen.only:
        print("Part of a folder: no results file written.")
        return
    settings = {k: str(v) for k, v in vars(chosen).items()} | {"cases": chosen.cases.name}
    print(write_results(f"accuracy_{chosen.cases.name}", {"settings": settings, "cases": rows}).name)


if __name__ == "__main__":
    main()
