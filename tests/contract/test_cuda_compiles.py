"""nvcc accepts every CUDA kernel for the GPUs that the speeds are stated for, with the launchers' own definitions."""

from __future__ import annotations

import shutil
import subprocess
import tomllib

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


def test_what_the_compiler_reads_is_installed_with_the_package():
    # mutant: headers left out of the package data
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["kernels"]
    installed = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert {path for path in FOLDER.iterdir() if path.suffix not in (".py", "") and path.is_file()} == installed


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
