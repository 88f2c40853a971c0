"""Makes `rtplan/library/kernels/water_egsnrc.npz` from the EGSnrc kernels: python -m benchmarks.fit_kernels KERNELS.npz"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SMALLEST_EXPONENT_PER_CM = 0.04
N_COMPONENTS = 9
EGSNRC_COMMIT = "9edee3eb"
OUT = Path(__file__).parents[1] / "rtplan" / "library" / "kernels" / "water_egsnrc.npz"

Floats = NDArray[np.float64]


def fit_cone(shell_per_sr: Floats, sigma_per_sr: Floats, r_edges_cm: Floats) -> Floats:
    """Amplitudes Q_i of one cone of one energy: Σ Q_i (e^{-a r1} - e^{-a r2}) for every shell, and its running sum.

    Shells are weighted by their own uncertainty, at least 1 %; the running sum to 0.3 % of the cone's energy. A ridge keeps
    neighbouring components from cancelling.
    """
    exponents = SMALLEST_EXPONENT_PER_CM * 2.0 ** np.arange(N_COMPONENTS)
    decay = np.exp(-np.outer(r_edges_cm, exponents))
    floor = 1e-5 / (4 * np.pi)
    weight = 1 / np.sqrt(sigma_per_sr**2 + (0.01 * shell_per_sr) ** 2 + floor**2)
    weight_sum = 1 / (0.003 * shell_per_sr.sum() + floor)
    matrix = np.vstack([(decay[:-1] - decay[1:]) * weight[:, None], (1 - decay[1:]) * weight_sum])
    wanted = np.concatenate([shell_per_sr * weight, shell_per_sr.cumsum() * weight_sum])
    ridge = 1e-3 * np.sqrt((matrix**2).sum(axis=0).mean()) * np.eye(N_COMPONENTS)
    return np.linalg.lstsq(np.vstack([matrix, ridge]), np.concatenate([wanted, np.zeros(N_COMPONENTS)]), rcond=None)[0]


def main(source: Path) -> None:
    """Fits every cone of every energy and writes the table with its provenance."""
    data = np.load(source)
    theta = np.radians(data["theta_edges_deg"])
    solid_angle = 2 * np.pi * -np.diff(np.cos(theta))
    shells = data["total"] / solid_angle[None, :, None]
    sigmas = data["total_sigma"].astype(np.float64) / solid_angle[None, :, None]
    edges = data["r_edges_cm"]
    fitted = np.array(
        [[fit_cone(s, e, edges) for s, e in zip(*pair, strict=True)] for pair in zip(shells, sigmas, strict=True)]
    )
    np.savez_compressed(
        OUT,
        energy_mev=data["energy_MeV"],
        theta_edges_rad=theta,
        smallest_exponent_per_cm=SMALLEST_EXPONENT_PER_CM,
        fraction_per_sr=fitted.astype(np.float32),
        deposited_fraction_60cm=data["total"].sum(axis=(1, 2)),
        provenance=f"{source.name} sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}; EGSnrc commit {EGSNRC_COMMIT}, EDKnrc; "
        "benchmarks/fit_kernels.py",
    )
    within = 1 - np.exp(-60 * SMALLEST_EXPONENT_PER_CM * 2.0 ** np.arange(N_COMPONENTS))
    for energy, q, total in zip(data["energy_MeV"], fitted, data["total"], strict=True):
        summed = (q * solid_angle[:, None]).sum(axis=0)
        print(
            f"{energy:6.2f} MeV  within 60 cm: fit {summed @ within:.4f}  EGSnrc {total.sum():.4f}  to infinity {summed.sum():.4f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
