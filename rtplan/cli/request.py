"""What several commands share of reading a request: devices, and a place for the output."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rtplan.errors import RequestInvalid


class Device(StrEnum):
    """Where the loops run. `auto` is a choice that the report records; `cuda` is the GPU by its maker's name."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"
    CUDA = "cuda"


class TechniqueName(StrEnum):
    """What a protocol may be planned by in place of its own technique."""

    IMRT = "imrt"
    VMAT = "vmat"
    CONFORMAL = "conformal"


TechniqueOption = Annotated[
    TechniqueName | None,
    typer.Option("--technique", help="In place of the protocol's own, where it has beams or arcs for it."),
]
ModelId = Annotated[
    str | None, typer.Option("--model", metavar="ID", help="Model that contours organs; without it the settings' default.")
]
AutoContours = Annotated[
    bool,
    typer.Option("--auto-contours/--no-auto-contours", help="Contour organs that the protocol uses and the set lacks."),
]


def model_or_default(model: str | None) -> str:
    """The model that was named, else the one that the settings name."""
    from rtplan.settings import load_settings

    return model or load_settings().models.default


def prepare_folder(out: Path, *, overwrite: bool, inputs: tuple[Path, ...] = ()) -> Path:
    """The absolute output folder, empty of earlier results. Made only once there is something to write.

    Raises RequestInvalid when it is in use and `overwrite` was not asked for, or lies among the inputs.
    """
    from rtplan.service.job import clear_results

    out = out.resolve()
    for source in inputs:
        if out == source.resolve() or out.is_relative_to(source.resolve()):
            raise RequestInvalid(
                "OUTPUT_AMONG_INPUTS", f"output folder {out} lies in the CT folder", "", "choose another folder with -o"
            )
    if out.exists() and not out.is_dir():
        raise RequestInvalid("OUTPUT_NOT_A_FOLDER", f"{out} is not a folder", "", "choose another folder with -o")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise RequestInvalid(
                "OUTPUT_NOT_EMPTY", f"output folder {out} is not empty", "", "choose another with -o, or add --overwrite"
            )
        clear_results(out)
    return out
