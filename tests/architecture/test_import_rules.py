"""Who may import whom, and what the command may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rtplan", "kernels", "segmentation")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MAY_IMPORT_BY_NAME = {"rtplan/registry.py", "kernels/backend.py"}
HEAVY = ("torch", "numba", "matplotlib", "pydicom", "dask", "distributed", "scipy", "SimpleITK", "numpy")


def test_import_contracts_hold():
    # mutant: import rtplan.cli in rtplan/domain/outcome.py
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_registry_and_the_backends_import_by_name():
    # A linter does not see dynamic imports.
    # mutant: import_module("numba") in a step
    offenders = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name not in MAY_IMPORT_BY_NAME and _imports_by_name(ast.parse(path.read_text())):
            offenders.append(name)
    assert offenders == []


def _imports_by_name(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("import_module", "__import__"):
            return True
        if isinstance(node, ast.Name) and node.id == "__import__":
            return True
        if isinstance(node, ast.ImportFrom) and any(alias.name == "import_module" for alias in node.names):
            return True
    return False


def test_kernels_is_our_package():
    # Another distribution on PyPI is also called kernels.
    import kernels

    assert Path(kernels.__file__).resolve() == ROOT / "kernels" / "__init__.py"


def test_neither_the_pipeline_nor_the_list_of_models_loads_torch():
    # A plan whose contours are all given must not pay for a network's library; a model imports it when it segments.
    # mutant: import torch at the top of a module of segmentation.models
    code = (
        "import sys\nimport rtplan.contouring, rtplan.pipeline\n"
        "from rtplan.library.models import list_segmenters\nfrom rtplan.settings import Settings\n"
        "labels = [s.labels for s in list_segmenters(Settings().models).values()]\n"
        "sys.stderr.write(' '.join(m for m in ('torch', 'monai', 'safetensors') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_of_rtplan_imports_torch_anywhere():
    # Also not inside a function, and not by way of a package that brings it along.
    offenders = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in ("rtplan", "kernels")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
        if name.split(".")[0] in ("torch", "monai", "safetensors")
    ]
    assert offenders == []


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["segment", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_no_heavy_library(arguments: list[str]):
    # mutant: import the pipeline at the top of rtplan/cli/plan.py
    code = (
        "import sys\nfrom rtplan.cli.main import run\n"
        f"code = run({arguments!r})\n"
        f"sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == ""
