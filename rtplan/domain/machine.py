"""Treatment machines as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen


@dataclass(frozen=True, slots=True, eq=False)
class Mlc:
    """A multileaf collimator whose leaves move along IEC X of the beam limiting device. All mm at the isocentre plane."""

    leaf_boundaries_mm: NDArray[np.float64]  # (n_pairs + 1,) along Y, ascending
    max_position_mm: float  # how far a leaf may extend from the axis, either side
    max_overtravel_mm: float  # how far a leaf may cross the axis to the other side
    max_span_mm: float  # largest difference of positions within one bank
    min_gap_mm: float
    interdigitation: bool
    max_leaf_speed_mm_s: float
    transmission: float  # fraction of the open fluence, average of inter- and intra-leaf

    def __post_init__(self) -> None:
        object.__setattr__(self, "leaf_boundaries_mm", frozen(self.leaf_boundaries_mm, np.float64))

    @property
    def n_pairs(self) -> int:
        """Number of leaf pairs."""
        return len(self.leaf_boundaries_mm) - 1


@dataclass(frozen=True, slots=True)
class Jaws:
    """Limits of the jaws at the isocentre plane, mm. X1 and Y1 are the negative sides."""

    x1_range_mm: tuple[float, float]
    x2_range_mm: tuple[float, float]
    y1_range_mm: tuple[float, float]
    y2_range_mm: tuple[float, float]
    transmission: float


@dataclass(frozen=True, slots=True, eq=False)
class BeamModel:
    """What the dose engine knows of one photon beam.

    `energy_mev`, `photon_fraction`: (n_bins,) spectrum on the axis in air, photon number, sums to 1.
    `energy_fluence_per_mu_mev_cm2`: on the axis at the isocentre plane in air for an open field, per MU; set so that the
    engine gives 1 cGy per MU at the reference conditions. `off_axis_radius_mm`, `off_axis_factor`: primary fluence
    relative to the axis as a function of radius at the isocentre plane, over and above the inverse square.
    """

    energy_id: str  # such as "6X"
    nominal_energy_mv: float
    energy_mev: NDArray[np.float64]
    photon_fraction: NDArray[np.float64]
    energy_fluence_per_mu_mev_cm2: float
    source_sigma_x_mm: float  # Gaussian of the primary source, at the source plane; 0 is a point
    source_sigma_y_mm: float
    collimator_distance_mm: float  # source to the plane whose edge makes the penumbra
    off_axis_radius_mm: NDArray[np.float64]
    off_axis_factor: NDArray[np.float64]
    softening_radius_mm: NDArray[np.float64]
    softening_mu_ratio: NDArray[np.float64]
    sha256: str

    def __post_init__(self) -> None:
        for name in (
            "energy_mev",
            "photon_fraction",
            "off_axis_radius_mm",
            "off_axis_factor",
            "softening_radius_mm",
            "softening_mu_ratio",
        ):
            object.__setattr__(self, name, frozen(getattr(self, name), np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """A linear accelerator, as read and checked from `library/machines/<id>/`."""

    machine_id: str
    version: str
    title: str
    status: str  # such as "generic, not commissioned": repeated in the plan's label and report
    sources: tuple[str, ...]
    manufacturer: str
    model_name: str
    sad_mm: float
    mlc: Mlc
    jaws: Jaws
    beam: BeamModel
    max_gantry_speed_deg_s: float
    max_dose_rate_mu_min: float
    min_segment_mu: float
    min_segment_area_cm2: float
    max_beam_mu: float
    sha256: str
