"""CT with dose and structures in the three planes through a point, in radiological convention."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from rtplan.domain.dose import dose_at_index
from rtplan.domain.grid import Float3, Grid
from rtplan.steps.report.colours import Look, drawable, looks
from rtplan.steps.report.data import ReportData
from rtplan.steps.report.figures import SETTINGS, png_bytes

WINDOW_HU = (-160.0, 240.0)  # soft tissue: level 40, width 400
ISODOSE_PERCENT = (107.0, 100.0, 95.0, 80.0, 50.0, 30.0)
_WASH_FROM_PERCENT = 20.0
_MARGIN_MM = 12.0
_COLOURMAP = "viridis"  # lightness rises evenly: readable without colour vision
_DPI = 110
_WIDTH_IN = 13.2
_RULER_MM = 50.0
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class View:
    """One plane: the array axis across it, the axes that run along columns and rows, and the letters at its edges.

    Patient coordinates are LPS: x grows to the left, y to posterior, z to superior. Radiological convention puts the
    patient's left at the picture's right, anterior at the top of an axial and at the left of a sagittal picture.
    """

    title: str
    across: int  # array axis (0 z, 1 y, 2 x) that is held fixed
    column_axis: int  # array axis that runs to the right
    row_axis: int
    row_up: bool  # whether the row axis grows upwards in the picture
    left: str
    right: str
    top: str
    bottom: str


VIEWS = (
    View("Axial", 0, 2, 1, False, "R", "L", "A", "P"),
    View("Coronal", 1, 2, 0, True, "R", "L", "S", "I"),
    View("Sagittal", 2, 1, 0, True, "A", "P", "S", "I"),
)


def planes_png(data: ReportData, point_xyz_mm: Float3) -> bytes:
    """Axial, coronal and sagittal plane through a point as one PNG, side by side at equal height."""
    with mpl.rc_context(SETTINGS):
        boxes = [_shown_box_mm(data, view, point_xyz_mm) for view in VIEWS]
        aspects = [(columns[1] - columns[0]) / (rows[1] - rows[0]) for columns, rows in boxes]
        figure = Figure(figsize=(_WIDTH_IN, min(9.0, _WIDTH_IN / sum(aspects) + 1.2)), layout="constrained")
        grid = figure.add_gridspec(1, len(VIEWS), width_ratios=aspects)
        style = looks(data.structures)
        for column, (view, box) in enumerate(zip(VIEWS, boxes, strict=True)):
            _draw_view(figure.add_subplot(grid[0, column]), data, view, point_xyz_mm, box, style)
        _add_legend(figure, data, style)
        return png_bytes(figure, _DPI)


def _shown_box_mm(data: ReportData, view: View, point_xyz_mm: Float3) -> tuple[Range, Range]:
    """Ranges along columns and rows, mm, that show the body in this plane and the point, with a margin."""
    grid = data.structures.grid
    mask = np.take(
        data.structures.external.mask, nearest_index(grid, view.across, point_xyz_mm[2 - view.across]), view.across
    )
    if not mask.any():
        mask = data.structures.external.mask.any(axis=view.across)
    ranges = []
    # After the axis across is gone, rows come before columns: both are in the order of the array.
    for axis, hit in ((view.column_axis, mask.any(axis=0)), (view.row_axis, mask.any(axis=1))):
        centres = (grid.z_mm(), grid.y_mm(), grid.x_mm())[axis][np.flatnonzero(hit)]
        at = point_xyz_mm[2 - axis]
        ranges.append((min(float(centres[0]), at) - _MARGIN_MM, max(float(centres[-1]), at) + _MARGIN_MM))
    return ranges[0], ranges[1]


def _draw_view(
    axes: Axes,
    data: ReportData,
    view: View,
    point_xyz_mm: Float3,
    box: tuple[Range, Range],
    style: dict[str, Look],
) -> None:
    """One plane with CT, dose wash, isodose lines, outlines, cross-hair and edge letters."""
    grid, at = data.ct.grid, point_xyz_mm[2 - view.across]
    index = nearest_index(grid, view.across, at)
    centres = (grid.z_mm(), grid.y_mm(), grid.x_mm())
    columns, rows = centres[view.column_axis], centres[view.row_axis]
    # The picture's own axes are patient mm, so equal aspect is true whatever the voxel shape.
    half_c, half_r = grid.spacing_zyx_mm[view.column_axis] / 2, grid.spacing_zyx_mm[view.row_axis] / 2
    extent = (columns[0] - half_c, columns[-1] + half_c, rows[0] - half_r, rows[-1] + half_r)
    axes.set_facecolor("black")
    plane = np.take(data.ct.hu, index, axis=view.across)
    axes.imshow(
        plane, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent, origin="lower", interpolation="bilinear"
    )
    _draw_dose(axes, data, view, centres[view.across][index], columns, rows)
    for name, (colour, dashes, width) in style.items():
        outline = np.take(data.structures[name].mask, index, axis=view.across)
        if outline.any() and not outline.all():
            axes.contour(
                columns, rows, outline.astype(float), levels=[0.5], colors=[colour], linestyles=[dashes], linewidths=width
            )
    axes.axvline(point_xyz_mm[2 - view.column_axis], color="white", lw=0.5, alpha=0.6)
    axes.axhline(point_xyz_mm[2 - view.row_axis], color="white", lw=0.5, alpha=0.6)
    axes.set_xlim(box[0])
    axes.set_ylim(box[1] if view.row_up else box[1][::-1])
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    coordinate = "zyx"[view.across]
    axes.set_title(f"{view.title}  {coordinate} = {centres[view.across][index]:.1f} mm", fontsize=10)
    add_letters(axes, view)
    add_ruler(axes, view, box)


def nearest_index(grid: Grid, axis: int, position_mm: float) -> int:
    """Index of the voxel layer nearest to a position along an array axis, within the grid."""
    fractional = (position_mm - grid.origin_xyz_mm[2 - axis]) / grid.spacing_zyx_mm[axis]
    return int(np.clip(round(fractional), 0, grid.shape_zyx[axis] - 1))


def dose_on_plane(
    data: ReportData, view: View, across_mm: float, columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Interpolated dose at the CT's pixel centres of a plane, (rows, columns) Gy."""
    points = np.empty((len(rows), len(columns), 3))  # (z, y, x) mm
    points[..., view.across] = across_mm
    points[..., view.row_axis] = rows[:, None]
    points[..., view.column_axis] = columns[None, :]
    index = data.dose.grid.to_index(points.reshape(-1, 3)[:, ::-1])
    return dose_at_index(data.dose, index).reshape(len(rows), len(columns))


def _draw_dose(
    axes: Axes, data: ReportData, view: View, across_mm: float, columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> None:
    """Colour wash from 20 % of the highest prescription upwards, and isodose lines."""
    dose = dose_on_plane(data, view, across_mm, columns, rows)
    prescribed = data.prescription.targets[0].dose_gy
    colours = mpl.colormaps[_COLOURMAP]
    norm = dose_norm(prescribed)
    levels = sorted(p / 100.0 * prescribed for p in ISODOSE_PERCENT)
    wash = np.ma.masked_less(dose, _WASH_FROM_PERCENT / 100.0 * prescribed)
    half_c, half_r = (columns[1] - columns[0]) / 2, (rows[1] - rows[0]) / 2
    extent = (columns[0] - half_c, columns[-1] + half_c, rows[0] - half_r, rows[-1] + half_r)
    axes.imshow(wash, cmap=colours, norm=norm, alpha=0.38, extent=extent, origin="lower", interpolation="nearest")
    reached = [v for v in levels if dose.min() < v < dose.max()]
    if reached:
        axes.contour(columns, rows, dose, levels=reached, colors=[colours(norm(v)) for v in reached], linewidths=0.8)


def dose_norm(prescribed_gy: float) -> Normalize:
    """Colour scale of dose: the same for every plane of a report."""
    return Normalize(_WASH_FROM_PERCENT / 100.0 * prescribed_gy, 1.10 * prescribed_gy, clip=True)


def add_letters(axes: Axes, view: View) -> None:
    """Directions at the four edges."""
    for x, y, letter in ((0.02, 0.5, view.left), (0.98, 0.5, view.right), (0.5, 0.98, view.top), (0.5, 0.02, view.bottom)):
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            color="white",
            weight="bold",
            fontsize=12,
            ha="left" if x < 0.1 else "right" if x > 0.9 else "center",
            va="top" if y > 0.9 else "bottom" if y < 0.1 else "center",
            path_effects=[withStroke(linewidth=2.5, foreground="black")],
        )


def add_ruler(axes: Axes, view: View, box: tuple[Range, Range]) -> None:
    """A bar of 5 cm at the lower left, because each plane has its own scale."""
    (x1, x2), (y1, y2) = box
    x = x1 + 0.03 * (x2 - x1)
    y = y1 + 0.03 * (y2 - y1) if view.row_up else y2 - 0.03 * (y2 - y1)
    axes.plot([x, x + _RULER_MM], [y, y], color="white", lw=2.0, solid_capstyle="butt")
    axes.annotate("5 cm", (x, y), xytext=(0, 4), textcoords="offset points", color="white", fontsize=8)


def _add_legend(figure: Figure, data: ReportData, style: dict[str, Look]) -> None:
    """Structures and isodose levels below the planes."""
    prescribed = data.prescription.targets[0].dose_gy
    colours, norm = mpl.colormaps[_COLOURMAP], dose_norm(prescribed)
    handles = [Line2D([], [], color=c, ls=d, lw=w, label=drawable(n)) for n, (c, d, w) in style.items()]
    handles += [
        Line2D(
            [],
            [],
            color=colours(norm(p / 100 * prescribed)),
            lw=0.9,
            marker="s",
            ms=6,
            label=f"{p:g} % = {p / 100 * prescribed:.4g} Gy",
        )
        for p in ISODOSE_PERCENT
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=8, frameon=False)
