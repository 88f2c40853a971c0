"""What the sources of the head make of a fluence map: the focal spot's penumbra and the extra-focal photons.

Dual-source model (Jaffray, Battista, Fenster and Munro, Med Phys 20:1417, 1993; Fippel et al., Med Phys 30:301, 2003). The
energy fluence per MU on the isocentre plane, relative to that on the axis of a 10x10 cm² field, is
    Ψ(P) = [(1 - w) f(P) (A * G_1)(P) + w (A * G_2)(m P)] / [(1 - w) + w E_ref],
A the fluence map in units of MU, f the off-axis factor of the primary photons (multiplied on by the dose operations), w the
extra-focal share, G Gaussians: the image of each source through its collimator plane. E_ref = erf(50 mm / (√2 σ_2))² is what
the axis of a 10x10 field sees of the extra-focal source.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, ndtri

from kernels.contract import FluenceTable, fluence_table
from rtplan.domain.beams import FluenceMap
from rtplan.domain.machine import BeamModel, ExtraFocalSource

Floats = NDArray[np.float64]

BLUR_PIXEL_MM = 1.0
PRIMARY_REACH = 4.0  # standard deviations of the focal spot's shadow that a table extends beyond the map's edge
NEGLIGIBLE = 3e-3  # of the axis: head scatter and electrons below it are left out beyond the field
REFERENCE_HALF_FIELD_MM = 50.0  # 10x10 cm² at the isocentre plane


def source_blur_mm(model: BeamModel, sad_mm: float) -> tuple[float, float]:
    """Gaussian sigma of the source's shadow at the isocentre plane behind the collimator, mm along beam X and Y.

    sigma (SAD - d) / d, d the collimator's distance from the source.
    """
    magnified = (sad_mm - model.collimator_distance_mm) / model.collimator_distance_mm
    return model.source_sigma_x_mm * magnified, model.source_sigma_y_mm * magnified


def extra_focal_view(source: ExtraFocalSource, sad_mm: float) -> tuple[float, float]:
    """How a point P of the isocentre plane sees the extra-focal source: scale m and sigma_2 (mm).

    The line from P to the source's middle crosses the collimator where the primary source's ray to m P does; a point s of
    the source moves that crossing by k s. With z_c the collimator's and z_e the source's distance from the primary source,
    m = SAD (z_c - z_e) / (z_c (SAD - z_e)), k = SAD (SAD - z_c) / (z_c (SAD - z_e)), sigma_2 = k sigma.
    """
    z_c, z_e = source.collimator_distance_mm, source.distance_mm
    common = sad_mm / (z_c * (sad_mm - z_e))
    return common * (z_c - z_e), common * (sad_mm - z_c) * source.sigma_mm


def reference_share(source: ExtraFocalSource, sad_mm: float) -> float:
    """E_ref: what the axis of a 10x10 cm² field sees of the extra-focal source, 0 to 1."""
    return seen_on_axis(REFERENCE_HALF_FIELD_MM, extra_focal_view(source, sad_mm)[1])


def seen_on_axis(half_field_mm: float, sigma_mm: float) -> float:
    """Share of a round Gaussian inside a square about its middle."""
    return 1.0 if sigma_mm == 0 else math.erf(half_field_mm / (math.sqrt(2.0) * sigma_mm)) ** 2


def blurred_fluence(fluence: FluenceMap, model: BeamModel) -> FluenceTable:
    """Running integral of primary and extra-focal fluence at the isocentre plane, before the off-axis factor.

    Pixels of about 1 mm; a point source without extra-focal photons keeps the map's own sharp edges. The extra-focal part is
    divided by the off-axis factor, which the dose operations multiply onto everything.
    """
    sad_mm, source = fluence.beam.sad_mm, model.extra_focal
    sigma_x, sigma_y = source_blur_mm(model, sad_mm)
    if source.fraction == 0 and sigma_x == 0 and sigma_y == 0:
        return fluence_table(np.asarray(fluence.x_edges_mm), np.asarray(fluence.y_edges_mm), np.asarray(fluence.fluence_mu))
    x_edges = _table_edges(fluence.x_edges_mm, sigma_x, model, sad_mm)
    y_edges = _table_edges(fluence.y_edges_mm, sigma_y, model, sad_mm)
    primary = blurred(fluence, x_edges, y_edges, (sigma_x, sigma_y))
    if source.fraction == 0:
        return fluence_table(x_edges, y_edges, primary)
    scale, sigma = extra_focal_view(source, sad_mm)
    extra = blurred(fluence, scale * x_edges, scale * y_edges, (sigma, sigma)) / _off_axis(x_edges, y_edges, model)
    weight = source.fraction
    reference = (1 - weight) + weight * reference_share(source, sad_mm)
    return fluence_table(x_edges, y_edges, ((1 - weight) * primary + weight * extra) / reference)


def blurred(fluence: FluenceMap, x_edges_mm: Floats, y_edges_mm: Floats, sigma_xy_mm: tuple[float, float]) -> Floats:
    """Mean over pixels between given edges of the map convolved with a Gaussian, (ny, nx) MU."""
    # Each pixel receives from each map pixel the share that the blurred edges leave in it: the area is conserved.
    over_x = _spread(fluence.x_edges_mm, x_edges_mm, sigma_xy_mm[0])
    over_y = _spread(fluence.y_edges_mm, y_edges_mm, sigma_xy_mm[1])
    return over_y @ fluence.fluence_mu @ over_x.T


def reach_mm(share: float, sigma_mm: float) -> float:
    """How far beyond a long edge a Gaussian term that makes up `share` of the axis falls to the negligible."""
    return sigma_mm * max(0.0, float(-ndtri(NEGLIGIBLE / share))) if share > NEGLIGIBLE else 0.0


def uniform_edges(low_mm: float, high_mm: float, pixel_mm: float) -> Floats:
    """Equal pixels of at most `pixel_mm` from `low_mm` to `high_mm`."""
    return np.linspace(low_mm, high_mm, int(np.ceil((high_mm - low_mm) / pixel_mm)) + 1)


def _table_edges(edges_mm: Floats, sigma_mm: float, model: BeamModel, sad_mm: float) -> Floats:
    """Pixels of about 1 mm, 4 sigma of the focal spot beyond the map and as far as head scatter is not negligible."""
    low, high = edges_mm[0] - PRIMARY_REACH * sigma_mm, edges_mm[-1] + PRIMARY_REACH * sigma_mm
    if model.extra_focal.fraction > 0:
        scale, sigma = extra_focal_view(model.extra_focal, sad_mm)
        reach = reach_mm(model.extra_focal.fraction, sigma)
        # Beyond the last radius that the model speaks of the head shields.
        end = float(model.off_axis_radius_mm[-1])
        low = min(low, max((edges_mm[0] - reach) / scale, -end))
        high = max(high, min((edges_mm[-1] + reach) / scale, end))
    return uniform_edges(float(low), float(high), BLUR_PIXEL_MM)


def _off_axis(x_edges: Floats, y_edges: Floats, model: BeamModel) -> Floats:
    """Off-axis factor at the middle of each pixel, (ny, nx)."""
    x, y = (x_edges[1:] + x_edges[:-1]) / 2, (y_edges[1:] + y_edges[:-1]) / 2
    return np.interp(np.hypot(x[None, :], y[:, None]), model.off_axis_radius_mm, model.off_axis_factor)


def _spread(edges_mm: Floats, fine_mm: Floats, sigma_mm: float) -> Floats:
    """Mean over each fine pixel of each map pixel's indicator convolved with the Gaussian, (n_fine, n)."""
    apart = fine_mm[:, None] - edges_mm[None, :]
    if sigma_mm == 0:
        ramp = np.maximum(apart, 0.0)
    else:
        z = apart / sigma_mm
        # Integral of the normal distribution function: z Φ(z) + φ(z).
        ramp = sigma_mm * (z * 0.5 * (1 + erf(z / np.sqrt(2))) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
    inside = ramp[:, :-1] - ramp[:, 1:]
    mean: Floats = np.diff(inside, axis=0) / np.diff(fine_mm)[:, None]
    return mean
