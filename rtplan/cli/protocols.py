"""`rtplan protocols`: the site protocols on the shelf."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rtplan.domain.prescription import BeamArrangement

app = typer.Typer(help="List, show and check site protocols.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the protocols with their doses and status."""
    from rtplan.cli.console import say, say_json
    from rtplan.library.protocols import list_protocols, load_protocol

    protocols = [load_protocol(name) for name in list_protocols()]
    if as_json:
        say_json([{"id": p.protocol_id, "version": p.version, "title": p.title, "status": p.status} for p in protocols])
        return
    width = max((len(p.protocol_id) for p in protocols), default=0)
    for p in protocols:
        doses = "/".join(f"{level.dose_gy:g}" for level in p.levels)
        say(f"{p.protocol_id:<{width}}  {doses} Gy in {p.fractions}  {p.status}  {p.title}")


@app.command("show")
def show(
    protocol: Annotated[str, typer.Argument(help="Id, or the path of a protocol file.")], as_json: AsJson = False
) -> None:
    """Show one protocol: targets, organs, goals with their sources, beams."""
    from dataclasses import asdict

    from rtplan.cli.console import say, say_json
    from rtplan.library.protocols import load_protocol

    p = load_protocol(protocol)
    if as_json:
        say_json(asdict(p))
        return
    say(f"{p.protocol_id} {p.version}: {p.title}, {p.fractions} fractions ({p.status})")
    for level in p.levels:
        optional = ", may be absent" if level.optional else ""
        say(f"target {level.target}: {level.dose_gy:g} Gy{optional}; names {', '.join(level.names)}")
    for organ in p.organs:
        say(f"organ {organ.name}{': required' if organ.required else ''}")
    for goal in p.goals:
        limit = f"{goal.metric.text} {goal.sense} {goal.limit:g}"
        say(f"goal {goal.structure} {limit} (priority {goal.priority}, {goal.status}: {goal.source})")
    say(f"technique {p.technique}, at most {p.segments_per_beam} segments a beam")
    for line in _beams(p.beams):
        say(line)
    if p.sided:
        say("angles, arcs and ipsilateral organs are those of a target on the left; the right gets their mirror image")
    say(f"dose grid {p.dose_grid_mm:g} mm, beamlets {p.beamlet_mm:g} mm, sha256 {p.sha256}")


def _beams(beams: BeamArrangement) -> list[str]:
    """One line for the static fields, each arc and the arrangement."""
    lines = []
    if beams.gantry_angles_deg:
        angles = " ".join(f"{angle:g}" for angle in beams.gantry_angles_deg)
        lines.append(f"beams at {angles} deg, collimator {beams.collimator_angle_deg:g} deg")
    for arc in beams.arcs:
        turn = f"{arc.start_deg:g} to {arc.stop_deg:g} deg {arc.direction}"
        lines.append(f"arc {turn}, collimator {arc.collimator_angle_deg:g} deg")
    if beams.arrangement is not None:
        lines.append(f"{beams.arrangement.kind.replace('_', ' ')}, collimator {beams.collimator_angle_deg:g} deg")
    return lines


@app.command("check")
def check(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A protocol YAML file.")]) -> None:
    """Check a protocol file; a mistake is named with its line and field."""
    from rtplan.cli.console import say
    from rtplan.library.protocols import check_protocol

    p = check_protocol(file)
    say(f"{file}: protocol {p.protocol_id} {p.version} is in order ({len(p.goals)} goals)")
