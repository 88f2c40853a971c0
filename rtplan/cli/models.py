"""`rtplan models`: the segmentation models of this installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="List segmentation models and pin MONAI bundles.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the models, where each is from, and whether its files are as released or pinned. Runs none of them."""
    from rtplan.cli.console import say, say_json
    from rtplan.library.models import list_segmenters, why_unusable
    from rtplan.settings import load_settings

    settings = load_settings().models
    bundles = {bundle.id for bundle in settings.bundles}
    rows: list[dict[str, Any]] = []
    for name, model in list_segmenters(settings).items():
        fault = why_unusable(model)
        origin = "bundle" if name in bundles else "shipped"
        rows.append(
            {
                "id": name,
                "origin": origin,
                "default": name == settings.default,
                "verified": fault is None,
                "fault": fault.line() if fault else None,
                "version": model.version if fault is None else None,
                "structures": list(model.labels),
            }
        )
    if as_json:
        say_json(rows)
        return
    width = max((len(row["id"]) for row in rows), default=0)
    for row in rows:
        state = "verified" if row["verified"] else row["fault"]
        default = " (default)" if row["default"] else ""
        count = f"{len(row['structures'])} structures{default}"
        say(f"{row['id']:<{width}}  {row['origin']:<7}  {count}  {row['version'] or '-'}  {state}")


@app.command("pin")
def pin(folder: Annotated[Path, typer.Argument(help="A MONAI bundle's folder.")]) -> None:
    """Print the settings of a bundle with its hashes, for an administrator to review and paste. Executes nothing of it."""
    from rtplan.cli.console import say
    from rtplan.library.models import pinned_entry

    for line in pinned_entry(folder):
        say(line)
