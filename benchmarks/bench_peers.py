"""rtplan beside other open dose engines on the same phantoms in the same run, as ratios.

python -m benchmarks.bench_peers [--venvs DIR] [--threads 2] [--cases DIR] [--only influence|fields|accuracy]

pyRadPlan and PyDoseRT are installed with pinned versions into environments of their own (first run: some minutes and 3 GB in
the user's cache). Every engine runs in a process of its own on the same number of threads, once warm. A peer that cannot be
installed or breaks off is a row that says so. See docs/benchmarks-peers.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.egsnrc_cases import ReferenceField, load_field
from benchmarks.gamma_index import averaged
from benchmarks.peers import accuracy
from benchmarks.peers.environments import PEERS, PYDOSERT, PYRADPLAN, RTPLAN_SCRIPT, Peer, PeerFailed, default_folder
from benchmarks.peers.environments import interpreter as peer_interpreter
from benchmarks.peers.environments import run as run_script
from benchmarks.peers.phantom import Beamlets, OpenFields, c_shape, cylinder_fields, save
from benchmarks.peers.tables import OURS, ratios, table
from benchmarks.results_file import write_results
from rtplan.engines.collapsed_cone import PLUGIN

Run = tuple[dict[str, object], NDArray[np.float32]]
Rows = dict[str, dict[str, object]]
PARTS = ("influence", "fields", "accuracy")
CASES = Path(__file__).parents[2] / "shared" / "data" / "egsnrc" / "dose"
SLAB_SPACING_MM = 2.5
INFLUENCE_COLUMNS = (
    ("cpu_s", "CPU s"),
    ("wall_s", "wall s"),
    ("n_nonzero", "non-zeros"),
    ("peak_memory_gib", "peak GiB"),
    ("apply_cpu_s", "apply CPU s"),
    ("adjoint_cpu_s", "adjoint CPU s"),
    ("apply_adjoint_cpu_s", "both CPU s"),
    ("target_difference_pct", "target diff %"),
)
FIELD_COLUMNS = (
    ("cpu_s", "CPU s"),
    ("wall_s", "wall s"),
    ("first_cpu_s", "first CPU s"),
    ("peak_memory_gib", "peak GiB"),
)
ACCURACY_COLUMNS = (
    ("axis_mean_abs_pct", "axis mean %"),
    ("axis_max_abs_pct", "axis max %"),
    ("inhomogeneity_mean_abs_pct", "slab/water %"),
    ("voxels_off_pct", "voxels off %"),
    ("inner_voxels_off_pct", "inner off %"),
    ("voxels_off_by_noise_pct", "by noise %"),
    ("scale", "scale"),
)
# Table row, peer, further arguments of its script.
FIELD_ENGINES = (
    ("PyDoseRT DoseEngine", PYDOSERT, ["--engine", "central"]),
    ("PyDoseRT PencilDepth", PYDOSERT, ["--engine", "pencil"]),
    ("pyRadPlan", PYRADPLAN, []),
)


class Bench:
    """Runs scripts in the peers' environments and remembers which of those could not be made."""

    def __init__(self, venvs: Path, threads: int, work: Path) -> None:
        self.venvs, self.threads, self.work = venvs, threads, work
        self.made: dict[Peer, Path | str] = {}

    def ours(self, arguments: list[str]) -> Run:
        """rtplan in a process of its own. A failure of rtplan ends the benchmark."""
        return run_script(Path(sys.executable), RTPLAN_SCRIPT, arguments, self.work / "out", self.threads)

    def theirs(self, peer: Peer, arguments: list[str]) -> Run | str:
        """A peer's run, or why there is none."""
        if peer not in self.made:
            print(f"environment of {peer.name}: {', '.join(peer.requirements)}", flush=True)
            try:
                self.made[peer] = peer_interpreter(peer, self.venvs)
            except PeerFailed as problem:
                self.made[peer] = f"not installed: {problem}"
        python = self.made[peer]
        if isinstance(python, str):
            return python
        try:
            return run_script(python, peer.script, arguments, self.work / "out", self.threads)
        except PeerFailed as problem:
            return str(problem)


def row(result: Run | str, more: Callable[[Run], dict[str, object]] = lambda _: {}) -> dict[str, object]:
    """Figures of a run with what is calculated from its dose, or the reason why there are none."""
    return {"error": result} if isinstance(result, str) else result[0] | more(result)


def influence(bench: Bench, machine: str) -> Rows:
    """The influence matrix of the C-shape."""
    phantom = c_shape()
    path = bench.work / "c_shape.npz"
    save(path, phantom)
    own = bench.ours(["influence", str(path), "--machine", machine])

    def more(result: Run) -> dict[str, object]:
        both = sum(float(str(result[0][key])) for key in ("apply_cpu_s", "adjoint_cpu_s"))
        return {"apply_adjoint_cpu_s": both, "target_difference_pct": target_difference_pct(phantom, result[1], own[1])}

    return {OURS: row(own, more), "pyRadPlan": row(bench.theirs(PYRADPLAN, ["influence", str(path)]), more)}


def target_difference_pct(phantom: Beamlets, dose: NDArray[np.float32], ours: NDArray[np.float32]) -> float:
    """Same beams, same places? Mean difference of the doses of all beamlets in the target, each over its mean there, %."""
    a, b = (d[phantom.target].astype(np.float64) / d[phantom.target].mean(dtype=np.float64) for d in (dose, ours))
    return float(100 * np.abs(a - b).mean())


def fields(bench: Bench, machine: str, quality: str, size: int, beams: int) -> Rows:
    """The dose of open fields from all sides in a water cylinder."""
    path = bench.work / "cylinder.npz"
    save(path, cylinder_fields(size, beams, accuracy.TPR_20_10))
    rows: Rows = {OURS: row(bench.ours(["fields", str(path), "--machine", machine, "--quality", quality]))}
    for name, peer, arguments in FIELD_ENGINES:
        rows[name] = row(bench.theirs(peer, ["fields", str(path), *arguments]))
    return rows


def against_monte_carlo(bench: Bench, folder: Path, quality: str) -> dict[str, Rows]:
    """Every engine on the slab cases, by case; each engine scaled by its own dose at 10 cm in water."""
    slabs = {name: load_field(folder / f"{name}.npz", SLAB_SPACING_MM) for name in accuracy.CASES}
    engines: dict[str, Callable[[ReferenceField], NDArray[np.float32] | str]] = {
        OURS: lambda field: PLUGIN.dose(field.density, [field.fluence], field.model, quality=quality, backend="cpu")
    }
    for name, peer, arguments in FIELD_ENGINES:
        engines[name] = lambda field, peer=peer, arguments=arguments: slab_dose(bench, peer, arguments, field)
    result: dict[str, Rows] = {case: {} for case in slabs}
    for name, engine in engines.items():
        for case, figures in slab_rows(slabs, engine).items():
            result[case][name] = figures
    return result


def slab_dose(bench: Bench, peer: Peer, arguments: list[str], field: ReferenceField) -> NDArray[np.float32] | str:
    """A peer's dose on the case's own grid, or why there is none."""
    phantom: OpenFields = accuracy.slab_phantom(field)
    path = bench.work / "slab.npz"
    save(path, phantom)
    result = bench.theirs(peer, ["field", str(path), *arguments])
    return result if isinstance(result, str) else accuracy.without_air(result[1])


def slab_rows(slabs: dict[str, ReferenceField], engine: Callable[[ReferenceField], NDArray[np.float32] | str]) -> Rows:
    """One engine's figures by case. Without its dose in water nothing can be scaled."""
    rows: Rows = {}
    doses: dict[str, NDArray[np.float64]] = {}
    for case, field in slabs.items():
        dose = engine(field)
        if isinstance(dose, str):
            rows[case] = {"error": dose}
        else:
            doses[case] = averaged(dose, field.density.grid, field.edges_zyx_mm)
    if accuracy.WATER_CASE not in doses:
        return {case: {"error": "no dose in water"} for case in slabs} | rows
    scale = accuracy.scale_to_reference(accuracy.axis_curve(slabs[accuracy.WATER_CASE], doses[accuracy.WATER_CASE]))
    water = accuracy.axis_curve(slabs[accuracy.WATER_CASE], scale * doses[accuracy.WATER_CASE])
    for case, dose in doses.items():
        rows[case] = {"scale": scale, **accuracy.slab_figures(slabs[case], scale * dose, water)}
    return rows


def with_ratios(rows: Rows, columns: tuple[tuple[str, str], ...]) -> dict[str, object]:
    """Rows and ratios as they stand in the results file."""
    return {"engines": rows, "over_rtplan": ratios(rows, [key for key, _ in columns])}


def main() -> None:
    """Prints the tables and writes benchmarks/results/peers.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=default_folder())
    parser.add_argument("--threads", type=int, default=2)
    # A beam without head scatter and electrons, which the peers do not have either, and cones that suffice for a plan.
    parser.add_argument("--machine", default="point_source_mohan6")
    parser.add_argument("--quality", default="standard", help="of the open fields; accuracy is that of final quality")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--beams", type=int, default=9)
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--name", default="peers", help="of the results file")
    chosen = parser.parse_args()
    parts = chosen.only or list(PARTS)
    keys = ("threads", "machine", "quality", "size", "beams")
    figures: dict[str, object] = {"settings": {key: getattr(chosen, key) for key in keys}}
    figures["peers"] = {peer.name: list(peer.requirements) for peer in PEERS}
    with TemporaryDirectory(prefix="rtplan-peers-") as folder:
        bench = Bench(chosen.venvs, chosen.threads, Path(folder))
        if "influence" in parts:
            rows = influence(bench, chosen.machine)
            title = "\nInfluence matrix of the C-shape: 7 beams, 5 mm beamlets, 3 mm voxels, 167x167x108"
            print(table(title, rows, INFLUENCE_COLUMNS, with_ratios=True), flush=True)
            figures["influence"] = with_ratios(rows, INFLUENCE_COLUMNS)
        if "fields" in parts:
            rows = fields(bench, chosen.machine, chosen.quality, chosen.size, chosen.beams)
            title = f"\nDose of {chosen.beams} open 10x10 cm fields in water, {chosen.size} cubed voxels of 3 mm"
            print(table(title, rows, FIELD_COLUMNS, with_ratios=True), flush=True)
            figures["fields"] = with_ratios(rows, FIELD_COLUMNS)
        if "accuracy" in parts:
            figures["accuracy"] = accuracy_part(bench, chosen.cases, "final")
    print(write_results(chosen.name, figures))


def accuracy_part(bench: Bench, folder: Path, quality: str) -> dict[str, object]:
    """Prints the comparison with Monte Carlo, or that its cases are not here."""
    if not folder.exists():
        print("\nACCURACY SKIPPED: the Monte Carlo cases are not here; name their folder with --cases")
        return {"skipped": "the Monte Carlo cases were not at hand"}
    cases = against_monte_carlo(bench, folder, quality)
    for case, rows in cases.items():
        title = f"\n{case} against Monte Carlo, every engine scaled at 10 cm in water"
        print(table(title, rows, ACCURACY_COLUMNS, with_ratios=False), flush=True)
    return dict(cases)


if __name__ == "__main__":
    main()
