"""nvcc accepts every CUDA kernel for the GPUs that the speeds are stated for, with the launchers' own definitions."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from kernels.backend import MODULES
from kernels.cuda import columns, coverage, influence, superpose, terma
from kernels.cuda.runtime import FOLDER

LAUNCHERS = (terma, superpose, coverage, influence, columns)
SOURCES = [source for launcher in LAUNCHERS for source in launcher.SOURCES]


def test_every_launcher_and_every_file_is_compiled_here():
    # mutant: a .cu file that no launcher names
    assert {launcher.__name__.rsplit(".", 1)[1] for launcher in LAUNCHERS} == set(MODULES)
    assert {source.file for source in SOURCES} == {path.name for path in FOLDER.glob("*.cu")}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.file)
def test_nvcc_compiles_for_sm_90(source, tmp_path):
    # mutant: a definition missing; a kernel that spills its registers
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc to compile the CUDA kernels with")
    command = ["nvcc", "-arch=sm_90", "-std=c++17", "-cubin", "-Xptxas", "-v", f"-I{FOLDER}", *source.defines]
    command += ["--fmad=false"] if source.exact else []
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out.cubin"), str(FOLDER / source.file)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    spills = [line for line in done.stderr.splitlines() if "spill" in line and "0 bytes spill stores" not in line]
    assert spills == []
