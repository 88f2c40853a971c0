"""PyDoseRT's photon pencil beams on the shared phantoms.

python -m benchmarks.peers.run_pydosert fields|field IN.npz OUT [--engine central|pencil], in an environment with PyDoseRT.
Writes OUT.json (figures) and OUT.npz (dose). `central` is its DoseEngine, which gives a whole plane the depth of the central
axis; `pencil` is its PencilDepthEngine, which gives every pencil a depth of its own.
"""

from __future__ import annotations

import argparse
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydosert import DoseEngine, PencilDepthEngine
from pydosert.data import BeamSequence, MachineConfig

from benchmarks.peers.measure import fastest, forget_peak, keep_to_threads, peak_memory_gib, timed, write_figures
from benchmarks.peers.phantom import OpenFields, load_fields

LEAF_PAIRS, LEAF_MM = 80, 5.0
ENGINES = {"central": DoseEngine, "pencil": PencilDepthEngine}


def machine(phantom: OpenFields) -> MachineConfig:
    """A machine without head scatter, penumbra or off-axis profile, its kernel chosen by the phantom's beam quality."""
    return MachineConfig(
        tpr_20_10=phantom.tpr_20_10,
        number_of_leaf_pairs=LEAF_PAIRS,
        leaf_widths=[LEAF_MM] * LEAF_PAIRS,
        mean_photon_energy_MeV=1.0,
    )


def sequence(phantom: OpenFields) -> BeamSequence:
    """The open fields; places are mm from the first voxel's centre in (z, y, x)."""
    isocentre = (phantom.isocentre_xyz_mm - phantom.origin_xyz_mm)[::-1]
    return BeamSequence.create(
        gantry_angles_deg=phantom.gantry_deg.tolist(),
        number_of_leaf_pairs=LEAF_PAIRS,
        field_size=(400, 400),
        iso_center=tuple(float(v) for v in isocentre),
        sid=phantom.sad_mm,
        open_field_size=2 * phantom.half_field_mm,
        device="cpu",
        requires_grad=False,
    )


def fields(phantom: OpenFields, kind: str, kernel_mm: float, repeats: int) -> tuple[dict[str, object], NDArray[np.float32]]:
    """Figures of the open fields' dose, and the dose. Geometry that the engine keeps between calls is not timed."""
    beams = sequence(phantom)
    density = torch.from_numpy(phantom.density)[None]

    def build() -> DoseEngine:
        return ENGINES[kind](
            machine_config=machine(phantom),
            kernel_size=2 * round(kernel_mm / 2 / phantom.spacing_mm) + 1,
            dose_grid_spacing=(phantom.spacing_mm,) * 3,
            dose_grid_shape=phantom.density.shape,
            beam_template=beams,
            device="cpu",
            # The same numbers as its direct convolution, sooner.
            conv_backend="fft",
        )

    with torch.no_grad(), warnings.catch_warnings():
        # The field enters at the phantom's face on purpose; nothing turns there at gantry 0.
        warnings.filterwarnings("ignore", message=".*lost when a slice is rotated.*")
        forget_peak()
        engine, setup = timed(build)
        dose, first = timed(lambda: engine.compute_dose(beams, density_image=density))
        cost = first
        if repeats:
            dose, cost = fastest(lambda: engine.compute_dose(beams, density_image=density), repeats)
    figures: dict[str, object] = {
        **cost,
        "first_cpu_s": setup["cpu_s"] + first["cpu_s"],
        "peak_memory_gib": peak_memory_gib(),
        "settings": f"{ENGINES[kind].__name__}, kernel {kernel_mm:g} mm wide, FFT convolution, no gradients, geometry kept",
    }
    return figures, dose[0].numpy()


def main() -> None:
    """Runs one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("fields", "field"))
    parser.add_argument("phantom", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", choices=tuple(ENGINES), default="central")
    chosen = parser.parse_args()
    threads = keep_to_threads()
    torch.set_num_threads(threads)
    alone = chosen.task == "field"
    # For accuracy the kernel covers the field from any of its corners; for speed it is as wide as in the engine's manual.
    figures, dose = fields(load_fields(chosen.phantom), chosen.engine, 300.0 if alone else 153.0, 0 if alone else 2)
    np.savez(chosen.out.with_suffix(".npz"), dose=np.asarray(dose, dtype=np.float32))
    write_figures(chosen.out.with_suffix(".json"), {**figures, "version": version("pydosert"), "threads": threads})


if __name__ == "__main__":
    main()
