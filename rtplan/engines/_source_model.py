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
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from kernels.contract import FluenceTable, fluence_table
from rtplan.domain.beams import FluenceMap
from rtplan.domain.machine import BeamModel, ExtraFocalSource

Floats = NDArray[np.float64]

BLUR_PIXEL_MM = 1.0
PRIMARY_REACH = 4.0  # standard deviations of the focal spot's shadow that a table extends beyond the map's edge
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


def primary_fluence(fluence: FluenceMap, model: BeamModel) -> FluenceTable:
    """Running integral of the primary fluence at the isocentre plane, before the off-axis factor.

    Pixels of about 1 mm; a point source keeps the map's own edges.
    """
    weight = weight_of_primary(model, fluence.beam.sad_mm)
    sigma_x, sigma_y = source_blur_mm(model, fluence.beam.sad_mm)
    if sigma_x == 0 and sigma_y == 0:
        return fluence_table(np.asarray(fluence.x_edges_mm), np.asarray(fluence.y_edges_mm), weight * fluence.fluence_mu)
    x_edges, y_edges = _table_edges(fluence.x_edges_mm, sigma_x), _table_edges(fluence.y_edges_mm, sigma_y)
    return fluence_table(x_edges, y_edges, weight * blurred(fluence, x_edges, y_edges, (sigma_x, sigma_y)))


def weight_of_primary(model: BeamModel, sad_mm: float) -> float:
    """(1 - w) / [(1 - w) + w E_ref]; the extra-focal photons' weight is w / (1 - w) times this."""
    weight = model.extra_focal.fraction
    return (1 - weight) / (1 - weight + weight * reference_share(model.extra_focal, sad_mm)) if weight else 1.0


def blurred(fluence: FluenceMap, x_edges_mm: Floats, y_edges_mm: Floats, sigma_xy_mm: tuple[float, float]) -> Floats:
    """Mean over pixels between given edges of the map convolved with a Gaussian, (ny, nx) MU."""
    # Each pixel receives from each map pixel the share that the blurred edges leave in it: the area is conserved.
    over_x = _spread(fluence.x_edges_mm, x_edges_mm, sigma_xy_mm[0])
    over_y = _spread(fluence.y_edges_mm, y_edges_mm, sigma_xy_mm[1])
    return over_y @ fluence.fluence_mu @ over_x.T


def _table_edges(edges_mm: Floats, sigma_mm: float) -> Floats:
    """Equal pixels of at most 1 mm that reach 4 sigma of the focal spot beyond the map."""
    low, high = float(edges_mm[0] - PRIMARY_REACH * sigma_mm), float(edges_mm[-1] + PRIMARY_REACH * sigma_mm)
    return np.linspace(low, high, int(np.ceil((high - low) / BLUR_PIXEL_MM)) + 1)


def _spread(edges_mm: Floats, fine_mm: Floats, sigma_mm: float) -> Floats:
    """Mean over each fine pixel of each map pixel's indicator convolved with the Gaussian, (n_fine, n)."""
    return _spread_once(edges_mm.tobytes(), fine_mm.tobytes(), sigma_mm)


# The maps of an arc lie on the same pixels.
@lru_cache(maxsize=32)
def _spread_once(edges: bytes, fine: bytes, sigma_mm: float) -> Floats:
    edges_mm, fine_mm = np.frombuffer(edges), np.frombuffer(fine)
    apart = fine_mm[:, None] - edges_mm[None, :]
    if sigma_mm == 0:
        ramp = np.maximum(apart, 0.0)
    else:
        z = apart / sigma_mm
        # Integral of the normal distribution function: z Φ(z) + φ(z).
        ramp = sigma_mm * (z * 0.5 * (1 + erf(z / np.sqrt(2))) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
    inside = ramp[:, :-1] - ramp[:, 1:]
    mean: Floats = np.diff(inside, axis=0) / np.diff(fine_mm)[:, None]
    mean.flags.writeable = False
    return mean
