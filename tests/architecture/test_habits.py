"""Habits of the code that a reader relies on: short files, units in names, no leftovers."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rtplan", "kernels", "segmentation")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERY_FILE = sorted(
    [*SOURCES, *(p for folder in ("tests", "sample_data", "benchmarks") for p in (ROOT / folder).rglob("*.py"))]
)
PHYSICS = sorted(
    p for folder in ("rtplan/domain", "rtplan/steps", "rtplan/engines", "kernels") for p in (ROOT / folder).rglob("*.py")
)

MAX_LINES = 450
# What a float parameter may be measured in. `_rel`, `_fraction`, `_factor`, `_weight` and counts are without unit.
UNITS = (
    *(
        "mm",
        "cm",
        "mm2",
        "cm2",
        "mm3",
        "cc",
        "per_cm",
        "deg",
        "rad",
        "gy",
        "cgy",
        "mu",
        "mev",
        "mv",
        "s",
        "ms",
        "percent",
        "hu",
    ),
    *("g_cm3", "cm2_g", "mev_cm2", "mm_s", "deg_s", "mu_min", "bytes"),
    *("rel", "fraction", "factor", "weight", "weights", "gap", "tolerance", "ratio", "power", "share", "transmission"),
)
_HAS_UNIT = re.compile(rf"(^|_)({'|'.join(UNITS)})$")
# Numbers without unit: mathematics, fractions of something, settings of a solver.
PURE_NUMBERS = frozenset(
    {"value", "limit", "step", "argument", "negligible", "exponent", "level", "threshold", "phase", "scale"}
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_tree_is_where_this_test_looks():
    assert len(SOURCES) > 20
    assert {"rtplan", "kernels", "segmentation"} == {p.relative_to(ROOT).parts[0] for p in SOURCES}


def test_no_file_outgrows_one_sitting():
    lengths = {_name(path): len(path.read_text().splitlines()) for path in EVERY_FILE}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_packages_do_not_print():
    calls = [
        f"{_name(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_nothing_is_left_to_do_later():
    word = re.compile("TO" + r"DO\b|FIX" + r"ME\b|X" + r"XX\b")
    assert [_name(path) for path in EVERY_FILE if word.search(path.read_text())] == []


def _float_parameters(path: Path) -> Iterator[tuple[str, str]]:
    """(function:line, parameter) of every public function's parameter that is annotated as a float."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if argument.annotation is not None and ast.unparse(argument.annotation) in ("float", "float | None"):
                    yield f"{_name(path)}:{node.lineno} {node.name}", argument.arg


def test_physical_quantities_carry_their_unit_in_the_name():
    # mutant: rename spacing_mm to spacing in rtplan.domain.grid.grid_over
    nameless = [
        f"{where}({parameter})"
        for path in PHYSICS
        for where, parameter in _float_parameters(path)
        if len(parameter) > 1 and parameter not in PURE_NUMBERS and not _HAS_UNIT.search(parameter)
    ]
    assert not nameless, "\n".join(nameless)


def test_torch_is_pinned_and_pins_are_exact():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line)] == []


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {_normal(re.split(r"[=<>~! ]", requirement)[0]) for requirement in wanted}
    pinned = {_normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert names - pinned == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", ["Makefile", ".ci/run", "README.md", "CHANGELOG.md", "LICENSE", "docs/architecture.md"])
def test_what_every_project_carries_is_there(path: str):
    assert (ROOT / path).stat().st_size > 0
