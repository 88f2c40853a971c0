"""OpenKBP's clinical criteria of written plans beside those of the data set's reference doses.

    python -m benchmarks.compare_openkbp --data DIR --tools DIR pt_2=OUT2 pt_3=OUT3

Each argument pairs a patient and a folder that `rtplan plan` wrote; --tools holds `openkbp_criteria.py`, whose
functions judge both doses on the npz's own masks, targets nested. Writes benchmarks/results/openkbp.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.results_file import write_results
from rtplan.dicom.read_rtdose import read_rtdose
from rtplan.domain.dose import Dose, dose_at_index

SLABS = 32  # parts in which the dose is interpolated, so that memory stays small
FIGURES = ("PTV70+.D99", "PTV70+.D95", "PTV70+.D1", "HI70", "CI95_all", "body.Dmean", "Dmax")


def load_criteria(folder: Path) -> ModuleType:
    """The evaluation functions, by their file: they are no part of this project."""
    spec = importlib.util.spec_from_file_location("openkbp_criteria", folder / "openkbp_criteria.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no openkbp_criteria.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_patient_grid(dose: Dose, npz: Any) -> np.ndarray:
    """The plan's dose at the centres of the npz's voxels, (z, y, x) Gy."""
    shape, spacing, origin = npz["ct"].shape, npz["spacing"], npz["origin"]
    index = np.indices(shape).reshape(3, -1).T.astype(np.float64)
    points = index[:, ::-1] * spacing[::-1] + origin
    parts = [dose_at_index(dose, dose.grid.to_index(part)) for part in np.array_split(points, SLABS)]
    return np.concatenate(parts).reshape(shape).astype(np.float64)


def judge(criteria: ModuleType, path: Path, out: Path) -> dict[str, Any]:
    """Criteria and figures of our dose and of the reference's, with what the plan needed."""
    npz, masks, reference = criteria.load(str(path))
    ours = on_patient_grid(read_rtdose(out / "RTDOSE.dcm"), npz)
    report = json.loads((out / "report.json").read_text())
    result: dict[str, Any] = {
        "mu": sum(b["mu"] for b in report["beams"]),
        "seconds": sum(t["seconds"] for t in report["timings_s"]),
    }
    for name, dose in (("rtplan", ours), ("reference", reference)):
        metrics = criteria.metrics(masks, dose, npz["spacing"])
        judged = criteria.criteria(metrics)
        result[name] = {
            "met": sum(met for _, met in judged.values()),
            "judged": len(judged),
            "criteria": {k: {"value": value, "met": met} for k, (value, met) in judged.items()},
            "figures": {k: metrics[k] for k in FIGURES if k in metrics},
        }
    return result


def main() -> None:
    """One block a patient, the sums, and a JSON file in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("cases", nargs="+", metavar="PATIENT=OUT")
    chosen = parser.parse_args()
    criteria = load_criteria(chosen.tools)
    patients = {}
    for case in chosen.cases:
        name, _, out = case.partition("=")
        patients[name] = judge(criteria, chosen.data / f"{name}.npz", Path(out))
        ours, reference = patients[name]["rtplan"], patients[name]["reference"]
        print(f"{name}: {ours['met']} of {ours['judged']} met, reference {reference['met']}; {patients[name]['mu']:.0f} MU")
        for key, own in ours["criteria"].items():
            other = reference["criteria"][key]
            print(f"  {key:26s} {own['value']:7.2f} {_verdict(own)}   reference {other['value']:7.2f} {_verdict(other)}")
    sums = {who: sum(p[who]["met"] for p in patients.values()) for who in ("rtplan", "reference")}
    judged = sum(p["rtplan"]["judged"] for p in patients.values())
    print(f"all: {sums['rtplan']} of {judged}, reference {sums['reference']}")
    print(write_results("openkbp", {"met": sums, "judged": judged, "patients": patients}))


def _verdict(result: dict[str, Any]) -> str:
    return "met   " if result["met"] else "missed"


if __name__ == "__main__":
    main()
