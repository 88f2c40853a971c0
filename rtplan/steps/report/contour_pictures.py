"""Contours on CT without dose: an organ in three planes, and the place that a finding is about."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from rtplan.domain.grid import Grid, Int3
from rtplan.domain.image import CtImage
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.steps.auto_contour import middle
from rtplan.steps.report.colours import Look, drawable, looks
from rtplan.steps.report.figures import SETTINGS, png_bytes
from rtplan.steps.report.page import MAX_PICTURES
from rtplan.steps.report.planes import VIEWS, WINDOW_HU, View, add_letters, add_ruler

_MARGIN_MM = 35.0
_OWN_WIDTH, _OTHER_WIDTH = 2.2, 0.8
_FINDING_VIEWS = (VIEWS[0], VIEWS[2])
_DPI = 80
Range = tuple[float, float]


def finding_pictures(ct: CtImage, structures: StructureSet, findings: Sequence[Finding]) -> list[bytes]:
    """A PNG for each finding that has a place to show, empty for the others and beyond the first MAX_PICTURES."""
    pictures, drawn = [], 0
    for finding in findings:
        at = place_of(finding, structures)
        if at is None or drawn == MAX_PICTURES:
            pictures.append(b"")
            continue
        drawn += 1
        pictures.append(contour_png(ct, structures, finding.structure, at, _FINDING_VIEWS, 163.0))
    return pictures


def place_of(finding: Finding, structures: StructureSet) -> Int3 | None:
    """Voxel that a finding's picture shows: its own, else the middle of its structure. What only informs has none."""
    if finding.at_zyx is not None or finding.severity == "info" or finding.structure not in structures:
        return finding.at_zyx
    mask = structures[finding.structure].mask
    return middle(mask) if mask.any() else None


def organ_png(ct: CtImage, structures: StructureSet, name: str) -> bytes:
    """One structure that is not empty in three planes through its middle, with the others thinly drawn. PNG."""
    return contour_png(ct, structures, name, middle(structures[name].mask), VIEWS, 280.0)


def contour_png(
    ct: CtImage, structures: StructureSet, name: str, at_zyx: Int3, views: Sequence[View], width_mm: float
) -> bytes:
    """CT planes through a voxel with all outlines, that of `name` boldly; around `name` where it exists, else all of it."""
    centres = (ct.grid.z_mm(), ct.grid.y_mm(), ct.grid.x_mm())
    mask = structures[name].mask if name in structures else None
    box = _box_mm(mask, at_zyx, ct.grid, centres)
    style = _styles(structures, name)
    aspects = [_length(box[v.column_axis]) / _length(box[v.row_axis]) for v in views]
    with mpl.rc_context(SETTINGS):
        width = width_mm / 25.4  # inches, as matplotlib wants it
        figure = Figure(figsize=(width, min(7.0, width / sum(aspects) + 0.9)), layout="constrained")
        gridspec = figure.add_gridspec(1, len(views), width_ratios=aspects)
        for column, view in enumerate(views):
            _draw(figure.add_subplot(gridspec[0, column]), ct, structures, view, at_zyx, box, style)
        shown = [Line2D([], [], color=c, ls=d, lw=w, label=drawable(n)) for n, (c, d, w) in style.items()]
        figure.legend(handles=shown, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
        return png_bytes(figure, _DPI)


def _length(shown: Range) -> float:
    return shown[1] - shown[0]


def _box_mm(
    mask: NDArray[np.bool_] | None, at_zyx: Int3, grid: Grid, centres: tuple[NDArray[np.float64], ...]
) -> tuple[Range, ...]:
    """What is shown along z, y and x, mm."""
    box = []
    for axis, along in enumerate(centres):
        first, last = float(along[0]), float(along[-1])
        if mask is not None and mask.any():
            hit = along[np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))]
            at = float(along[at_zyx[axis]])
            first = max(first, min(float(hit[0]), at) - _MARGIN_MM)
            last = min(last, max(float(hit[-1]), at) + _MARGIN_MM)
        half = grid.spacing_zyx_mm[axis] / 2
        box.append((first - half, last + half))
    return tuple(box)


def _styles(structures: StructureSet, name: str) -> dict[str, Look]:
    """Colours as everywhere in the report; the structure in question stands out by its width."""
    return {
        n: (colour, dashes if n != name else "solid", _OWN_WIDTH if n == name else _OTHER_WIDTH)
        for n, (colour, dashes, _) in looks(structures).items()
    }


def _draw(
    axes: Axes,
    ct: CtImage,
    structures: StructureSet,
    view: View,
    at_zyx: Int3,
    box: tuple[Range, ...],
    style: dict[str, Look],
) -> None:
    """One plane through the voxel: CT, outlines, cross-hair, edge letters and ruler."""
    centres = (ct.grid.z_mm(), ct.grid.y_mm(), ct.grid.x_mm())
    columns, rows = centres[view.column_axis], centres[view.row_axis]
    half_c, half_r = ct.grid.spacing_zyx_mm[view.column_axis] / 2, ct.grid.spacing_zyx_mm[view.row_axis] / 2
    extent = (columns[0] - half_c, columns[-1] + half_c, rows[0] - half_r, rows[-1] + half_r)
    plane = np.take(ct.hu, at_zyx[view.across], axis=view.across)
    axes.set_facecolor("black")
    axes.imshow(
        plane, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent, origin="lower", interpolation="bilinear"
    )
    for name, (colour, dashes, width) in style.items():
        outline = np.take(structures[name].mask, at_zyx[view.across], axis=view.across)
        if outline.any() and not outline.all():
            axes.contour(
                columns, rows, outline.astype(float), levels=[0.5], colors=[colour], linestyles=[dashes], linewidths=width
            )
    axes.axvline(columns[at_zyx[view.column_axis]], color="white", lw=0.5, alpha=0.5)
    axes.axhline(rows[at_zyx[view.row_axis]], color="white", lw=0.5, alpha=0.5)
    shown_columns, shown_rows = box[view.column_axis], box[view.row_axis]
    axes.set_xlim(shown_columns)
    axes.set_ylim(shown_rows if view.row_up else shown_rows[::-1])
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{view.title}  {'zyx'[view.across]} = {centres[view.across][at_zyx[view.across]]:.1f} mm", fontsize=8)
    add_letters(axes, view)
    add_ruler(axes, view, (shown_columns, shown_rows))
