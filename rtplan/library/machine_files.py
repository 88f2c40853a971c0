"""A machine's files, once well formed, to what the domain knows of it; contradictions between their fields are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import (
    NO_CONTAMINATION,
    NO_EXTRA_FOCAL_SOURCE,
    ArcLimits,
    BeamModel,
    ElectronContamination,
    ExtraFocalSource,
    Jaws,
    Mlc,
)
from rtplan.library.schema import ArcLimitsFile, BeamFile, JawsFile, MachineFile, MlcFile, SofteningFile, inconsistent
from rtplan.library.yaml_lines import FieldPath, YamlDocument

_SUM_TOLERANCE = 1e-4
_FARTHEST_MM = 300.0  # radius that softening speaks of when a beam has none


def mlc_of(file: MachineFile, beam: BeamFile, document: YamlDocument) -> Mlc:
    """The collimator as this beam sees it. Raises LibraryInvalid."""
    mlc, through = file.mlc, beam.collimation
    _check_mlc(mlc, document)
    return Mlc(
        leaf_boundaries_mm=_boundaries(mlc, document),
        max_position_mm=mlc.max_position_mm,
        max_overtravel_mm=mlc.max_overtravel_mm,
        max_span_mm=mlc.max_span_mm,
        min_gap_mm=mlc.min_gap_mm,
        interdigitation=mlc.interdigitation,
        max_leaf_speed_mm_s=mlc.max_leaf_speed_mm_s,
        transmission=through.mlc_transmission,
        interleaf_transmission=through.mlc_interleaf_transmission,
        tongue_mm=mlc.tongue_mm,
        dosimetric_leaf_gap_mm=through.dosimetric_leaf_gap_mm,
    )


def jaws_of(jaws: JawsFile, beam: BeamFile, document: YamlDocument) -> Jaws:
    """The jaws as this beam sees them. Raises LibraryInvalid."""
    _check_jaws(jaws, document)
    return Jaws(
        x1_range_mm=(jaws.x1_range_mm[0], jaws.x1_range_mm[1]),
        x2_range_mm=(jaws.x2_range_mm[0], jaws.x2_range_mm[1]),
        y1_range_mm=(jaws.y1_range_mm[0], jaws.y1_range_mm[1]),
        y2_range_mm=(jaws.y2_range_mm[0], jaws.y2_range_mm[1]),
        transmission=beam.collimation.jaw_transmission,
        max_speed_mm_s=jaws.max_speed_mm_s,
    )


def gantry_range_of(file: MachineFile, document: YamlDocument) -> tuple[float, float]:
    """From where to where the gantry turns, unwrapped. Raises LibraryInvalid."""
    low, high = file.gantry_range_deg
    if not low < high:
        raise inconsistent(document, ("gantry_range_deg",), f"{low:g} to {high:g} deg", "low < high")
    return low, high


def arc_of(file: ArcLimitsFile | None, beam: BeamFile, document: YamlDocument) -> ArcLimits | None:
    """What the machine asks of an arc with this beam; None when it delivers none. Raises LibraryInvalid."""
    if file is None:
        return None
    steps = tuple(rate for rate in file.dose_rates_mu_min or () if rate <= beam.max_dose_rate_mu_min)
    if file.dose_rates_mu_min is not None:
        _check_ascending(document, ("arc", "dose_rates_mu_min"), file.dose_rates_mu_min)
        if not steps or steps[0] < file.min_dose_rate_mu_min:
            found = f"{file.dose_rates_mu_min}, of which {beam.energy_id} has those up to {beam.max_dose_rate_mu_min:g}"
            expected = f"some, from min_dose_rate_mu_min, {file.min_dose_rate_mu_min:g}, on"
            raise inconsistent(document, ("arc", "dose_rates_mu_min"), found, expected)
    for low, high, value in (
        ("min_mu_per_deg", file.min_mu_per_deg, file.max_mu_per_deg),
        ("min_dose_rate_mu_min", file.min_dose_rate_mu_min, beam.max_dose_rate_mu_min),
    ):
        if not high < value:
            raise inconsistent(document, ("arc", low), f"{high:g}", f"less than the largest, {value:g}")
    return ArcLimits(file.min_dose_rate_mu_min, steps, file.min_mu_per_deg, file.max_mu_per_deg, file.max_spacing_deg)


def beam_of(file: BeamFile, document: YamlDocument, sad_mm: float) -> BeamModel:
    """The beam model; photons of a histogram bin are given the energy of its middle. Raises LibraryInvalid."""
    edges, fraction = np.array(file.spectrum_edges_mev), np.array(file.spectrum_photon_fraction)
    _check_names(file, document)
    _check_spectrum(file, edges, fraction, document)
    _check_curve(document, ("off_axis_radius_mm",), file.off_axis_radius_mm, ("off_axis_factor",), file.off_axis_factor)
    _check_collimation(file, document, sad_mm)
    radius, ratio = _softening(file.softening, document)
    return BeamModel(
        energy_id=file.energy_id,
        nominal_energy_mv=file.nominal_energy_mv,
        energy_mev=(edges[1:] + edges[:-1]) / 2,
        photon_fraction=fraction / fraction.sum(),
        energy_fluence_per_mu_mev_cm2=file.energy_fluence_per_mu_mev_cm2,
        source_sigma_x_mm=file.source_sigma_x_mm,
        source_sigma_y_mm=file.source_sigma_y_mm,
        collimator_distance_mm=file.collimator_distance_mm,
        off_axis_radius_mm=np.array(file.off_axis_radius_mm),
        off_axis_factor=np.array(file.off_axis_factor),
        softening_radius_mm=radius,
        softening_mu_ratio=ratio,
        extra_focal=_extra_focal(file),
        contamination=_contamination(file),
        sha256=document.sha256,
    )


def _softening(file: SofteningFile | None, document: YamlDocument) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if file is None:
        return np.array([0.0, _FARTHEST_MM]), np.array([1.0, 1.0])
    _check_curve(document, ("softening", "radius_mm"), file.radius_mm, ("softening", "mu_ratio"), file.mu_ratio)
    return np.array(file.radius_mm), np.array(file.mu_ratio)


def _extra_focal(file: BeamFile) -> ExtraFocalSource:
    source = file.extra_focal
    if source is None:
        return NO_EXTRA_FOCAL_SOURCE
    return ExtraFocalSource(source.fraction, source.sigma_mm, source.distance_mm, source.collimator_distance_mm)


def _contamination(file: BeamFile) -> ElectronContamination:
    term = file.contamination
    if term is None:
        return NO_CONTAMINATION
    return ElectronContamination(term.amplitude, term.attenuation_per_cm, term.range_cm, term.sigma_mm)


def _boundaries(mlc: MlcFile, document: YamlDocument) -> NDArray[np.float64]:
    """Edges of the leaf pairs along Y, (n_pairs + 1,) mm. The bands must join and hold whole leaves."""
    edges = [mlc.leaf_bands[0].from_mm]
    for i, band in enumerate(mlc.leaf_bands):
        field: FieldPath = ("mlc", "leaf_bands", i)
        count = round((band.to_mm - band.from_mm) / band.width_mm)
        if band.from_mm != edges[-1]:
            raise inconsistent(document, field, f"starts at {band.from_mm:g} mm", f"{edges[-1]:g} mm")
        if count < 1 or abs(band.from_mm + count * band.width_mm - band.to_mm) > 1e-6:
            found = f"{band.from_mm:g} to {band.to_mm:g} mm in leaves of {band.width_mm:g} mm"
            raise inconsistent(document, field, found, "a whole number of leaves")
        edges += [band.from_mm + band.width_mm * (k + 1) for k in range(count)]
    if len(edges) > 401:
        raise inconsistent(document, ("mlc", "leaf_bands"), f"{len(edges) - 1} leaf pairs", "at most 400")
    return np.array(edges)


def _check_mlc(mlc: MlcFile, document: YamlDocument) -> None:
    for name in ("max_overtravel_mm", "min_gap_mm"):
        if getattr(mlc, name) > mlc.max_position_mm:
            found, expected = f"{getattr(mlc, name):g} mm", f"at most max_position_mm, {mlc.max_position_mm:g} mm"
            raise inconsistent(document, ("mlc", name), found, expected)
    narrowest = min(band.width_mm for band in mlc.leaf_bands)
    if mlc.tongue_mm > narrowest / 2:
        found = f"{mlc.tongue_mm:g} mm"
        raise inconsistent(document, ("mlc", "tongue_mm"), found, f"at most half the narrowest leaf, {narrowest / 2:g} mm")


def _check_jaws(jaws: JawsFile, document: YamlDocument) -> None:
    for name in ("x1_range_mm", "x2_range_mm", "y1_range_mm", "y2_range_mm"):
        low, high = getattr(jaws, name)
        if not low < high:
            raise inconsistent(document, ("jaws", name), f"{low:g} to {high:g} mm", "low < high")
        if (low >= 0) if name[1] == "1" else (high <= 0):
            expected = "jaw 1 reaches the negative side, jaw 2 the positive one"
            raise inconsistent(document, ("jaws", name), f"{low:g} to {high:g} mm", expected)


def _check_names(file: BeamFile, document: YamlDocument) -> None:
    if document.path.name != f"beam_{file.energy_id}.yaml":
        raise inconsistent(document, ("energy_id",), f"{file.energy_id!r} in {document.path.name}", "as the file is called")
    if float(file.energy_id.rstrip("XF")) != file.nominal_energy_mv:
        found = f"{file.nominal_energy_mv:g} MV for {file.energy_id}"
        raise inconsistent(document, ("nominal_energy_mv",), found, "the number in energy_id")


def _check_spectrum(
    file: BeamFile, edges: NDArray[np.float64], fraction: NDArray[np.float64], document: YamlDocument
) -> None:
    _check_ascending(document, ("spectrum_edges_mev",), file.spectrum_edges_mev)
    if len(fraction) != len(edges) - 1:
        found, expected = f"{len(fraction)} fractions for {len(edges)} edges", "one fraction for each bin"
        raise inconsistent(document, ("spectrum_photon_fraction",), found, expected)
    if abs(fraction.sum() - 1.0) > _SUM_TOLERANCE:
        raise inconsistent(document, ("spectrum_photon_fraction",), f"fractions sum to {fraction.sum():.5f}", "1")
    # Nominal energies are names: a 10 MV beam of 10.46 MeV electrons is in order, one of 12 MeV is not.
    if edges[-1] > 1.1 * file.nominal_energy_mv:
        found = f"photons up to {edges[-1]:g} MeV at {file.nominal_energy_mv:g} MV"
        raise inconsistent(document, ("spectrum_edges_mev",), found, "at most 1.1 times the nominal energy")


def _check_collimation(file: BeamFile, document: YamlDocument, sad_mm: float) -> None:
    through, source = file.collimation, file.extra_focal
    if through.mlc_interleaf_transmission < through.mlc_transmission:
        found = f"{through.mlc_interleaf_transmission:g}"
        expected = f"at least mlc_transmission, {through.mlc_transmission:g}: a gap does not shield"
        raise inconsistent(document, ("collimation", "mlc_interleaf_transmission"), found, expected)
    if file.collimator_distance_mm >= sad_mm:
        found = f"{file.collimator_distance_mm:g} mm"
        raise inconsistent(document, ("collimator_distance_mm",), found, f"less than sad_mm, {sad_mm:g} mm")
    if source and not source.distance_mm < source.collimator_distance_mm < sad_mm:
        found = f"source at {source.distance_mm:g} mm, collimator at {source.collimator_distance_mm:g} mm"
        raise inconsistent(document, ("extra_focal",), found, f"source above collimator above the axis at {sad_mm:g} mm")


def _check_curve(
    document: YamlDocument, where_radius: FieldPath, radius: list[float], where_value: FieldPath, value: list[float]
) -> None:
    """A curve by radius: ascending from 0, one value for each, 1 on the axis."""
    _check_ascending(document, where_radius, radius)
    if len(value) != len(radius) or radius[0] != 0:
        found = f"{len(value)} values for {len(radius)} radii"
        raise inconsistent(document, where_value, found, "one value for each radius, from 0")
    if value[0] != 1.0:
        raise inconsistent(document, (*where_value, 0), f"{value[0]:g}", "1 on the axis")


def _check_ascending(document: YamlDocument, where: FieldPath, values: list[float]) -> None:
    steps = np.flatnonzero(np.diff(values) <= 0)
    if len(steps):
        i = int(steps[0]) + 1
        raise inconsistent(document, (*where, i), f"{values[i]:g} follows {values[i - 1]:g}", "ascending values")
