"""Figures of the report, drawn with matplotlib's Agg and SVG back ends and without pyplot's global state."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rtplan.steps.report.colours import drawable, looks
from rtplan.steps.report.data import ReportData

# parse_math off: a structure may be called "$x". hashsalt: the same plan gives the same bytes.
SETTINGS: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "rtplan",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def png_bytes(figure: Figure, dpi: int) -> bytes:
    """A figure as PNG."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def dvh_svg(data: ReportData) -> bytes:
    """Cumulative dose-volume histograms of all shown structures, with the prescribed doses marked. SVG."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(10.5, 4.8), layout="constrained")
        axes = figure.add_subplot()
        style = looks(data.structures)
        for dvh in data.verification.dvhs:
            colour, dashes, width = style[dvh.structure]
            axes.plot(dvh.dose_gy, dvh.volume_percent, color=colour, ls=dashes, lw=width, label=drawable(dvh.structure))
        for target in data.prescription.targets:
            axes.axvline(target.dose_gy, color="#444444", lw=0.8, ls=(0, (1, 3)))
            axes.text(target.dose_gy, 101.5, f"{target.dose_gy:g} Gy", ha="center", va="bottom", fontsize=8, color="#444444")
        highest = max((d.max_gy for d in data.verification.dvhs), default=1.0)
        axes.set(xlim=(0, 1.03 * highest), ylim=(0, 101), xlabel="Dose (Gy)", ylabel="Volume (%)")
        axes.grid(True, color="#dddddd", lw=0.6)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, handlelength=3.0)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
