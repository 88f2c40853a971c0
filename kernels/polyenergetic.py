"""From a photon spectrum to the tables of the dose operations: TERMA by radius and depth, and the two kernels it is split
between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class KernelTable:
    """Monoenergetic energy-deposition kernels in water as sums of exponentials, common to all energies and angles.

    Along a cone at polar angle bin t a photon of energy e that interacts deposits, within the radius r,
    Σ_i fraction_per_sr[e, t, i] (1 - exp(-a_i r)) of its energy per sr, where a_i = a_0 2^i and a_0 is
    `smallest_exponent_per_cm`; over all angles, `local_fraction`[e] more goes no further than about 0.5 mm.
    `energy_mev` (E,), `theta_edges_rad` (T + 1,), `fraction_per_sr` (E, T, I), `local_fraction` (E,).
    """

    energy_mev: Floats
    theta_edges_rad: Floats
    smallest_exponent_per_cm: float
    fraction_per_sr: Floats
    local_fraction: Floats

    @property
    def solid_angle_sr(self) -> Floats:
        """Solid angle of the polar bins, (T,)."""
        return 2 * np.pi * -np.diff(np.cos(self.theta_edges_rad))

    @property
    def exponents_per_cm(self) -> Floats:
        """a_i, (I,)."""
        power = np.arange(self.fraction_per_sr.shape[2], dtype=np.float64)
        return self.smallest_exponent_per_cm * np.exp2(power)


@dataclass(frozen=True, slots=True, eq=False)
class Attenuation:
    """Mass attenuation coefficient of water, total with coherent scattering: (n,) MeV and cm²/g."""

    energy_mev: Floats
    mu_over_rho_cm2_g: Floats

    def at(self, energy_mev: Floats) -> Floats:
        """Log-log interpolation."""
        return np.exp(np.interp(np.log(energy_mev), np.log(self.energy_mev), np.log(self.mu_over_rho_cm2_g)))


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Energy fluence by bin, summing to 1, with each bin's attenuation coefficient in water (cm²/g)."""

    energy_mev: Floats
    energy_fluence: Floats
    mu_cm2_g: Floats


@dataclass(frozen=True, slots=True, eq=False)
class DoseTables:
    """TERMA per unit energy fluence in air, split between two kernels: `terma_per_cm` (A, 2, D) by radius and depth.

    `per_sr` (2, T, I): the kernels, of the softest and the hardest photons there are; `local` (2,): what they deposit on the
    spot.
    """

    terma_per_cm: Floats
    per_sr: Floats
    local: Floats


HARDEST_DEPTH_CM = 40.0
_SOFTENING_DEPTH_CM = 10.0  # the path over which an off-axis spectrum's effective attenuation is told
_COMPARED_RADII_CM = np.array([0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 24.0])


def water_spectrum(energy_mev: Floats, photon_fraction: Floats, attenuation: Attenuation) -> Spectrum:
    """Photon numbers by bin (n,) to energy fluence."""
    fluence = photon_fraction * energy_mev
    return Spectrum(energy_mev, fluence / fluence.sum(), attenuation.at(energy_mev))


def softened(spectrum: Spectrum, mu_ratio: float) -> Spectrum:
    """The spectrum times E^-p, p such that its effective attenuation coefficient over 10 cm of water is `mu_ratio` times as
    large (as Tailor et al., Med Phys 25:662, 1998, describe an off-axis beam). Still sums to 1.

    Raises ValueError where no p does.
    """
    if mu_ratio == 1.0:
        return spectrum
    wanted = mu_ratio * _effective_mu(spectrum, 0.0)
    low, high = -20.0, 20.0
    for _ in range(60):
        power = (low + high) / 2
        low, high = (power, high) if _effective_mu(spectrum, power) < wanted else (low, power)
    found = _effective_mu(spectrum, power)
    if abs(found - wanted) > 1e-6 * wanted:
        raise ValueError(f"no power of the energy makes the spectrum attenuate {mu_ratio:g} times as much")
    return _tilted(spectrum, power)


def _tilted(spectrum: Spectrum, power: float) -> Spectrum:
    fluence = spectrum.energy_fluence * spectrum.energy_mev**-power
    return Spectrum(spectrum.energy_mev, fluence / fluence.sum(), spectrum.mu_cm2_g)


def _effective_mu(spectrum: Spectrum, power: float) -> float:
    tilted = _tilted(spectrum, power)
    return float(-np.log(tilted.energy_fluence @ np.exp(-tilted.mu_cm2_g * _SOFTENING_DEPTH_CM)) / _SOFTENING_DEPTH_CM)


def dose_tables(spectra: Sequence[Spectrum], table: KernelTable, depth_cm: Floats) -> DoseTables:
    """Tables of a beam whose spectrum in air at each radius is given, the axis first.

    T(d) = Σ_E ψ_E μ_E exp(-μ_E d) in water of 1 g/cm³. The kernel of the photons that interact at a radius and depth is
    their mean by TERMA; it moves along one line from the softest spectrum at the surface to the hardest at 40 cm, so TERMA
    is split between these two in the proportion whose mixture deposits most nearly the same within nine radii.
    """
    mixing = _kernel_mixing(spectra[0].energy_mev, table)
    per_bin = np.stack([_released(s, depth_cm) for s in spectra])  # (A, E, D)
    by_hardness = sorted(spectra, key=lambda s: _effective_mu(s, 0.0), reverse=True)
    softest = _weights(_released(by_hardness[0], np.zeros(1))[:, 0]) @ mixing
    hardest = _weights(_released(by_hardness[-1], np.array([HARDEST_DEPTH_CM]))[:, 0]) @ mixing
    seen = _deposited(table)  # (kernel energies, M)
    along = (hardest - softest) @ seen
    total = per_bin.sum(axis=1)
    there = np.einsum("aed,ek->adk", per_bin / total[:, None], mixing)
    share = np.clip(((there - softest) @ seen) @ along / (along @ along), 0.0, 1.0)
    ends = np.stack([softest, hardest])
    return DoseTables(
        np.stack([total * (1 - share), total * share], axis=1),
        np.einsum("ge,eti->gti", ends, table.fraction_per_sr),
        ends @ table.local_fraction,
    )


def _released(spectrum: Spectrum, depth_cm: Floats) -> Floats:
    """TERMA by energy bin and depth, (E, D) cm⁻¹."""
    released: Floats = (spectrum.energy_fluence * spectrum.mu_cm2_g)[:, None] * np.exp(
        -np.outer(spectrum.mu_cm2_g, depth_cm)
    )
    return released


def _weights(released: Floats) -> Floats:
    weights: Floats = released / released.sum()
    return weights


def _kernel_mixing(energy_mev: Floats, table: KernelTable) -> Floats:
    """Which tabulated kernels make each bin's, (E, kernel energies): linear in log energy; below the lowest, the lowest."""
    place = np.interp(np.log(energy_mev), np.log(table.energy_mev), np.arange(len(table.energy_mev)))
    low = np.minimum(place.astype(np.int64), len(table.energy_mev) - 2)
    mixing = np.zeros((len(energy_mev), len(table.energy_mev)))
    rows = np.arange(len(energy_mev))
    mixing[rows, low], mixing[rows, low + 1] = 1 - (place - low), place - low
    return mixing


def _deposited(table: KernelTable) -> Floats:
    """What each kernel deposits within some radii of every cone and on the spot, (kernel energies, M)."""
    within = 1 - np.exp(-np.outer(table.exponents_per_cm, _COMPARED_RADII_CM))
    cones = np.einsum("eti,t,ir->etr", table.fraction_per_sr, table.solid_angle_sr, within)
    return np.concatenate([cones.reshape(len(cones), -1), table.local_fraction[:, None]], axis=1)
