"""One picture a patient: histograms of both doses with the criteria, and both doses on the CT through the isocentre."""

from __future__ import annotations

import re
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from benchmarks.openkbp.judge import Floats, PatientVolumes
from benchmarks.openkbp.records import Judged
from rtplan.domain.dose import cumulative_dvh
from rtplan.domain.grid import Float3
from rtplan.steps.report.figures import SETTINGS, png_bytes

# Told apart by people with colour vision deficiency; targets warm and wide.
COLOURS = {
    "PTV70": "#c1121f",
    "PTV63": "#f08a24",
    "PTV56": "#d64fc0",
    "Brainstem": "#00a884",
    "SpinalCord": "#1b6ca8",
    "RightParotid": "#3fa9f5",
    "LeftParotid": "#8e6bf0",
    "Esophagus": "#a86b32",
    "Larynx": "#7d8f1f",
    "Mandible": "#5c6b78",
}
ISODOSES_GY = (20.0, 30.0, 45.0, 53.2, 59.85, 66.5, 73.5)
ISODOSE_COLOURS = ("#3b4cc0", "#5aa2d8", "#4fc0a8", "#8fce4a", "#f2d43d", "#f08a24", "#c1121f")
WINDOW_HU = (-160.0, 240.0)
MET, MISSED = "#0a7d45", "#c1121f"
DPI = 100
MEAN_AT_PERCENT = {"RightParotid": 54.0}  # the parotids share a limit, and both marks should be seen
MARGIN_MM = 10.0
_CRITERION = re.compile(r"(?P<structure>\w+) (?P<metric>D99|D0\.1cc|Dmean)(?P<sense><=|>=)(?P<limit>[\d.]+)")


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """What is drawn: a patient, our dose on its voxels (z, y, x) Gy, both judgements, and the isocentre (x, y, z) mm."""

    name: str
    patient: PatientVolumes
    ours_gy: Floats
    ours: Judged
    reference: Judged
    isocentre_xyz_mm: Float3


def draw(drawing: Drawing) -> bytes:
    """The picture as PNG."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(15.0, 14.0), layout="constrained")
        figure.suptitle(
            f"{drawing.name}: {drawing.ours.met} of {len(drawing.ours.criteria)} criteria met, "
            f"reference {drawing.reference.met}",
            fontsize=14,
        )
        rows = figure.add_gridspec(2, 1, height_ratios=(1.0, 1.45))
        top = rows[0].subgridspec(1, 2, width_ratios=(1.9, 1.0))
        _histograms(figure.add_subplot(top[0]), drawing)
        beside = figure.add_subplot(top[1])
        _table(beside, drawing)
        _curve_legend(beside, drawing)
        below = rows[1].subgridspec(1, 2)
        doses = (("rtplan", drawing.ours_gy), ("reference", drawing.patient.reference_gy))
        for column, (title, dose_gy) in enumerate(doses):
            _plane(figure.add_subplot(below[column]), drawing, title, dose_gy)
        _isodose_legend(figure)
        return png_bytes(figure, DPI)


def _histograms(axes: Axes, drawing: Drawing) -> None:
    patient, nested = drawing.patient, drawing.patient.nested
    highest = max(drawing.ours_gy.max(), patient.reference_gy.max())
    shown = [name for name in COLOURS if nested[name].any()]
    for name in shown:
        width = 2.2 if name.startswith("PTV") else 1.4
        for dose_gy, dashes in ((drawing.ours_gy, "solid"), (patient.reference_gy, (0, (4, 2)))):
            dvh = cumulative_dvh(name, dose_gy[nested[name]], patient.grid.voxel_cc)
            axes.plot(dvh.dose_gy, dvh.volume_percent, color=COLOURS[name], lw=width, ls=dashes)
    for text in drawing.reference.criteria:
        _criterion_mark(axes, drawing, text)
    axes.set(xlim=(0, 1.02 * highest), ylim=(-1.5, 102), xlabel="Dose (Gy)", ylabel="Volume (%)")
    axes.grid(True, color="#dddddd", lw=0.6)
    axes.set_title("Dose-volume histograms, targets nested", loc="left", fontsize=10)


def _curve_legend(axes: Axes, drawing: Drawing) -> None:
    """Under the table, where it hides no curve."""
    nested = drawing.patient.nested
    lines = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in COLOURS.items() if nested[name].any()]
    styles = [
        Line2D([], [], color="#333333", lw=1.6, label="rtplan"),
        Line2D([], [], color="#333333", lw=1.6, ls=(0, (4, 2)), label="reference"),
        Line2D([], [], color="#333333", marker=">", ls="", label="at least (D99)"),
        Line2D([], [], color="#333333", marker="<", ls="", label="at most (D0.1cc,"),
        Line2D([], [], ls="", label="mean at half height)"),
    ]
    axes.legend(handles=lines + styles, loc="lower left", fontsize=8, ncols=3, frameon=False, handlelength=3.0)


def _criterion_mark(axes: Axes, drawing: Drawing, text: str) -> None:
    """A triangle at the criterion's dose and volume that points to where the curve may lie."""
    found = _CRITERION.fullmatch(text)
    if found is None:
        return
    volume_cc = drawing.patient.nested[found["structure"]].sum() * drawing.patient.grid.voxel_cc
    percent = {"D99": 99.0, "D0.1cc": 100.0 * 0.1 / volume_cc, "Dmean": MEAN_AT_PERCENT.get(found["structure"], 50.0)}[
        found["metric"]
    ]
    axes.plot(
        float(found["limit"]),
        percent,
        marker=">" if found["sense"] == ">=" else "<",
        color=COLOURS[found["structure"]],
        markersize=9,
        markeredgecolor="black",
        clip_on=False,
        zorder=5,
    )


def _table(axes: Axes, drawing: Drawing) -> None:
    """Each criterion with both values, met or missed."""
    axes.axis("off")
    rows, colours = [], []
    for name, reference in drawing.reference.criteria.items():
        ours = drawing.ours.criteria[name]
        cells = [(c.value_gy, c.met) for c in (ours, reference)]
        rows.append([name, *(f"{value:.1f} {'met' if met else 'missed'}" for value, met in cells)])
        colours.append(["black", *(MET if met else MISSED for _, met in cells)])
    for name in ("HI70", "CI95_all", "body.Dmean", "Dmax"):
        rows.append([name, *(f"{j.figures[name]:.2f}" for j in (drawing.ours, drawing.reference))])
        colours.append(["black"] * 3)
    table = axes.table(
        cellText=rows,
        colLabels=["criterion, Gy", "rtplan", "reference"],
        colWidths=[0.46, 0.27, 0.27],
        cellLoc="left",
        edges="horizontal",
        bbox=Bbox.from_bounds(0.0, 0.2, 1.0, 0.8),
    )
    table.auto_set_font_size(False)
    for (row, column), cell in table.get_celld().items():
        cell.get_text().set_fontsize(10)
        cell.set_edgecolor("#cccccc")
        if row:
            cell.get_text().set_color(colours[row - 1][column])


def _plane(axes: Axes, drawing: Drawing, title: str, dose_gy: Floats) -> None:
    """Axial plane through the isocentre, patient's left at the right: CT, dose wash and lines, targets and organs."""
    patient = drawing.patient
    grid = patient.grid
    k = int(
        np.clip(round((drawing.isocentre_xyz_mm[2] - grid.origin_xyz_mm[2]) / grid.spacing_zyx_mm[0]), 0, len(dose_gy) - 1)
    )
    x, y = grid.x_mm(), grid.y_mm()
    half_x, half_y = grid.spacing_zyx_mm[2] / 2, grid.spacing_zyx_mm[1] / 2
    extent = (x[0] - half_x, x[-1] + half_x, y[-1] + half_y, y[0] - half_y)
    axes.imshow(patient.hu[k], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent, interpolation="bilinear")
    levels = (*ISODOSES_GY, 200.0)
    axes.contourf(x, y, dose_gy[k], levels=levels, colors=ISODOSE_COLOURS, alpha=0.3)
    axes.contour(x, y, dose_gy[k], levels=ISODOSES_GY, colors=ISODOSE_COLOURS, linewidths=1.0)
    nested = patient.nested
    for name, colour in COLOURS.items():
        if nested[name][k].any():
            target = name.startswith("PTV")
            mask = nested[name][k].astype(float)
            axes.contour(x, y, mask, levels=[0.5], colors="white" if target else "black", linewidths=3.0 if target else 2.2)
            axes.contour(x, y, mask, levels=[0.5], colors=colour, linewidths=1.8 if target else 1.2)
    _frame(axes, drawing, k)
    axes.set_title(f"{title}, z = {grid.z_mm()[k]:.1f} mm, highest here {dose_gy[k].max():.1f} Gy", loc="left", fontsize=10)


def _frame(axes: Axes, drawing: Drawing, k: int) -> None:
    """The view around the body, the isocentre, and the sides' letters."""
    grid = drawing.patient.grid
    rows, columns = np.nonzero(drawing.patient.masks["External"][k])
    x, y = grid.x_mm()[columns], grid.y_mm()[rows]
    axes.set(xlim=(x.min() - MARGIN_MM, x.max() + MARGIN_MM), ylim=(y.max() + MARGIN_MM, y.min() - MARGIN_MM))
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.plot(*drawing.isocentre_xyz_mm[:2], marker="+", color="white", markersize=12)
    for letter, at in (("R", (0.01, 0.5)), ("L", (0.97, 0.5)), ("A", (0.49, 0.96)), ("P", (0.49, 0.01))):
        axes.text(*at, letter, transform=axes.transAxes, color="white", fontsize=11)


def _isodose_legend(figure: Figure) -> None:
    handles = [
        Patch(facecolor=colour, label=f"{level:g} Gy") for level, colour in zip(ISODOSES_GY, ISODOSE_COLOURS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
