"""Radiation physics of water that the library ships: energy-deposition kernels and attenuation coefficients."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import yaml

from kernels.polyenergetic import Attenuation, KernelTable

_FOLDER = Path(__file__).parent / "kernels"
KERNEL_TABLE = _FOLDER / "water_egsnrc.npz"


@cache
def load_kernel_table() -> KernelTable:
    """Fitted monoenergetic energy-deposition kernels (EGSnrc); provenance in `library/kernels/README.md`."""
    with np.load(KERNEL_TABLE) as data:
        return KernelTable(
            data["energy_mev"],
            data["theta_edges_rad"],
            float(data["smallest_exponent_per_cm"]),
            data["fraction_per_sr"].astype(np.float64),
            data["local_fraction"],
        )


@cache
def load_attenuation() -> Attenuation:
    """Mass attenuation of water with coherent scattering (NIST SRD 126)."""
    data = yaml.safe_load((_FOLDER / "water_attenuation.yaml").read_text(encoding="utf-8"))
    return Attenuation(np.array(data["energy_mev"]), np.array(data["mu_over_rho_cm2_g"]))
