"""Treatment machines as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen


@dataclass(frozen=True, slots=True, eq=False)
class Mlc:
    """A multileaf collimator whose leaves move along IEC X of the beam limiting device. All mm at the isocentre plane.

    Where neighbouring leaves overlap (tongue and groove) a strip `tongue_mm` wide, centred on their boundary, sees half the
    height of each: two closed neighbours let `interleaf_transmission` through, one alone the root of `transmission`.
    """

    leaf_boundaries_mm: NDArray[np.float64]  # (n_pairs + 1,) along Y, ascending
    max_position_mm: float  # how far a leaf may extend from the axis, either side
    max_overtravel_mm: float  # how far a leaf may cross the axis to the other side
    max_span_mm: float  # largest difference of positions within one bank
    min_gap_mm: float
    interdigitation: bool
    max_leaf_speed_mm_s: float
    transmission: float  # fraction of the open fluence through the full height of a leaf (intra-leaf)
    interleaf_transmission: float  # through the overlap of two closed neighbours
    tongue_mm: float  # width of the overlap of neighbours
    dosimetric_leaf_gap_mm: float  # what rounded ends let through, both tips together, as an opening

    def __post_init__(self) -> None:
        object.__setattr__(self, "leaf_boundaries_mm", frozen(self.leaf_boundaries_mm, np.float64))

    @property
    def n_pairs(self) -> int:
        """Number of leaf pairs."""
        return len(self.leaf_boundaries_mm) - 1

    @property
    def mean_transmission(self) -> float:
        """Fraction of the open fluence through the closed collimator, average of inter- and intra-leaf."""
        overlap = self.tongue_mm * (self.n_pairs - 1) / float(self.leaf_boundaries_mm[-1] - self.leaf_boundaries_mm[0])
        return self.transmission * (1 - overlap) + self.interleaf_transmission * overlap


@dataclass(frozen=True, slots=True)
class Jaws:
    """Limits of the jaws at the isocentre plane, mm. X1 and Y1 are the negative sides."""

    x1_range_mm: tuple[float, float]
    x2_range_mm: tuple[float, float]
    y1_range_mm: tuple[float, float]
    y2_range_mm: tuple[float, float]
    transmission: float
    max_speed_mm_s: float


@dataclass(frozen=True, slots=True)
class ArcLimits:
    """What a machine asks of an arc. The dose rate follows gantry and leaves; a machine without arcs has no such limits.

    `dose_rates_mu_min`: the only dose rates that it has, ascending; empty when it varies them continuously.
    """

    min_dose_rate_mu_min: float  # the lowest while the beam is on
    dose_rates_mu_min: tuple[float, ...]
    min_mu_per_deg: float
    max_mu_per_deg: float  # the gantry runs unevenly when it creeps
    max_spacing_deg: float  # between control points


@dataclass(frozen=True, slots=True)
class ExtraFocalSource:
    """Photons scattered in the head (flattening filter, primary collimator), seen through the collimators.

    `fraction` of the energy fluence on the axis where the collimators hide nothing of it; a Gaussian of `sigma_mm` in its
    own plane, `distance_mm` from the primary source; `collimator_distance_mm` is the effective plane of what shields it.
    """

    fraction: float
    sigma_mm: float
    distance_mm: float
    collimator_distance_mm: float


@dataclass(frozen=True, slots=True)
class ElectronContamination:
    """Electrons from the head and the air as a surface term of the dose.

    On the axis of a 10x10 cm² field their dose at the surface is `amplitude` times the beam's TERMA there; with depth it
    goes as (e^(-kd) - e^(-kR)) / (1 - e^(-kR)), k `attenuation_per_cm`, R `range_cm`, and is zero beyond R. Laterally the
    fluence is blurred by a Gaussian of `sigma_mm` at the isocentre plane: the wider the field, the more of them.
    """

    amplitude: float
    attenuation_per_cm: float
    range_cm: float
    sigma_mm: float


_ARRAYS = (
    "energy_mev",
    "photon_fraction",
    "off_axis_radius_mm",
    "off_axis_factor",
    "softening_radius_mm",
    "softening_mu_ratio",
)
NO_EXTRA_FOCAL_SOURCE = ExtraFocalSource(0.0, 0.0, 100.0, 500.0)
NO_CONTAMINATION = ElectronContamination(0.0, 1.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class BeamModel:
    """What the dose engine knows of one photon beam.

    `energy_mev`, `photon_fraction`: (n_bins,) spectrum on the axis in air, photon number, sums to 1.
    `energy_fluence_per_mu_mev_cm2`: on the axis at the isocentre plane in air for a 10x10 cm² field, primary and extra-focal
    together, per MU; set so that the engine gives 1 cGy per MU at the reference conditions. `off_axis_radius_mm`,
    `off_axis_factor`: primary fluence relative to the axis as a function of radius at the isocentre plane, over and above
    the inverse square. `softening_radius_mm`, `softening_mu_ratio`: effective attenuation coefficient in
    10 cm of water at a radius over the one on the axis; the spectrum there is softened until it has it.
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
    extra_focal: ExtraFocalSource
    contamination: ElectronContamination
    sha256: str

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            object.__setattr__(self, name, frozen(getattr(self, name), np.float64))

    @property
    def unflattened(self) -> bool:
        """Whether the beam runs without a flattening filter."""
        return self.energy_id.endswith("FFF")


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """A linear accelerator at one of its energies, as read and checked from `library/machines/<id>/`."""

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
    gantry_range_deg: tuple[float, float]  # from stop to stop, unwrapped: -180 to 180 is a gantry that cannot pass 180
    arc: ArcLimits | None  # None: it delivers no arcs
    sha256: str
