"""Monte Carlo reference fields (EGSnrc) as what the dose engine takes: slab phantoms and open fields in patients.

All doses here are Gy per MeV/cm² of energy fluence on the beam axis at the isocentre plane, without the patient. A slab
phantom's depth axis becomes LPS y, its y becomes z: the beam at gantry 0 runs along +y.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, BeamModel
from rtplan.errors import RequestInvalid

# Electrons per gram relative to water, by the first word of the medium's PEGS name.
ELECTRONS_REL = {"H2O": 1.0, "AIR": 0.8993, "LUNG": 0.9917, "ICRUTISSUE": 0.9904, "ICRPBONE": 0.9391}
SLAB_ARRAYS = frozenset({"x_edges", "y_edges", "z_edges", "dose", "sigma", "density", "medium"})
PATIENT_ARRAYS = frozenset({"dose", "rel_uncertainty", "density_g_cm3", "density_rel_electron", "spacing_zyx_mm"})
SPECTRUM_ARRAYS = frozenset({"spectrum_edges_MeV", "spectrum_prob"})
SCORED_FROM_G_CM3 = 0.5  # in patients: below it the reference's PRESTA-I boundary crossing reads high
_SUB_BINS = 5
_EXPECTED = "a slab or patient case: CASE.npz and CASE.json as in the folder README of the EGSnrc reference fields"

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceField:
    """One Monte Carlo field on its own voxels: edges in mm by axis (z, y, x), dose and 1 sigma (z, y, x).

    `density` is on the uniform grid that the engine calculates on; `scored` voxels take part in comparisons. `unfolded` is
    the dose before its mirror images were averaged, None where only the average is known; `mirrored_in_x` tells whether the
    phantom is symmetric along beam X as well as along Y. `mean_energy_mev` is the source's.
    """

    name: str
    density: DensityImage
    fluence: FluenceMap
    model: BeamModel
    edges_zyx_mm: tuple[Floats, ...]
    dose: Floats
    sigma: Floats
    scored: NDArray[np.bool_]
    unfolded: Floats | None = None
    mirrored_in_x: bool = False

    @property
    def mean_energy_mev(self) -> float:
        """Mean photon energy of the field's beam."""
        return mean_energy_mev(self.model)

    def centres_xyz_mm(self) -> Floats:
        """Centres of the Monte Carlo voxels, (z, y, x, 3)."""
        z, y, x = ((e[1:] + e[:-1]) / 2 for e in self.edges_zyx_mm)
        return np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)


def case_paths(folder: Path) -> list[Path]:
    """The npz files of a folder's cases, in order. Raises RequestInvalid, naming the file, without its pair."""
    if not folder.is_dir():
        raise RequestInvalid("BENCHMARK_CASES", f"{folder} is no folder", "a folder of cases", "give --cases DIR")
    arrays, facts = ({p.stem: p for p in folder.glob(f"*.{suffix}")} for suffix in ("npz", "json"))
    for lonely, other in ((arrays.keys() - facts.keys(), "json"), (facts.keys() - arrays.keys(), "npz")):
        for stem in sorted(lonely):
            found = (arrays if other == "json" else facts)[stem]
            raise RequestInvalid("BENCHMARK_CASE", f"{found} has no {stem}.{other} beside it", _EXPECTED)
    if not arrays:
        raise RequestInvalid("BENCHMARK_CASES", f"no cases in {folder}", _EXPECTED, "give --cases DIR")
    return [arrays[stem] for stem in sorted(arrays)]


def load_field(path: Path, spacing_mm: float) -> ReferenceField:
    """A case by its npz file, on engine voxels of about `spacing_mm`; a patient's own voxels are divided, never joined.

    Raises RequestInvalid, naming the file, where it is neither a slab nor a patient case.
    """
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(path) as stored:
            data = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RequestInvalid("BENCHMARK_CASE", f"{path} or its json cannot be read: {error}", _EXPECTED) from error
    try:
        if data.keys() >= SLAB_ARRAYS | SPECTRUM_ARRAYS:
            return _slab(path.stem, data, facts, spacing_mm)
        if data.keys() >= PATIENT_ARRAYS | SPECTRUM_ARRAYS:
            return _patient(path.stem, data, facts, spacing_mm)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise RequestInvalid("BENCHMARK_CASE", f"{path}: {type(error).__name__} {error}", _EXPECTED) from error
    lacking = [sorted((kind | SPECTRUM_ARRAYS) - data.keys()) for kind in (SLAB_ARRAYS, PATIENT_ARRAYS)]
    found = (
        f"{path} is neither a slab case (lacks {', '.join(lacking[0])}) nor a patient case (lacks {', '.join(lacking[1])})"
    )
    raise RequestInvalid("BENCHMARK_CASE", found, _EXPECTED)


def beam_model(data: Arrays) -> BeamModel:
    """The case's own spectrum from a point source, for 1 MeV/cm² a MU; histogram bins are filled evenly."""
    edges, weight = data["spectrum_edges_MeV"].astype(np.float64), data["spectrum_prob"].astype(np.float64)
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


def mean_energy_mev(model: BeamModel) -> float:
    """Mean photon energy of a model's spectrum."""
    return float((model.energy_mev * model.photon_fraction).sum() / model.photon_fraction.sum())


def with_machine(field: ReferenceField, model: BeamModel) -> ReferenceField:
    """The same field from a machine's beam, for 1 MeV/cm² a MU. Raises RequestInvalid where its spectrum is another one."""
    case, machine = field.mean_energy_mev, mean_energy_mev(model)
    if abs(machine / case - 1) > 0.01:
        found = f"{field.name}: mean photon energy {case:.3f} MeV, the machine's {machine:.3f}"
        raise RequestInvalid("BENCHMARK_SPECTRUM", found, "the case's spectrum", "leave --machine out")
    return replace(field, model=replace(model, energy_fluence_per_mu_mev_cm2=1.0))


def electrons_rel(medium: str) -> float:
    """Electrons per gram of a PEGS medium relative to water. Raises ValueError for an unknown one."""
    for key, value in ELECTRONS_REL.items():
        if medium.startswith(key):
            return value
    raise ValueError(f"medium {medium!r}: electrons per gram known for {', '.join(ELECTRONS_REL)}")


def _slab(name: str, data: Arrays, facts: dict[str, Any], spacing_mm: float) -> ReferenceField:
    edges = (data["y_edges"] * 10.0, data["z_edges"] * 10.0, data["x_edges"] * 10.0)
    grid = _even_grid(edges, spacing_mm)
    index = np.ix_(*(np.searchsorted(e, c) - 1 for e, c in zip(edges, (grid.z_mm(), grid.y_mm(), grid.x_mm()), strict=True)))
    mass = data["density"].transpose(1, 0, 2)[index]
    per_gram = np.array([0.0] + [electrons_rel(m) for m in facts["media"]])
    electrons = per_gram[data["medium"].transpose(1, 0, 2)[index]] * mass
    to_energy_fluence = facts["mean_cos3"] / facts["mean_energy_MeV"]
    dose, sigma = (_turned(data, key) * to_energy_fluence for key in ("dose", "sigma"))
    stated = _turned(data, "dose_per_onaxis_energy_fluence") if "dose_per_onaxis_energy_fluence" in data else dose
    if not np.allclose(dose.max(), stated.max(), rtol=2e-3):
        raise ValueError("dose per energy fluence contradicts dose per photon fluence")
    scored = stated > 0
    if "zero_frac" in data:
        scored &= _turned(data, "zero_frac") == 0
    half = np.array(facts["field_cm_at_SSD"]) * 5.0
    fluence = FluenceMap(
        _slab_beam(name, facts), np.array([-half[0], half[0]]), np.array([-half[1], half[1]]), np.ones((1, 1))
    )
    return ReferenceField(
        name,
        DensityImage(grid, mass, electrons),
        fluence,
        beam_model(data),
        edges,
        _finite(stated, "dose"),
        _finite(sigma, "sigma"),
        scored,
        _turned(data, "dose_raw") * to_energy_fluence if "dose_raw" in data and "symmetrised" in facts else None,
        str(facts.get("symmetrised", "")).startswith("8-fold"),
    )


def _turned(data: Arrays, key: str) -> Floats:
    """A slab array (z, y, x) with its depth axis as LPS y."""
    return data[key].transpose(1, 0, 2).astype(np.float64)


def _finite(values: Floats, what: str) -> Floats:
    """The values themselves. Raises ValueError where one is not finite or negative."""
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"{what} is not finite and non-negative everywhere")
    return values


def _even_grid(edges_zyx_mm: tuple[Floats, ...], spacing_mm: float) -> Grid:
    """A uniform grid that fills the box of the edges, of the spacing nearest to the wished one along each axis."""
    extent = [float(e[-1] - e[0]) for e in edges_zyx_mm]
    shape = [max(1, round(length / spacing_mm)) for length in extent]
    spacing = [length / n for length, n in zip(extent, shape, strict=True)]
    origin = [float(e[0]) + s / 2 for e, s in zip(edges_zyx_mm, spacing, strict=True)]
    return Grid((shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2]), (origin[2], origin[1], origin[0]))


def _slab_beam(name: str, facts: dict[str, Any]) -> Beam:
    x, y, z = facts["beam_axis_dir"]
    entry = facts["entrance_axis_point"]
    if abs(y) > 1e-9:
        raise ValueError("the axis leaves the plane that a gantry can turn in")
    gantry = float(np.degrees(np.arctan2(-x, z))) % 360
    return Beam(name, gantry, 0.0, 0.0, (entry[0] * 10.0, entry[2] * 10.0, entry[1] * 10.0), facts["SSD_cm"] * 10.0)


def _patient(name: str, data: Arrays, facts: dict[str, Any], spacing_mm: float) -> ReferenceField:
    own = Grid(data["dose"].shape, _floats3(data["spacing_zyx_mm"]), _floats3(data["origin_xyz_mm"]))
    beam = Beam(
        name, *_floats3(data["gantry_collimator_couch_deg"]), _floats3(data["isocentre_xyz_mm"]), float(data["SAD_mm"])
    )
    x1, x2, y1, y2 = data["field_x1x2y1y2_mm"].astype(np.float64)
    to_energy_fluence = facts["mean_cos3"] / facts["mean_energy_MeV"]
    dose = _finite(data["dose"].astype(np.float64) * to_energy_fluence, "dose")
    edges = tuple(
        o + (np.arange(n + 1) - 0.5) * s
        for o, n, s in zip(own.origin_xyz_mm[::-1], own.shape_zyx, own.spacing_zyx_mm, strict=True)
    )
    return ReferenceField(
        name,
        _divided(own, data["density_g_cm3"], data["density_rel_electron"], spacing_mm),
        FluenceMap(beam, np.array([x1, x2]), np.array([y1, y2]), np.ones((1, 1))),
        beam_model(data),
        edges,
        dose,
        _finite(dose * data["rel_uncertainty"], "rel_uncertainty"),
        data["density_g_cm3"] >= SCORED_FROM_G_CM3,
    )


def _floats3(values: NDArray[Any]) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _divided(grid: Grid, mass: NDArray[Any], electrons: NDArray[Any], spacing_mm: float) -> DensityImage:
    """The same densities on each voxel divided evenly, along each axis into parts no longer than `spacing_mm`."""
    parts = [max(1, int(np.ceil(s / spacing_mm - 1e-6))) for s in grid.spacing_zyx_mm]
    for axis, n in enumerate(parts):
        mass, electrons = np.repeat(mass, n, axis=axis), np.repeat(electrons, n, axis=axis)
    spacing = _floats3(np.array(grid.spacing_zyx_mm) / parts)
    low, _ = grid.bounds_mm()
    origin = _floats3(np.array(low) + np.array(spacing[::-1]) / 2)
    return DensityImage(Grid(mass.shape, spacing, origin), mass, electrons)
