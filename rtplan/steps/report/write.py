"""Writes report.html and report.json."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from rtplan.domain.grid import Float3
from rtplan.steps.report.content import content
from rtplan.steps.report.data import ReportData

_TEMPLATE = Path(__file__).with_name("report.html")


def write_report(data: ReportData, folder: Path) -> tuple[Path, Path]:
    """Write `report.html` (one self-contained file) and `report.json` (the same figures) into a folder; returns both paths.

    Raises OSError when the folder cannot be written, ValueError when a figure of the report is not finite.
    """
    plain = content(data)
    html, js = folder / "report.html", folder / "report.json"
    js.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    html.write_text(rendered(plain, figures(data)), encoding="utf-8")
    return html, js


def figures(data: ReportData) -> dict[str, str]:
    """All figures as data URIs by name."""
    # Drawing libraries are slow to import, and a command that only prints help must not wait for them.
    from rtplan.steps.report.beams_eye import beams_eye_png
    from rtplan.steps.report.figures import dvh_svg
    from rtplan.steps.report.planes import planes_png

    isocentre: Float3 = data.plan.beams[0].beam.isocentre_xyz_mm
    return {
        "dvh": _uri("image/svg+xml", dvh_svg(data)),
        "isocentre": _uri("image/png", planes_png(data, isocentre)),
        "hottest": _uri("image/png", planes_png(data, data.verification.hottest.point_xyz_mm)),
        "beams_eye": _uri("image/png", beams_eye_png(data)),
    }


def _uri(media_type: str, data: bytes) -> str:
    """Bytes as a data URI, so that the page needs no other file. An SVG inside <img> cannot run scripts."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def rendered(plain: dict[str, Any], images: dict[str, str]) -> str:
    """The page as HTML. Every text is escaped: names in DICOM files come from anywhere."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["fixed"] = _fixed
    environment.filters["signed"] = _signed
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(r=plain, images=images)


def _fixed(value: float | None, decimals: int = 2) -> str:
    """A number with fixed decimals, or a dash."""
    return "–" if value is None else f"{value:.{decimals}f}"


def _signed(value: float | None, decimals: int = 2) -> str:
    """A number with its sign and fixed decimals, or a dash."""
    return "–" if value is None else f"{value:+.{decimals}f}".replace("-", "−")
