"""Who drew what, and what is doubtful about it, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rtplan.domain.grid import Grid
from rtplan.domain.structures import Structure, StructureSet
from rtplan.domain.verdict import Finding

_SEVERITY_ORDER = {"hold": 0, "flag": 1, "info": 2}
_MADE = ("CONTROL", "SUPPORT")  # structures that nobody drew: helpers of the optimiser


def contour_records(structures: StructureSet) -> list[dict[str, Any]]:
    """One record for each structure that somebody or something drew, in order."""
    return [contour_record(s, structures.grid) for s in structures if s.kind not in _MADE]


def contour_record(structure: Structure, grid: Grid) -> dict[str, Any]:
    """Who drew a structure, its volume, and how sure a model was of it."""
    drawn = structure.drawn_by
    return {
        "name": structure.name,
        "kind": structure.kind,
        "source_name": structure.source_name,
        "origin": structure.origin,
        "model": None if drawn is None else drawn.model_id,
        "model_version": None if drawn is None else drawn.version,
        "confidence": None if drawn is None else round(drawn.confidence, 3),
        "volume_cc": int(structure.mask.sum()) * grid.voxel_cc,
    }


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Findings, those that hold the case first."""
    return sorted(findings, key=lambda f: _SEVERITY_ORDER[f.severity])


def finding_record(finding: Finding, grid: Grid) -> dict[str, Any]:
    """A finding with the place that shows it in patient coordinates."""
    at = finding.at_zyx
    centres = (grid.z_mm(), grid.y_mm(), grid.x_mm())
    return {
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "structure": finding.structure or None,
        "at_xyz_mm": None if at is None else [float(centres[axis][at[axis]]) for axis in (2, 1, 0)],
    }
