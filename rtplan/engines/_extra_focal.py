"""Photons from the extra-focal source: their fluence, and their dose on a grid that is fine enough for it."""

from __future__ import annotations

import numpy as np

from kernels.contract import FluenceTable, fluence_table
from rtplan.domain.machine import BeamModel
from rtplan.engines._broad import PIXEL_MM, BroadField, Floats
from rtplan.engines._source_model import extra_focal_view, weight_of_primary

REACH = 2.5  # standard deviations of the source's shadow beyond the map: 0.6 % of a few per cent is left out


def extra_focal_fluence(field: BroadField, model: BeamModel) -> FluenceTable:
    """Running integral of the extra-focal fluence at the isocentre plane.

    Divided by the off-axis factor, which the dose operations multiply onto everything. Beyond the last radius that the model
    speaks of the head shields.
    """
    scale, sigma = extra_focal_view(model.extra_focal, field.beam.sad_mm)
    seen = field.table(sigma, REACH * sigma, scale, farthest_mm=float(model.off_axis_radius_mm[-1]))
    share = model.extra_focal.fraction
    weight = weight_of_primary(model, field.beam.sad_mm) * share / (1 - share)
    fluence = np.diff(np.diff(seen.integral, axis=0), axis=1) / PIXEL_MM**2
    off_axis = _off_axis(seen.x_edges_mm, seen.y_edges_mm, model)
    return fluence_table(seen.x_edges_mm, seen.y_edges_mm, weight * fluence / off_axis)


def _off_axis(x_edges: Floats, y_edges: Floats, model: BeamModel) -> Floats:
    """Off-axis factor at the middle of each pixel, (ny, nx)."""
    x, y = (x_edges[1:] + x_edges[:-1]) / 2, (y_edges[1:] + y_edges[:-1]) / 2
    return np.interp(np.hypot(x[None, :], y[:, None]), model.off_axis_radius_mm, model.off_axis_factor)
