"""What the dose engine has been compared with: beyond it a dose is an extrapolation, and the reviewer is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ValidatedRange:
    """Fields, densities and energies over which the dose was held against an independent calculation.

    Field sides are mm at the isocentre plane; `nominal_energies_mv` are the lowest and highest. `provenance` says against
    what, in words for the reviewer.
    """

    smallest_field_side_mm: float
    largest_field_side_mm: float
    largest_density_g_cm3: float
    nominal_energies_mv: tuple[float, float]
    provenance: str


# The cases of docs/dose.md. The patients among them hold denser voxels, but too few to say anything about such a density.
COLLAPSED_CONE = ValidatedRange(
    smallest_field_side_mm=30.0,
    largest_field_side_mm=200.0,
    largest_density_g_cm3=1.85,
    nominal_energies_mv=(6.0, 15.0),
    provenance="compared with Monte Carlo for open fields of 3x3 to 20x20 cm², 6 and 15 MV, in water, lung of 0.26 g/cm³ "
    "and bone of 1.85 g/cm³",
)
