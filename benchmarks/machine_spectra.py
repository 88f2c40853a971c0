"""Where the photon spectra of the generic accelerator come from: python -m benchmarks.machine_spectra [ENERGY]

The four-parameter form of Ali and Rogers (Phys Med Biol 57:31, 2012, function 13 of table 2, attenuation by table 3), whose
table 5 fits it to the Monte Carlo spectra of Varian accelerators by Sheikh-Bagheri and Rogers (Med Phys 29:391, 2002):
    ψ(E) = [1 + C3 E/Ee + (E/Ee)²] [ln(Ee (Ee - E) / E + 1.65) - 1/2] exp(-μ_W C1² - μ_Al C2²),
and C4 at 511 keV behind the same filters. Ee, C1, C3 and C4 are theirs. C2², the effective aluminium in g/cm², is chosen so
that the depth dose at 10 cm takes the value that physicists know: commissioning, on no machine's measurement. Beams without
a flattening filter have the electrons and the target of the flattened one and less aluminium.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BIN_MEV = 0.25
_LOWEST_MEV = 0.07  # of the attenuation's parametrisation
_LINE_MEV = 0.511
_SUB = 16


@dataclass(frozen=True, slots=True)
class FilteredTarget:
    """Parameters of the form: electrons' energy MeV, filters g/cm² by their square roots, shape, annihilation line."""

    electron_mev: float
    tungsten: float
    aluminium: float
    shape: float
    line: float


# Table 5 has for C2: 5.147 (6X), 6.226 (10X), 3.804 (15X).
BEAMS = {
    "6X": FilteredTarget(5.76, 1.222, 5.74, -1.186, 0.00881),
    "6FFF": FilteredTarget(5.76, 1.222, 3.81, -1.186, 0.00881),
    "10X": FilteredTarget(10.46, 0.702, 6.38, -1.285, 0.03891),
    "10FFF": FilteredTarget(10.46, 0.702, 5.05, -1.285, 0.03891),
    "15X": FilteredTarget(14.58, 4.614, 4.05, -1.060, 0.14034),
}


def spectrum(beam: FilteredTarget) -> tuple[Floats, Floats]:
    """Bin edges (n + 1,) MeV and the share of the photons in each bin (n,)."""
    edges = np.append(np.arange(0.0, beam.electron_mev, BIN_MEV), beam.electron_mev)
    energy = np.clip(np.linspace(edges[:-1], edges[1:], _SUB + 1, axis=1), _LOWEST_MEV, beam.electron_mev)
    photons = np.trapezoid(_energy_fluence(energy, beam) / energy, energy, axis=1)
    photons[np.searchsorted(edges, _LINE_MEV) - 1] += beam.line * _filtered(np.array(_LINE_MEV), beam) / _LINE_MEV
    return edges, photons / photons.sum()


def _energy_fluence(energy: Floats, beam: FilteredTarget) -> Floats:
    part = energy / beam.electron_mev
    logarithm = np.log(beam.electron_mev * (beam.electron_mev - energy) / energy + 1.65) - 0.5
    thin = (1 + beam.shape * part + part**2) * logarithm * _filtered(energy, beam)
    return np.maximum(thin, 0.0)


def _filtered(energy: Floats, beam: FilteredTarget) -> Floats:
    return np.exp(-_tungsten_cm2_g(energy) * beam.tungsten**2 - _aluminium_cm2_g(energy) * beam.aluminium**2)


def _tungsten_cm2_g(energy: Floats) -> Floats:
    above = 6.575 - 36.23 * energy - 1.578 * energy**2
    return np.exp(above / (1 + 9.667 * energy + 0.7132 * energy**2 - 3.778e-4 * energy**3))


def _aluminium_cm2_g(energy: Floats) -> Floats:
    log = np.log(energy)
    above = np.polynomial.polynomial.polyval(log, (6.107e-2, 1.694e-2, -2.390e-3, 3.116e-4, 5.286e-4, 2.507e-5))
    below = np.polynomial.polynomial.polyval(log, (1.0, 7.769e-1, 2.434e-1, 3.838e-2, 3.042e-3, 9.686e-5))
    return np.asarray(above / below)


def main(energies: list[str]) -> None:
    """Prints each spectrum as the lines of its beam file."""
    for energy in energies or list(BEAMS):
        edges, photons = spectrum(BEAMS[energy])
        middle = (edges[1:] + edges[:-1]) / 2
        print(f"# {energy}: mean {middle @ photons:.3f} MeV")
        print("spectrum_edges_mev:\n" + _rows([f"{e:.2f}" for e in edges]))
        print("spectrum_photon_fraction:\n" + _rows([f"{p:.8f}" for p in photons]))


def _rows(numbers: list[str]) -> str:
    lines = [", ".join(numbers[i : i + 10]) for i in range(0, len(numbers), 10)]
    return "  [" + ",\n   ".join(lines) + "]"


if __name__ == "__main__":
    main(sys.argv[1:])
