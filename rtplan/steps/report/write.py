"""Writes report.html and report.json."""

from __future__ import annotations

import json
from pathlib import Path

from rtplan.domain.grid import Float3
from rtplan.steps.report.content import content
from rtplan.steps.report.contours import in_order
from rtplan.steps.report.data import ReportData
from rtplan.steps.report.page import data_uri, rendered


def write_report(data: ReportData, folder: Path) -> tuple[Path, Path]:
    """Write `report.html` (one self-contained file) and `report.json` (the same figures) into a folder; returns both paths.

    Raises OSError when the folder cannot be written, ValueError when a figure of the report is not finite.
    """
    plain = content(data)
    html, js = folder / "report.html", folder / "report.json"
    js.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    html.write_text(rendered("report.html", r=plain, images=figures(data), pictures=pictures(data)), encoding="utf-8")
    return html, js


def figures(data: ReportData) -> dict[str, str]:
    """All figures as data URIs by name."""
    # Drawing libraries are slow to import, and a command that only prints help must not wait for them.
    from rtplan.steps.report.beams_eye import beams_eye_png
    from rtplan.steps.report.figures import dvh_svg
    from rtplan.steps.report.planes import planes_png

    isocentre: Float3 = data.plan.beams[0].beam.isocentre_xyz_mm
    return {
        "dvh": data_uri("image/svg+xml", dvh_svg(data)),
        "isocentre": data_uri("image/png", planes_png(data, isocentre)),
        "hottest": data_uri("image/png", planes_png(data, data.verification.hottest.point_xyz_mm)),
        "beams_eye": data_uri("image/png", beams_eye_png(data)),
    }


def pictures(data: ReportData) -> list[str]:
    """A data URI for each finding in the order of the report, empty where there is nothing to show."""
    from rtplan.steps.report.contour_pictures import finding_pictures

    drawn = finding_pictures(data.ct, data.structures, in_order(data.findings))
    return [data_uri("image/png", png) if png else "" for png in drawn]
