"""Plans of OpenKBP patients beside the data set's reference doses, by its ten clinical criteria on nested targets.

    python -m benchmarks.bench_openkbp --patients DIR [-n N] [--technique imrt|vmat] [--jobs J] [--tools DIR]
                                       [--out DIR] [--records FILE]

DIR holds pt_N.npz files (okbp-npz-1); they are taken in the order of N. Each becomes a CT series and an RTSTRUCT with all
organs, is planned on `generic_6mv` from CT to files in a process of its own, and both doses, the final dose of the
deliverable plan as written and the reference's, are judged on the npz's own voxels by `openkbp_criteria.py` of --tools
(the default is where it lies beside the data). The minutes are those of all of plan_case, contours given, and hold
for --jobs 1 on an idle machine; J patients side by side share the cores.

OUT (bench_out/openkbp/TECHNIQUE) gets a record, a picture and the plan's files for each patient. A patient whose record was
made by the same code, protocol, machine, technique, device and criteria is not planned again; `--across-commits` takes
records of other commits whose code is the same. FILE has all records, a line each, and is read and written besides: a run
goes on from it where OUT is gone. A patient without a plan counts as failing every criterion.
Writes benchmarks/results/openkbp.json (openkbp_vmat.json).
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.openkbp import cases, judge
from benchmarks.openkbp.picture import Drawing, draw
from benchmarks.openkbp.records import (
    Judged,
    PlanFigures,
    Record,
    failed_judgement,
    read_kept,
    read_record,
    still_holds,
    write_kept,
    write_record,
)
from benchmarks.openkbp.table import patient_json, patient_line, summary, text
from benchmarks.plan_process import PlanRun, plan_in_process
from benchmarks.results_file import write_results
from rtplan.domain.case import Order
from rtplan.provenance import sha256_of_file
from rtplan.service.cluster import available_cores

FIRST = 20
LARGEST_RESULT_BYTES = 300_000
Planner = Callable[[Order, Path], PlanRun]
# Judging and drawing take little time but memory, and drawing libraries are not made for threads: one patient at a time.
ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Bench:
    """What every patient of a run needs: where records go, what they are made by, and who plans."""

    out: Path
    tools: cases.Tools
    made: cases.Made
    protocol: Path
    planner: Planner
    across_commits: bool
    kept: Mapping[str, Record] = field(default_factory=dict)

    def record(self, npz: Path) -> Record:
        """The patient's record: an earlier one that still holds, or a new one."""
        path, sha256 = self.out / f"{npz.stem}.json", sha256_of_file(npz)
        for known in (read_record(path), self.kept.get(npz.stem)):
            if known is not None and still_holds(known, self.made, sha256, across_commits=self.across_commits):
                return known
        path.unlink(missing_ok=True)
        folder = self.out / npz.stem
        shutil.rmtree(folder, ignore_errors=True)
        with TemporaryDirectory(prefix="rtplan-openkbp-") as case:
            order = cases.dicom_case(npz, Path(case), self.tools, protocol=self.protocol, device=self.made.device)
            run = self.planner(order, folder)
        if cases.sources_sha256(cases.ROOT) != self.made.sources:
            raise SystemExit(f"the code changed while {npz.stem} was planned, which is not recorded; start again")
        with ONE_AT_A_TIME:
            ours, reference, plan = self._judged(npz, folder, run)
        record = Record(npz.stem, sha256, self.made, run, ours, reference, plan)
        write_record(record, path)
        return record

    def _judged(self, npz: Path, folder: Path, run: PlanRun) -> tuple[Judged, Judged, PlanFigures | None]:
        criteria = self.tools.criteria
        patient = judge.load_patient(criteria, npz)
        if not run.planned:
            reference = judge.judged(criteria, patient, patient.reference_gy, None)
            return failed_judgement(reference), reference, None
        dose_gy, covered = judge.plan_dose(folder, patient.grid)
        ours = judge.judged(criteria, patient, dose_gy, covered)
        reference = judge.judged(criteria, patient, patient.reference_gy, covered)
        report = judge.plan_report(folder)
        isocentre = tuple(report["beams"][0]["isocentre_xyz_mm"])
        drawing = Drawing(npz.stem, patient, dose_gy, ours, reference, isocentre)
        (self.out / f"{npz.stem}.png").write_bytes(draw(drawing))
        return ours, reference, judge.plan_figures(report)


def all_records(
    bench: Bench, files: Sequence[Path], jobs: int, say: Callable[[str], None], keep: Path | None = None
) -> list[Record]:
    """Every patient's record in the order of `files`; each is told as it is done, and the first 20 once all of them are.

    A file to `keep` records in has all that were read from it and all that are done, after each patient.
    """
    done: dict[str, Record] = {}
    first = [path.stem for path in files[:FIRST]]
    told = len(files) <= FIRST
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        for future in as_completed([pool.submit(bench.record, path) for path in files]):
            record = future.result()
            done[record.patient] = record
            if keep is not None:
                write_kept((dict(bench.kept) | done).values(), keep)
            say(patient_line(record, len(done), len(files)))
            if not told and all(name in done for name in first):
                say(text(summary([done[name] for name in first]), f"the first {FIRST}"))
                told = True
    finally:
        pool.shutdown(cancel_futures=True)
    return [done[path.stem] for path in files]


def results(records: Sequence[Record], made: cases.Made, jobs: int) -> dict[str, Any]:
    """What the results file holds: per-patient figures as far as they fit."""
    found: dict[str, Any] = {"technique": made.technique, "jobs": jobs, "code": made.code} | summary(records)
    for with_figures in (True, False):
        patients = {r.patient: patient_json(r, with_figures=with_figures) for r in records}
        whole = found | {"per_patient": patients}
        if len(json.dumps(whole, indent=1)) <= LARGEST_RESULT_BYTES:
            break
    return whole


def main() -> None:
    """Run or resume, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=Path, required=True, metavar="DIR")
    parser.add_argument("-n", type=int, default=None, help="only the first N patients")
    parser.add_argument("--technique", choices=cases.TECHNIQUES, default="imrt")
    parser.add_argument("--jobs", type=int, default=1, help="patients side by side")
    parser.add_argument("--tools", type=Path, default=None, help="folder of openkbp_criteria.py and openkbp_to_dicom.py")
    parser.add_argument("--out", type=Path, default=None, help="records, pictures and plans")
    parser.add_argument("--records", type=Path, default=None, help="one file of all records, read and written")
    parser.add_argument("--device", default="auto", help="as for rtplan plan")
    parser.add_argument("--across-commits", action="store_true", help="take records of other commits with the same code")
    chosen = parser.parse_args()
    if chosen.jobs < 1 or (chosen.n is not None and chosen.n < 1):
        parser.error("-n and --jobs are at least 1")
    tools = cases.load_tools(chosen.patients, chosen.tools)
    files = cases.patient_files(chosen.patients, chosen.n)
    out: Path = (chosen.out or Path("bench_out") / "openkbp" / chosen.technique).resolve()
    out.mkdir(parents=True, exist_ok=True)
    protocol = cases.protocol_file(chosen.technique, out)
    made = cases.made_by(chosen.technique, chosen.device, protocol, tools)
    threads = max(1, available_cores() // chosen.jobs)

    def planner(order: Order, folder: Path) -> PlanRun:
        return plan_in_process(order, folder, threads=threads)

    kept = read_kept(chosen.records) if chosen.records else {}
    bench = Bench(out, tools, made, protocol, planner, chosen.across_commits, kept)
    print(f"{len(files)} patients, {chosen.technique}, {chosen.jobs} side by side with {threads} threads each; {out}")
    try:
        records = all_records(bench, files, chosen.jobs, lambda line: print(line, flush=True), chosen.records)
    except KeyboardInterrupt:
        raise SystemExit("broken off; the same command goes on with the patients that have no record") from None
    print(text(summary(records), f"all {len(records)}"))
    name = "openkbp" if chosen.technique == "imrt" else f"openkbp_{chosen.technique}"
    print(write_results(name, results(records, made, chosen.jobs)))


if __name__ == "__main__":
    main()
