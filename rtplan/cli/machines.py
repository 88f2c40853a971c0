"""`rtplan machines`: the treatment machines on the shelf."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rtplan.domain.machine import ArcLimits

app = typer.Typer(help="List, show and check treatment machines.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the machines with their status."""
    from rtplan.cli.console import say, say_json
    from rtplan.library.machines import list_machines, load_machine

    machines = {name: load_machine(name) for name in list_machines()}
    if as_json:
        say_json(
            [
                {"id": name, "energy": m.beam.energy_id, "version": m.version, "title": m.title, "status": m.status}
                for name, m in machines.items()
            ]
        )
        return
    width = max((len(name) for name in machines), default=0)
    for name, m in machines.items():
        say(f"{name:<{width}}  {m.beam.energy_id:<5}  {m.mlc.n_pairs} leaf pairs  {m.status}  {m.title}")


@app.command("show")
def show(
    machine: Annotated[str, typer.Argument(help="Name, such as generic_carm:6X, or a machine folder.")],
    as_json: AsJson = False,
) -> None:
    """Show one machine: collimators, limits, beam."""
    from dataclasses import asdict

    from rtplan.cli.console import say, say_json
    from rtplan.library.machines import load_machine

    m = load_machine(machine)
    if as_json:
        say_json(_plain(asdict(m)))
        return
    say(f"{m.machine_id} {m.version}: {m.title} ({m.status})")
    say(f"{m.manufacturer} {m.model_name}, source to axis {m.sad_mm:g} mm")
    leaves, jaws = m.mlc, m.jaws
    say(f"MLC: {leaves.n_pairs} pairs, Y {leaves.leaf_boundaries_mm[0]:g} to {leaves.leaf_boundaries_mm[-1]:g} mm")
    say(f"MLC: reach {leaves.max_position_mm:g} mm, over the axis {leaves.max_overtravel_mm:g} mm")
    say(f"MLC: span of one bank {leaves.max_span_mm:g} mm")
    interdigitation = "allowed" if leaves.interdigitation else "not allowed"
    say(f"MLC: gap {leaves.min_gap_mm:g} mm, interdigitation {interdigitation}, transmission {leaves.mean_transmission:.2%}")
    say(f"MLC: dosimetric leaf gap {leaves.dosimetric_leaf_gap_mm:g} mm, tongue {leaves.tongue_mm:g} mm")
    for name in ("x1", "x2", "y1", "y2"):
        low, high = getattr(jaws, f"{name}_range_mm")
        say(f"jaw {name.upper()}: {low:g} to {high:g} mm")
    beam = m.beam
    say(f"beam {beam.energy_id}: {beam.nominal_energy_mv:g} MV, {len(beam.energy_mev)} energies")
    say(f"beam {beam.energy_id}: extra-focal {beam.extra_focal.fraction:.1%}, electrons {beam.contamination.amplitude:.2%}")
    say(f"limits: {m.max_dose_rate_mu_min:g} MU/min, beam at most {m.max_beam_mu:g} MU")
    say(f"limits: segment at least {m.min_segment_mu:g} MU and {m.min_segment_area_cm2:g} cm2")
    say(f"gantry: {m.gantry_range_deg[0]:g} to {m.gantry_range_deg[1]:g} deg, {m.max_gantry_speed_deg_s:g} deg/s")
    say(f"arcs: {_arcs(m.arc)}")
    for source in m.sources:
        say(f"source: {source}")
    say(f"sha256 {m.sha256}")


def _arcs(limits: ArcLimits | None) -> str:
    if limits is None:
        return "none"
    rates = " or ".join(f"{rate:g}" for rate in limits.dose_rates_mu_min) or f"from {limits.min_dose_rate_mu_min:g}"
    mu = f"{limits.min_mu_per_deg:g} to {limits.max_mu_per_deg:g} MU per degree"
    return f"{rates} MU/min, {mu}, control points at most {limits.max_spacing_deg:g} deg apart"


@app.command("check")
def check(folder: Annotated[Path, typer.Argument(exists=True, help="A machine folder or its machine.yaml.")]) -> None:
    """Check a machine's files, every beam; a mistake is named with its line and field."""
    from rtplan.cli.console import say
    from rtplan.library.machines import check_beams

    beams = check_beams(folder)
    m, energies = beams[0], ", ".join(beam.beam.energy_id for beam in beams)
    say(f"{folder}: machine {m.machine_id} {m.version} is in order ({m.mlc.n_pairs} leaf pairs, {energies})")


def _plain(value: Any) -> Any:
    """Arrays as lists, for JSON."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
