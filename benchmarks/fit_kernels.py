"""Makes `rtplan/library/kernels/water_egsnrc.npz` from the EGSnrc kernels: python -m benchmarks.fit_kernels KERNELS.npz"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

SMALLEST_EXPONENT_PER_CM = 0.04
N_COMPONENTS = 9
EGSNRC_COMMIT = "9edee3eb"
OUT = Path(__file__).parents[1] / "rtplan" / "library" / "kernels" / "water_egsnrc.npz"

Floats = NDArray[np.float64]
EXPONENTS = SMALLEST_EXPONENT_PER_CM * 2.0 ** np.arange(N_COMPONENTS)
RADII_CM = np.concatenate([np.linspace(0, 8, 120), np.linspace(8.3, 60, 60)])


def fit_cone(shell_per_sr: Floats, sigma_per_sr: Floats, r_edges_cm: Floats) -> Floats:
    """Amplitudes Q_i of the exponentials and, last, the local share of one cone of one energy, per sr.

    Least squares of the shells' energies, each to its own uncertainty and 10 %, and of the running sum over the radius, to
    0.1 % of the cone's energy: what lies within a radius decides the dose in a field. A ridge of 1e-3 keeps neighbouring
    components from cancelling more than they must. The energy deposited per path is held non-negative at every radius, the
    local share too.
    """
    decay = np.exp(-np.outer(r_edges_cm, EXPONENTS))
    first = np.eye(len(shell_per_sr))[:, :1]
    shells = np.hstack([decay[:-1] - decay[1:], first])
    floor = 1 / (4 * np.pi)
    weight = 1 / np.sqrt(sigma_per_sr**2 + (0.1 * shell_per_sr) ** 2 + (1e-4 * floor) ** 2)
    weight_sum = 1 / np.hypot(1e-3 * shell_per_sr.sum(), 2e-5 * floor)
    matrix = np.vstack([shells * weight[:, None], shells.cumsum(axis=0) * weight_sum])
    wanted = np.concatenate([shell_per_sr * weight, shell_per_sr.cumsum() * weight_sum])
    ridge = 1e-3 * np.sqrt((matrix**2).sum(axis=0).mean()) * np.eye(N_COMPONENTS + 1)
    return constrained_least_squares(
        np.vstack([matrix, ridge]), np.append(wanted, np.zeros(N_COMPONENTS + 1)), _non_negative()
    )


def _non_negative() -> Floats:
    """Rows G of the constraint G Q >= 0: the energy per path at many radii (scaled to like size), and the local share."""
    scale = np.exp(np.minimum(2 * EXPONENTS[0] * RADII_CM, 9))
    per_path = np.exp(-np.outer(RADII_CM, EXPONENTS)) * EXPONENTS * scale[:, None]
    rows = np.zeros((len(RADII_CM) + 1, N_COMPONENTS + 1))
    rows[:-1, :-1], rows[-1, -1] = per_path, 1.0
    return rows


def constrained_least_squares(matrix: Floats, wanted: Floats, rows: Floats) -> Floats:
    """argmin |A x - b| with G x >= 0, as a least-distance problem solved by NNLS (Lawson and Hanson 1974, chapter 23)."""
    q, r = np.linalg.qr(matrix)
    free = q.T @ wanted
    size = np.abs(free).max()
    g = np.linalg.solve(r.T, rows.T).T
    dual = np.vstack([g.T, -(g @ free) / size])
    target = np.zeros(len(dual))
    target[-1] = 1.0
    residual = dual @ nnls(dual, target, maxiter=5000)[0] - target
    shift = np.zeros(len(free)) if abs(residual[-1]) < 1e-12 else -residual[:-1] / residual[-1]
    return np.linalg.solve(r, shift * size + free)


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
    local = fitted[:, :, -1] @ solid_angle
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    np.savez_compressed(
        OUT,
        energy_mev=data["energy_MeV"],
        theta_edges_rad=theta,
        smallest_exponent_per_cm=SMALLEST_EXPONENT_PER_CM,
        fraction_per_sr=fitted[:, :, :-1].astype(np.float32),
        local_fraction=local,
        deposited_fraction_60cm=data["total"].sum(axis=(1, 2)),
        provenance=f"{source.name} sha256 {sha256}; EGSnrc commit {EGSNRC_COMMIT}, EDKnrc; benchmarks/fit_kernels.py",
    )
    for energy, q, near, total in zip(data["energy_MeV"], fitted, local, data["total"], strict=True):
        summed = solid_angle @ q[:, :-1]
        within = near + summed @ (1 - np.exp(-60 * EXPONENTS))
        print(f"{energy:6.2f} MeV  within 60 cm: fit {within:.4f}, EGSnrc {total.sum():.4f}; all {near + summed.sum():.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
