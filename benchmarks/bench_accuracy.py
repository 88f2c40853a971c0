"""Replays every Monte Carlo field of a folder and tells how far the dose engine is off.

python -m benchmarks.bench_accuracy --cases DIR [--machine ID] [--device cpu] [--quality final] [--only NAME]
Absolute comparison in Gy per energy fluence on the axis, dose to medium, no renormalisation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.dose_comparison import compare
from benchmarks.egsnrc_cases import load_field, with_machine
from benchmarks.results_file import write_results
from rtplan.engines import collapsed_cone
from rtplan.library.machines import load_machine

COLUMNS = (
    ("axis_2.5cm_mean", "axis mean"),
    ("axis_2.5cm_rms", "rms"),
    ("axis_2.5cm_max", "max"),
    ("axis_2.5cm_noise", "noise"),
    ("axis_1cm_mean", "1cm mean"),
    ("in_field_mean", "in field"),
    ("in_field_max", "max"),
    ("out_of_field_mean", "outside"),
    ("out_of_field_max", "max"),
    ("penumbra_shift_mm", "penumbra"),
    ("gamma_2pct_2mm", "g2%/2"),
    ("gamma_3pct_2mm", "g3%/2"),
    ("mae_above_10pct", "MAE"),
    ("noise_above_10pct", "noise"),
    ("seconds", "s"),
)


def replay(path: Path, machine_id: str | None, device: str, quality: str, spacing_mm: float) -> dict[str, float]:
    """Calculates one case and compares it; `seconds` is the wall time of the dose, in the first case with compilation."""
    field = load_field(path, spacing_mm)
    if machine_id:
        field = with_machine(field, load_machine(machine_id).beam)
    start = time.perf_counter()
    dose = collapsed_cone.dose(field.density, [field.fluence], field.model, quality=quality, backend=device)
    seconds = time.perf_counter() - start
    return compare(field, dose) | {"seconds": seconds}


def main() -> None:
    """One row a case, and a JSON file in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--machine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quality", default="final")
    parser.add_argument("--spacing-mm", type=float, default=2.5)
    parser.add_argument("--only", action="append")
    chosen = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    print(f"{'case':20s}" + "".join(f"{title:>10s}" for _, title in COLUMNS))
    for path in sorted(chosen.cases.glob("*.npz")):
        if chosen.only and path.stem not in chosen.only:
            continue
        rows[path.stem] = replay(path, chosen.machine, chosen.device, chosen.quality, chosen.spacing_mm)
        print(f"{path.stem:20s}" + "".join(f"{rows[path.stem][key]:10.2f}" for key, _ in COLUMNS), flush=True)
    settings = {k: str(v) for k, v in vars(chosen).items()} | {"cases": chosen.cases.name}
    print(write_results(f"accuracy_{chosen.cases.name}", {"settings": settings, "cases": rows}))


if __name__ == "__main__":
    main()
