"""What each beam delivers, seen from the source: small multiples of MU on the leaves' grid.

A fixed beam is one picture. An arc is a strip of apertures on its way, since their sum over all angles would show nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from rtplan.domain.machine import Mlc
from rtplan.domain.plan import Aperture, ControlPoint, PlanBeam
from rtplan.steps.report.colours import drawable, looks
from rtplan.steps.report.data import ReportData
from rtplan.steps.report.figures import SETTINGS, png_bytes
from rtplan.steps.report.projection import shadow

_PIXEL_MM = 1.0
_COLUMNS = 6
_ARC_STILLS = 8
_COLOURMAP = "cividis"
_DPI = 95
Mesh: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]  # edges x, y; values


def beams_eye_png(data: ReportData) -> bytes:
    """MU that pass the open aperture at each point of the isocentre plane. PNG.

    One picture a fixed beam, with one colour scale; a strip of apertures for every arc.
    """
    mlc = data.machine.mlc
    fixed = [beam for beam in data.plan.beams if not beam.is_arc]
    arcs = [beam for beam in data.plan.beams if beam.is_arc]
    pictures = [_Picture(beam, _title(beam), beam.beam.gantry_angle_deg, open_mu(beam, mlc)) for beam in fixed]
    with mpl.rc_context(SETTINGS):
        columns = _ARC_STILLS if arcs else min(_COLUMNS, len(fixed))
        first_rows = math.ceil(len(fixed) / columns)
        rows = first_rows + len(arcs)
        figure = Figure(figsize=(2.15 * columns + 0.9, 2.35 * rows), layout="constrained")
        extent = _shared_extent(data.plan.beams)
        highest = max((float(p.mu[2].max()) for p in pictures), default=0.0)
        drawn = [_draw(figure, (rows, columns, i), p, extent, highest) for i, p in enumerate(pictures, start=1)]
        for axes, picture in zip(figure.axes, pictures, strict=True):
            _outline_targets(axes, data, picture, extent)
        fixed_axes = list(figure.axes)
        for row, arc in enumerate(arcs, start=first_rows):
            for i, still in enumerate(arc_stills(arc, mlc), start=row * columns + 1):
                # A still shows where the aperture stands, not what it gives: its scale is its own.
                _draw(figure, (rows, columns, i), still, extent, 1.0)
                _outline_targets(figure.axes[-1], data, still, extent)
        if drawn:
            figure.colorbar(drawn[0], ax=fixed_axes, label="MU per fraction, open", shrink=0.8, pad=0.01)
        return png_bytes(figure, _DPI)


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A beam, what stands above its picture, the gantry's angle in it, and the edges and values to draw."""

    beam: PlanBeam
    title: str
    gantry_angle_deg: float
    mu: Mesh


def _title(beam: PlanBeam) -> str:
    return f"{beam.number}: {drawable(beam.beam.name)[:18]}\n{beam.mu:.1f} MU"


def arc_stills(arc: PlanBeam, mlc: Mlc) -> list[_Picture]:
    """The open aperture at control points evenly spread over an arc, at most eight, with angle and MU given until there."""
    last = len(arc.control_points) - 1
    chosen = np.unique(np.rint(np.linspace(0, last, _ARC_STILLS)).astype(int))
    stills = []
    for index in chosen:
        point = arc.control_points[index]
        x_edges, y_edges = _edges((point,), mlc, _shared_extent((arc,)))
        title = f"{arc.number}: {arc.rotation} {point.gantry_angle_deg:.0f}°\n{point.cumulative_mu:.1f} of {arc.mu:.1f} MU"
        open_part = open_fraction(point.aperture, mlc, x_edges, y_edges)
        stills.append(_Picture(arc, title, point.gantry_angle_deg, (x_edges, y_edges, open_part)))
    return stills


def _draw(figure: Figure, place: tuple[int, int, int], picture: _Picture, extent: float, highest: float) -> QuadMesh:
    axes = figure.add_subplot(*place)
    drawn = axes.pcolormesh(*picture.mu, cmap=_COLOURMAP, vmin=0.0, vmax=highest, rasterized=True)
    axes.set_facecolor(mpl.colormaps[_COLOURMAP](0.0))
    _finish(axes, picture.beam, picture.title, extent)
    return drawn


def _outline_targets(axes: Axes, data: ReportData, picture: _Picture, extent: float) -> None:
    """The prescribed targets as the source sees them."""
    style = looks(data.structures)
    beam = replace(picture.beam.beam, gantry_angle_deg=picture.gantry_angle_deg)
    for target in data.prescription.targets:
        if target.name not in data.structures:
            continue
        centres, covered = shadow(data.structures[target.name].mask, data.structures.grid, beam, extent)
        if covered.any():
            axes.contour(
                centres, centres, covered.astype(float), levels=[0.5], colors=[style[target.name][0]], linewidths=0.9
            )


def _finish(axes: Axes, beam: PlanBeam, title: str, extent: float) -> None:
    """Title, scale and cross-hair of one picture."""
    axes.set_title(title, fontsize=8)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent))
    x1, x2, y1, y2 = outermost_jaws_mm(beam)
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="white", lw=0.9, ls="dashed"))
    axes.set_aspect("equal")
    axes.axhline(0.0, color="white", lw=0.4, alpha=0.6)
    axes.axvline(0.0, color="white", lw=0.4, alpha=0.6)
    axes.tick_params(labelsize=6, length=2)


def _shared_extent(beams: Sequence[PlanBeam]) -> float:
    """Half width that shows every jaw opening, mm, rounded up to whole centimetres."""
    reach = max(abs(v) for b in beams for v in outermost_jaws_mm(b))
    return 10.0 * math.ceil(reach / 10.0 + 0.5)


def outermost_jaws_mm(beam: PlanBeam) -> tuple[float, float, float, float]:
    """X1, X2, Y1, Y2 of the smallest rectangle that holds the jaw openings of all control points."""
    apertures = [p.aperture for p in beam.control_points]
    return (
        min(a.jaw_x1_mm for a in apertures),
        max(a.jaw_x2_mm for a in apertures),
        min(a.jaw_y1_mm for a in apertures),
        max(a.jaw_y2_mm for a in apertures),
    )


def open_mu(beam: PlanBeam, mlc: Mlc) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges along X and Y in mm, and MU per fraction (ny, nx) for which each pixel is open; rows are leaf pairs cut by jaws.

    Between two control points the mean of both apertures counts. Transmission is left out: this is the shape, not the dose.
    """
    points = beam.control_points
    x_edges, y_edges = _edges(points, mlc, _shared_extent((beam,)))
    mu = np.zeros((len(y_edges) - 1, len(x_edges) - 1))
    for before, after in itertools.pairwise(points):
        given = after.cumulative_mu - before.cumulative_mu
        if given > 0:
            openings = [open_fraction(p.aperture, mlc, x_edges, y_edges) for p in (before, after)]
            mu += given * (openings[0] + openings[1]) / 2
    return x_edges, y_edges, mu


def _edges(points: Sequence[ControlPoint], mlc: Mlc, reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges along X and Y, mm: pixels to `reach` either side, leaf boundaries cut by all Y jaws."""
    jaws_y = {v for p in points for v in (p.aperture.jaw_y1_mm, p.aperture.jaw_y2_mm)}
    return np.arange(-reach, reach + _PIXEL_MM, _PIXEL_MM), np.array(sorted({*mlc.leaf_boundaries_mm.tolist(), *jaws_y}))


def open_fraction(
    aperture: Aperture, mlc: Mlc, x_edges: NDArray[np.float64], y_edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Part of each pixel (ny, nx) that leaves and jaws leave open, where no pixel straddles a leaf's or a Y jaw's edge."""
    y_centres = (y_edges[1:] + y_edges[:-1]) / 2
    pair = np.clip(np.searchsorted(mlc.leaf_boundaries_mm, y_centres) - 1, 0, mlc.n_pairs - 1)
    left = np.maximum(aperture.leaf_x1_mm[pair], aperture.jaw_x1_mm)[:, None]
    right = np.minimum(aperture.leaf_x2_mm[pair], aperture.jaw_x2_mm)[:, None]
    covered = np.minimum(right, x_edges[None, 1:]) - np.maximum(left, x_edges[None, :-1])
    inside_y = (y_centres > aperture.jaw_y1_mm) & (y_centres < aperture.jaw_y2_mm)
    in_bank = (y_centres > mlc.leaf_boundaries_mm[0]) & (y_centres < mlc.leaf_boundaries_mm[-1])
    open_part: NDArray[np.float64] = np.clip(covered / np.diff(x_edges)[None, :], 0.0, 1.0)
    return np.asarray(open_part * (inside_y & in_bank)[:, None], dtype=np.float64)
