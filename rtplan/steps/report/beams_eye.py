"""What each beam delivers, seen from the source: small multiples of MU on the leaves' grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from rtplan.domain.machine import Mlc
from rtplan.domain.plan import Aperture, PlanBeam
from rtplan.steps.report.colours import drawable
from rtplan.steps.report.data import ReportData
from rtplan.steps.report.figures import SETTINGS, png_bytes

_PIXEL_MM = 1.0
_COLUMNS = 6
_COLOURMAP = "cividis"
_DPI = 95


def beams_eye_png(data: ReportData) -> bytes:
    """MU that pass the open aperture at each point of the isocentre plane, one picture a beam, one colour scale. PNG."""
    beams, mlc = data.plan.beams, data.machine.mlc
    with mpl.rc_context(SETTINGS):
        columns = min(_COLUMNS, len(beams))
        rows = math.ceil(len(beams) / columns)
        figure = Figure(figsize=(2.15 * columns + 0.9, 2.35 * rows), layout="constrained")
        maps = [open_mu(beam, mlc) for beam in beams]
        highest = max(float(m[2].max()) for m in maps)
        extent = _shared_extent(beams)
        drawn = []
        for number, (beam, (x_edges, y_edges, mu)) in enumerate(zip(beams, maps, strict=True), start=1):
            axes = figure.add_subplot(rows, columns, number)
            drawn.append(axes.pcolormesh(x_edges, y_edges, mu, cmap=_COLOURMAP, vmin=0.0, vmax=highest, rasterized=True))
            axes.set_facecolor(mpl.colormaps[_COLOURMAP](0.0))
            _finish(axes, beam, extent)
        figure.colorbar(drawn[0], ax=figure.axes, label="MU per fraction through the open aperture", shrink=0.8, pad=0.01)
        return png_bytes(figure, _DPI)


def _finish(axes: Axes, beam: PlanBeam, extent: float) -> None:
    """Title, scale and cross-hair of one picture."""
    axes.set_title(f"{beam.number}: {drawable(beam.beam.name)[:18]}\n{beam.mu:.1f} MU", fontsize=8)
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
    jaws_y = {v for p in points for v in (p.aperture.jaw_y1_mm, p.aperture.jaw_y2_mm)}
    y_edges = np.array(sorted({*mlc.leaf_boundaries_mm.tolist(), *jaws_y}))
    reach = _shared_extent((beam,))
    x_edges = np.arange(-reach, reach + _PIXEL_MM, _PIXEL_MM)
    mu = np.zeros((len(y_edges) - 1, len(x_edges) - 1))
    for before, after in itertools.pairwise(points):
        given = after.cumulative_mu - before.cumulative_mu
        if given > 0:
            openings = [open_fraction(p.aperture, mlc, x_edges, y_edges) for p in (before, after)]
            mu += given * (openings[0] + openings[1]) / 2
    return x_edges, y_edges, mu


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
