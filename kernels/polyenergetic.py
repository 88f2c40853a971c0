"""From a photon spectrum to the tables of the dose operations: TERMA by depth and the kernel of each energy group."""

from __future__ import annotations

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
    """Energy fluence by bin, summing to 1, with each bin's attenuation coefficient (cm²/g) and energy group."""

    energy_mev: Floats
    energy_fluence: Floats
    mu_cm2_g: Floats
    group: NDArray[np.int64]
    n_groups: int


# Groups share TERMA equally at this depth, where most of the dose is wanted; the kernels of a group are weighted there too.
REFERENCE_DEPTH_CM = 8.0


def grouped_spectrum(energy_mev: Floats, photon_fraction: Floats, attenuation: Attenuation, n_groups: int) -> Spectrum:
    """Photon numbers (n,) to energy fluence, in `n_groups` groups of neighbouring energies with equal shares of TERMA."""
    fluence = photon_fraction * energy_mev
    fluence = fluence / fluence.sum()
    mu = attenuation.at(energy_mev)
    terma = fluence * mu * np.exp(-mu * REFERENCE_DEPTH_CM)
    order = np.argsort(energy_mev, kind="stable")
    share = np.cumsum(terma[order]) - terma[order] / 2
    group = np.empty(len(energy_mev), dtype=np.int64)
    group[order] = np.minimum((share / terma.sum() * n_groups).astype(np.int64), n_groups - 1)
    return Spectrum(energy_mev, fluence, mu, group, n_groups)


def terma_table(spectrum: Spectrum, depth_cm: Floats) -> Floats:
    """TERMA per unit energy fluence in air: t_g(d) = Σ_{E in g} ψ_E μ_E exp(-μ_E d), water of 1 g/cm³. (G, D) cm⁻¹."""
    per_bin = (spectrum.energy_fluence * spectrum.mu_cm2_g)[:, None] * np.exp(-np.outer(spectrum.mu_cm2_g, depth_cm))
    return np.stack([per_bin[spectrum.group == g].sum(axis=0) for g in range(spectrum.n_groups)])


@dataclass(frozen=True, slots=True, eq=False)
class GroupKernels:
    """Kernel of each energy group: `per_sr` (G, T, I), and the share of TERMA deposited on the spot, `local` (G,)."""

    per_sr: Floats
    local: Floats


def group_kernels(table: KernelTable, spectrum: Spectrum) -> GroupKernels:
    """Kernels of the energy groups, weighted by TERMA at the reference depth.

    Kernels are linear in log energy between the tabulated ones; below the lowest (0.05 MeV) the lowest is used.
    """
    place = np.interp(np.log(spectrum.energy_mev), np.log(table.energy_mev), np.arange(len(table.energy_mev)))
    low = np.minimum(place.astype(np.int64), len(table.energy_mev) - 2)
    terma = spectrum.energy_fluence * spectrum.mu_cm2_g * np.exp(-spectrum.mu_cm2_g * REFERENCE_DEPTH_CM)
    mixing = np.zeros((spectrum.n_groups, len(table.energy_mev)))
    np.add.at(mixing, (spectrum.group, low), terma * (1 - (place - low)))
    np.add.at(mixing, (spectrum.group, low + 1), terma * (place - low))
    mixing /= mixing.sum(axis=1, keepdims=True)
    return GroupKernels(np.einsum("ge,eti->gti", mixing, table.fraction_per_sr), mixing @ table.local_fraction)
