"""Conformal fields: the leaves on the target's outline, organs covered, and subfields that close hot regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import Beam, beam_frame
from rtplan.domain.grid import Grid
from rtplan.domain.machine import Machine
from rtplan.domain.openings import open_area_cm2
from rtplan.domain.plan import Aperture
from rtplan.domain.prescription import Block, Prescription
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import PlanningFailed
from rtplan.steps.closed_leaves import with_closed_pairs
from rtplan.steps.margins import expanded
from rtplan.steps.place_beams import PIXEL_MM, projection, surface_points_mm, target_union, too_large

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

NARROWEST_MM = 30.0  # opening of a leaf pair in a subfield: the narrowest field that the dose engine was compared with
LEAST_SHARE = 0.2
NEAR_TARGET_MM = 15.0  # skin nearer than this to the target is what the flash goes beyond


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Columns of the isocentre plane, `x_mm` (n,) their centres, for each leaf pair: (n_pairs, n) each."""

    x_mm: Floats
    wanted: Bools
    covered: Bools


@dataclass(frozen=True, slots=True, eq=False)
class OpenField:
    """One beam with its open aperture and what that came from."""

    beam: Beam
    plane: Plane
    aperture: Aperture


def open_fields(
    beams: tuple[Beam, ...], prescription: Prescription, structures: StructureSet, machine: Machine
) -> tuple[tuple[OpenField, ...], tuple[Finding, ...]]:
    """Leaves at the targets' outline grown by `target_margin_mm`, blocks closed, and BLOCK_ON_TARGET where they cover it.

    Each pair opens to the widest outline within its width. Tangents end at the axis behind and go `flash_mm` beyond the
    skin in front. Raises CaseRejected TARGET_TOO_LARGE; PlanningFailed LEAVES_OUT_OF_REACH, FIELD_TOO_SMALL.
    """
    rules = prescription.protocol.conformal
    target = target_union(prescription, structures)
    fields, findings = [], []
    for beam in beams:
        wanted = _outline(target, structures.grid, beam, machine, prescription.protocol.target_margin_mm)
        wanted = _with_tangential_edges(wanted, beam, target, prescription, structures, machine)
        covered = np.zeros_like(wanted)
        for block in rules.blocks if rules is not None else ():
            shadow = _block(block, structures, beam, machine)
            hidden = _hidden_share(shadow, target, structures.grid, beam, machine)
            if hidden > 0:
                text = f"{beam.name}: the block on {block.structure} covers {100 * hidden:.1f} % of the targets' outline"
                findings.append(Finding("BLOCK_ON_TARGET", "flag", text, block.structure))
            covered |= shadow
        plane = Plane(columns_mm(machine), wanted, covered)
        fields.append(OpenField(beam, plane, _open_aperture(plane, beam, machine)))
    return tuple(fields), tuple(findings)


def subfield(field: OpenField, hot_xyz_mm: Floats, voxel_mm: float, machine: Machine) -> Aperture | None:
    """The open field without the projection of hot points (n, 3): each pair keeps its longest run beside them.

    None when what is left is smaller than the machine's smallest segment or a fifth of the open field, which is its margin,
    or when the leaves cannot stand so.
    """
    hot = _on_pairs(hot_xyz_mm, field.beam, machine, margin_mm=0.0, voxel_mm=voxel_mm)
    if not (hot & field.plane.wanted).any():
        return None
    x1, x2 = _runs(field.plane, field.plane.covered | hot, NARROWEST_MM)
    box = field.aperture
    found = _placed(x1, x2, (box.jaw_x1_mm, box.jaw_x2_mm, box.jaw_y1_mm, box.jaw_y2_mm), machine)
    least_cm2 = max(machine.min_segment_area_cm2, LEAST_SHARE * open_area_cm2(field.aperture, machine.mlc))
    if found is None or open_area_cm2(found, machine.mlc) < least_cm2:
        return None
    return found


def columns_mm(machine: Machine) -> Floats:
    """Centres of the 1 mm columns of the isocentre plane that leaves and jaws can open, (n,) mm."""
    low = max(-machine.mlc.max_position_mm, machine.jaws.x1_range_mm[0])
    high = min(machine.mlc.max_position_mm, machine.jaws.x2_range_mm[1])
    return np.asarray(np.arange(low, high, PIXEL_MM) + PIXEL_MM / 2.0)


def _outline(target: Bools, grid: Grid, beam: Beam, machine: Machine, margin_mm: float) -> Bools:
    points = surface_points_mm(target, grid)
    return _on_pairs(points, beam, machine, margin_mm=margin_mm, voxel_mm=max(grid.spacing_zyx_mm), refuse=True)


def _on_pairs(
    points_mm: Floats, beam: Beam, machine: Machine, *, margin_mm: float, voxel_mm: float, refuse: bool = False
) -> Bools:
    """Which columns of which leaf pair the projection of points touches, (n_pairs, n_columns).

    With `refuse` a projection beyond what the machine can open raises CaseRejected TARGET_TOO_LARGE; else it is cut.
    """
    bitmap, x0, y0 = projection(points_mm, beam, margin_mm, voxel_mm)
    columns, bounds = columns_mm(machine), machine.mlc.leaf_boundaries_mm
    rows_mm = y0 + (np.arange(bitmap.shape[0]) + 0.5) * PIXEL_MM
    first = round((columns[0] - PIXEL_MM / 2.0 - x0) / PIXEL_MM)
    index = np.arange(len(columns)) + first
    on_bitmap = (index >= 0) & (index < bitmap.shape[1])
    pair = np.searchsorted(bounds, rows_mm) - 1
    on_leaves = (pair >= 0) & (pair < machine.mlc.n_pairs)
    inside = np.zeros(bitmap.shape[1], dtype=bool)
    inside[index[on_bitmap]] = True
    if refuse and (bitmap[~on_leaves].any() or bitmap[:, ~inside].any()):
        raise too_large(beam)
    found = np.zeros((machine.mlc.n_pairs, len(columns)), dtype=bool)
    for k in np.flatnonzero(on_leaves):
        found[pair[k], on_bitmap] |= bitmap[k, index[on_bitmap]]
    return found


def _with_tangential_edges(
    wanted: Bools, beam: Beam, target: Bools, prescription: Prescription, structures: StructureSet, machine: Machine
) -> Bools:
    """Of tangents: nothing behind the axis, and open beyond the skin in front. Other beams as they are."""
    arrangement = prescription.protocol.beams.arrangement
    if arrangement is None or arrangement.kind != "tangents":
        return wanted
    x_mm, grid = columns_mm(machine), structures.grid
    x_of_target, _, _ = beam_frame(beam).to_bev(surface_points_mm(target, grid))
    front = 1.0 if float(x_of_target.mean()) > 0 else -1.0
    edged = wanted & (front * x_mm > 0)
    skin = surface_points_mm(structures.external.mask, grid)
    near = expanded(target, grid, NEAR_TARGET_MM)
    skin = skin[near[tuple(np.rint(grid.to_index(skin)).astype(int).T)]]
    x, y, _ = beam_frame(beam).to_bev(skin)
    pair = np.searchsorted(machine.mlc.leaf_boundaries_mm, y) - 1
    for k in np.flatnonzero(edged.any(axis=1)):
        at_skin = front * x[pair == k]
        if at_skin.size:
            edge_mm = float(at_skin.max()) + (arrangement.flash_mm or 0.0)
            if edge_mm > float(np.abs(x_mm).max()):
                raise too_large(beam)
            inner = float((front * x_mm[edged[k]]).min())
            edged[k] |= (front * x_mm >= inner) & (front * x_mm <= edge_mm)
    return edged


def _block(block: Block, structures: StructureSet, beam: Beam, machine: Machine) -> Bools:
    """Columns of leaf pairs in an organ's shadow; none where it is not drawn (the goals say that it is missing)."""
    if block.structure not in structures or not structures[block.structure].mask.any():
        return np.zeros((machine.mlc.n_pairs, len(columns_mm(machine))), dtype=bool)
    grid = structures.grid
    points = surface_points_mm(structures[block.structure].mask, grid)
    # The grid of the CT tells the organ to half a voxel, across the body: slices may be far apart.
    return _on_pairs(points, beam, machine, margin_mm=block.margin_mm, voxel_mm=min(grid.spacing_zyx_mm))


def _hidden_share(shadow: Bools, target: Bools, grid: Grid, beam: Beam, machine: Machine) -> float:
    seen = _outline(target, grid, beam, machine, 0.0)
    return float((seen & shadow).sum() / max(int(seen.sum()), 1))


def _open_aperture(plane: Plane, beam: Beam, machine: Machine) -> Aperture:
    x1, x2 = _runs(plane, plane.covered, 0.0)
    is_open = np.flatnonzero(~np.isnan(x1))
    if not is_open.size:
        raise PlanningFailed("FIELD_TOO_SMALL", f"{beam.name}: the blocks cover the whole field", "a field that is open")
    bounds, jaws = machine.mlc.leaf_boundaries_mm, machine.jaws
    box = (
        min(float(np.nanmin(x1)), jaws.x1_range_mm[1]),
        max(float(np.nanmax(x2)), jaws.x2_range_mm[0]),
        min(float(bounds[is_open[0]]), jaws.y1_range_mm[1]),
        max(float(bounds[is_open[-1] + 1]), jaws.y2_range_mm[0]),
    )
    found = _placed(x1, x2, box, machine)
    if found is None:
        raise PlanningFailed(
            "LEAVES_OUT_OF_REACH",
            f"{beam.name}: the outline asks for leaves beyond their span or travel",
            "a smaller target",
        )
    area = open_area_cm2(found, machine.mlc)
    if area < machine.min_segment_area_cm2:
        expected = f"at least {machine.min_segment_area_cm2:g} cm²"
        raise PlanningFailed("FIELD_TOO_SMALL", f"{beam.name}: an opening of {area:.2f} cm²", expected, "a larger margin")
    return found


def _runs(plane: Plane, closed: Bools, narrowest_mm: float) -> tuple[Floats, Floats]:
    """Leaf tips (n_pairs,) around each pair's longest run of wanted columns that are not closed; NaN for closed pairs.

    Gaps in the outline are open: a leaf pair opens one interval, and what lies in between is part of it.
    """
    x1, x2 = np.full(len(closed), np.nan), np.full(len(closed), np.nan)
    for pair in np.flatnonzero(plane.wanted.any(axis=1)):
        columns = np.flatnonzero(plane.wanted[pair])
        free = np.zeros(closed.shape[1], dtype=bool)
        free[columns[0] : columns[-1] + 1] = True
        free &= ~closed[pair]
        index = np.flatnonzero(free)
        if not index.size:
            continue
        run = max(np.split(index, np.flatnonzero(np.diff(index) > 1) + 1), key=len)
        if len(run) * PIXEL_MM >= narrowest_mm:
            x1[pair], x2[pair] = plane.x_mm[run[0]] - PIXEL_MM / 2, plane.x_mm[run[-1]] + PIXEL_MM / 2
    return x1, x2


def _placed(x1: Floats, x2: Floats, box_mm: tuple[float, float, float, float], machine: Machine) -> Aperture | None:
    """Leaves and jaws, if the open pairs are within span and travel and the closed ones find a place."""
    is_open, mlc = ~np.isnan(x1), machine.mlc
    if not is_open.any():
        return None
    spans = float(np.ptp(x1[is_open])), float(np.ptp(x2[is_open]))
    across = max(float(x1[is_open].max()), float(-x2[is_open].min()))
    if max(spans) > mlc.max_span_mm or across > mlc.max_overtravel_mm:
        return None
    return with_closed_pairs(x1, x2, box_mm, machine)
