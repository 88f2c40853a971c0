"""`rtplan doctor`: what this installation consists of, and whether it computes dose rightly."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer

SELF_TEST_MACHINE = "generic_6mv"
SELF_TEST_TOLERANCE = 0.05  # a coarse grid's; the physics tests hold the engine to far less
PACKAGES = ("rtplan", "numpy", "scipy", "numba", "pydicom", "SimpleITK", "distributed", "cupy-cuda12x", "torch", "monai")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Show versions, cores, memory, GPU and data hashes, and calculate a known dose in water.

    Exit code 1 when the self test fails.
    """
    from rtplan.cli.console import say, say_json

    sound, verdict = self_test()
    findings = {**_versions(), **_hardware(), **_data(), "self test": verdict}
    if as_json:
        say_json(findings)
    else:
        width = max(len(name) for name in findings)
        for name, value in findings.items():
            say(f"{name:<{width}}  {value}")
    raise typer.Exit(0 if sound else 1)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _hardware() -> dict[str, str]:
    from rtplan.service.cluster import available_cores, available_memory_bytes

    cores = available_cores()
    nvidia = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    return {
        "cores": str(cores),
        "memory": f"{available_memory_bytes() / 2**30:.1f} GiB",
        "kernel threads": os.environ.get("NUMBA_NUM_THREADS", str(cores)),
        "NVIDIA GPU": "present" if nvidia else "absent",
    }


def _data() -> dict[str, str]:
    import rtplan.library
    from rtplan.provenance import sha256_of_file

    folder = Path(rtplan.library.__file__).parent / "kernels"
    return {f"sha256 {path.name}": sha256_of_file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def self_test() -> tuple[bool, str]:
    """Whether the engine gives the known dose in water, and what it gave."""
    expected = f"1.000 cGy/MU within {SELF_TEST_TOLERANCE:.0%} at the depth of maximum, 10x10 cm2, SSD 100 cm"
    try:
        dose_cgy_per_mu = water_dose_cgy_per_mu()
    except Exception as error:  # whatever is broken, the rest of the findings is what helps to find it
        return False, f"FAILED: {type(error).__name__}: {error}; expected: {expected}"
    sound = abs(dose_cgy_per_mu - 1.0) <= SELF_TEST_TOLERANCE
    return sound, f"{'passed' if sound else 'FAILED'}: {dose_cgy_per_mu:.3f} cGy/MU; expected: {expected}"


def water_dose_cgy_per_mu() -> float:
    """Highest dose on the axis of a 10x10 cm² field of 100 MU in water at SSD 100 cm, in cGy per MU.

    The generic machine is calibrated to 1 cGy per MU there, so anything else means a broken installation.
    """
    import numpy as np

    from rtplan.domain.beams import Beam, FluenceMap
    from rtplan.domain.grid import grid_over
    from rtplan.domain.image import DensityImage
    from rtplan.library.machines import load_machine
    from rtplan.registry import shelf

    machine = load_machine(SELF_TEST_MACHINE)
    grid = grid_over((-102.5, 0.0, -102.5), (102.5, 150.0, 102.5), 5.0)
    water = np.ones(grid.shape_zyx, dtype=np.float32)
    density = DensityImage(grid, water, water)
    beam = Beam("self test", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), machine.sad_mm)
    edges_mm = np.array([-50.0, 50.0])
    field = FluenceMap(beam, edges_mm, edges_mm, np.array([[100.0]]))
    engine = shelf("rtplan.engines")["collapsed_cone"]
    dose_gy = engine.dose(density, [field], machine.beam, quality="quick", backend="cpu")
    middle = grid.shape_zyx[0] // 2
    return float(np.max(dose_gy[middle, :, middle]))
