"""Monte Carlo reference fields (EGSnrc) as what the dose engine takes: slab phantoms and open fields in patients.

All doses here are Gy per MeV/cm² of energy fluence on the beam axis at the isocentre plane, without the patient. A slab
phantom's
depth axis becomes LPS y, its y becomes z: the beam at gantry 0 runs along +y.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, BeamModel

# Electrons per gram relative to water, by the first word of the medium's PEGS name.
ELECTRONS_REL = {"H2O": 1.0, "AIR": 0.8993, "LUNG": 0.9917, "ICRUTISSUE": 0.9904, "ICRPBONE": 0.9391}
_SUB_BINS = 5


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceField:
    """One Monte Carlo field on its own voxels: edges in mm by axis (z, y, x), dose and 1 sigma (z, y, x).

    `density` is on the uniform grid that the engine calculates on; `scored` voxels take part in comparisons.
    """

    name: str
    density: DensityImage
    fluence: FluenceMap
    model: BeamModel
    edges_zyx_mm: tuple[NDArray[np.float64], ...]
    dose: NDArray[np.float64]
    sigma: NDArray[np.float64]
    scored: NDArray[np.bool_]

    def on_voxels(self, dose: NDArray[np.floating]) -> NDArray[np.float64]:
        """A dose on the engine's grid averaged over the Monte Carlo voxels, exact for any overlap."""
        result = np.asarray(dose, dtype=np.float64)
        centres = (self.density.grid.z_mm(), self.density.grid.y_mm(), self.density.grid.x_mm())
        for axis, (edges, centre) in enumerate(zip(self.edges_zyx_mm, centres, strict=True)):
            step = centre[1] - centre[0]
            low = np.maximum(edges[:-1, None], centre[None] - step / 2)
            high = np.minimum(edges[1:, None], centre[None] + step / 2)
            overlap = np.clip(high - low, 0, None)
            overlap /= overlap.sum(axis=1, keepdims=True)
            result = np.moveaxis(np.tensordot(overlap, result, axes=(1, axis)), 0, axis)
        return result

    def centres_xyz_mm(self) -> NDArray[np.float64]:
        """Centres of the Monte Carlo voxels, (z, y, x, 3)."""
        z, y, x = ((e[1:] + e[:-1]) / 2 for e in self.edges_zyx_mm)
        return np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)


def beam_model(data: Any) -> BeamModel:
    """The case's own spectrum from a point source, for 1 MeV/cm² a MU; histogram bins are filled evenly."""
    edges, weight = data["spectrum_edges_MeV"], data["spectrum_prob"]
    middle = (np.arange(_SUB_BINS) + 0.5) / _SUB_BINS
    energy = (edges[:-1, None] + np.diff(edges)[:, None] * middle).ravel()
    return BeamModel(
        energy_id="reference",
        nominal_energy_mv=float(edges[-1]),
        energy_mev=energy,
        photon_fraction=np.repeat(weight / weight.sum() / _SUB_BINS, _SUB_BINS),
        energy_fluence_per_mu_mev_cm2=1.0,
        source_sigma_x_mm=0.0,
        source_sigma_y_mm=0.0,
        collimator_distance_mm=500.0,
        off_axis_radius_mm=np.array([0.0, 500.0]),
        off_axis_factor=np.array([1.0, 1.0]),
        softening_radius_mm=np.array([0.0, 500.0]),
        softening_mu_ratio=np.array([1.0, 1.0]),
        extra_focal=NO_EXTRA_FOCAL_SOURCE,
        contamination=NO_CONTAMINATION,
        sha256="",
    )


def load_field(path: Path, spacing_mm: float) -> ReferenceField:
    """A case by its npz file; slab phantoms are calculated on a grid of `spacing_mm`, patients on their own."""
    data, facts = np.load(path), json.loads(path.with_suffix(".json").read_text())
    return _slab(path.stem, data, facts, spacing_mm) if "z_edges" in data.files else _patient(path.stem, data, facts)


def with_machine(field: ReferenceField, model: BeamModel) -> ReferenceField:
    """The same field from a machine's beam, for 1 MeV/cm² a MU."""
    return replace(field, model=replace(model, energy_fluence_per_mu_mev_cm2=1.0))


def _slab(name: str, data: Any, facts: dict[str, Any], spacing_mm: float) -> ReferenceField:
    edges = (data["y_edges"] * 10.0, data["z_edges"] * 10.0, data["x_edges"] * 10.0)
    shape = tuple(round((e[-1] - e[0]) / spacing_mm) for e in edges)
    origin = tuple(float(e[0] + spacing_mm / 2) for e in edges)
    grid = Grid((shape[0], shape[1], shape[2]), (spacing_mm,) * 3, (origin[2], origin[1], origin[0]))
    source = (grid.z_mm(), grid.y_mm(), grid.x_mm())
    index = np.ix_(*(np.searchsorted(e, c) - 1 for e, c in zip(edges, source, strict=True)))
    mass = data["density"].transpose(1, 0, 2)[index]
    electrons = np.array([0.0] + [electrons_rel(m) for m in facts["media"]])[data["medium"].transpose(1, 0, 2)[index]] * mass
    x, y, z = facts["beam_axis_dir"]
    entry = facts["entrance_axis_point"]
    gantry = float(np.degrees(np.arctan2(-x, z))) % 360
    if abs(y) > 1e-9:
        raise ValueError(f"{name}: the axis leaves the plane that a gantry can turn in")
    beam = Beam(name, gantry, 0.0, 0.0, (entry[0] * 10.0, entry[2] * 10.0, entry[1] * 10.0), facts["SSD_cm"] * 10.0)
    half = np.array(facts["field_cm_at_SSD"]) * 5.0
    to_energy_fluence = facts["mean_cos3"] / facts["mean_energy_MeV"]
    dose = data["dose_per_onaxis_energy_fluence"].transpose(1, 0, 2).astype(np.float64)
    if not np.allclose(dose.max(), data["dose"].max() * to_energy_fluence, rtol=2e-3):
        raise ValueError(f"{name}: dose per energy fluence contradicts dose per photon fluence")
    zeroed = data["zero_frac"].transpose(1, 0, 2) > 0
    return ReferenceField(
        name,
        DensityImage(grid, mass, electrons),
        FluenceMap(beam, np.array([-half[0], half[0]]), np.array([-half[1], half[1]]), np.ones((1, 1))),
        beam_model(data),
        edges,
        dose,
        data["sigma"].transpose(1, 0, 2) * to_energy_fluence,
        ~zeroed & (dose > 0),
    )


def electrons_rel(medium: str) -> float:
    """Electrons per gram of a PEGS medium relative to water."""
    return next(value for key, value in ELECTRONS_REL.items() if medium.startswith(key))


def _patient(name: str, data: Any, facts: dict[str, Any]) -> ReferenceField:
    shape, spacing, origin = data["dose"].shape, data["spacing_zyx_mm"], data["origin_xyz_mm"]
    grid = Grid(shape, tuple(map(float, spacing)), tuple(map(float, origin)))
    gantry, collimator, couch = map(float, data["gantry_collimator_couch_deg"])
    isocentre = data["isocentre_xyz_mm"]
    beam = Beam(name, gantry, collimator, couch, tuple(map(float, isocentre)), float(data["SAD_mm"]))
    x1, x2, y1, y2 = data["field_x1x2y1y2_mm"]
    to_energy_fluence = facts["mean_cos3"] / facts["mean_energy_MeV"]
    dose = data["dose"].astype(np.float64) * to_energy_fluence
    edges = tuple(o + (np.arange(n + 1) - 0.5) * s for o, n, s in zip(origin[::-1], shape, spacing, strict=True))
    return ReferenceField(
        name,
        DensityImage(grid, data["density_g_cm3"], data["density_rel_electron"]),
        FluenceMap(beam, np.array([x1, x2]), np.array([y1, y2]), np.ones((1, 1))),
        beam_model(data),
        edges,
        dose,
        dose * data["rel_uncertainty"],
        data["density_g_cm3"] >= 0.5,
    )
