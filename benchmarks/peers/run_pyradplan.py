"""pyRadPlan's photon pencil beam (singular value decomposition) on the shared phantoms.

python -m benchmarks.peers.run_pyradplan influence|fields|field|optimise IN.npz OUT, in an environment with pyRadPlan.
Writes OUT.json (figures) and OUT.npz (dose). It calculates with its own generic machine: its spectrum, its kernels.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pyRadPlan.cst import create_cst, create_voi
from pyRadPlan.ct import CT
from pyRadPlan.dose.engines import PhotonPencilBeamSVDEngine
from pyRadPlan.geometry import get_beam_rotation_matrix
from pyRadPlan.optimization import fluence_optimization
from pyRadPlan.optimization.objectives import SquaredOverdosing, SquaredUnderdosing
from pyRadPlan.plan import create_pln
from pyRadPlan.stf import FieldShapeAsMask, SteeringInformation

from benchmarks.peers import fluence_goals
from benchmarks.peers.measure import fastest, forget_peak, keep_to_threads, peak_memory_gib, timed, write_figures
from benchmarks.peers.phantom import Beamlets, OpenFields, first_beamlets, load_beamlets, load_fields

ENERGY_MV = 6.0
MACHINE = "Generic"
SHARP_EDGE_MM = 1.0  # the penumbra may not be zero
WIDE_CUTOFF_MM = 150.0
FIELD_RESOLUTION_MM = 0.5
SKIN = 0.05  # relative density


def engine(phantom: Beamlets | OpenFields, patient: CT, body: NDArray[np.bool_]) -> PhotonPencilBeamSVDEngine:
    """The engine with its own defaults, on the phantom's grid, with the phantom's densities as they are."""
    result = PhotonPencilBeamSVDEngine()
    result.dose_grid = patient.grid
    result.use_given_eq_density_cube = True
    result.voxel_sub_ix = np.flatnonzero(body)
    if isinstance(phantom, OpenFields):
        result.force_uniform_fluence = True
    return result


def patient_of(phantom: Beamlets | OpenFields) -> CT:
    """The phantom's densities as pyRadPlan's image."""
    image = sitk.GetImageFromArray(phantom.density)
    image.SetSpacing([phantom.spacing_mm] * 3)
    image.SetOrigin([float(v) for v in phantom.origin_xyz_mm])
    return CT(cube_hu=image)


def structures_of(patient: CT, body: NDArray[np.bool_]) -> object:
    """The body as the only structure."""
    mask = sitk.GetImageFromArray(body.astype(np.uint8))
    mask.CopyInformation(patient.cube_hu)
    return create_cst(vois=[create_voi(voi_type="EXTERNAL", name="BODY", ct_image=patient, mask=mask)], ct_image=patient)


def beam(gantry_deg: float, isocentre: NDArray[np.float64], sad_mm: float, width_mm: float, rays: list[dict]) -> dict:
    """One beam of pyRadPlan's steering information; rays are given by their places in the beam's eye view."""
    to_patient = get_beam_rotation_matrix(np.float64(gantry_deg), np.float64(0.0))
    source = np.array([0.0, -sad_mm, 0.0])
    for ray in rays:
        place = ray["ray_pos_bev"]
        ray["ray_pos"] = to_patient @ place
        ray["target_point_bev"] = 2 * place - source
        ray["target_point"] = to_patient @ ray["target_point_bev"]
    return {
        "gantry_angle": float(gantry_deg),
        "couch_angle": 0.0,
        "bixel_width": width_mm,
        "radiation_mode": "photons",
        "machine": MACHINE,
        "sad": sad_mm,
        "iso_center": isocentre,
        "source_point_bev": source,
        "source_point": to_patient @ source,
        "rays": rays,
    }


def beamlet_steering(phantom: Beamlets) -> SteeringInformation:
    """Every beamlet of the phantom as one ray with one square beamlet."""
    beams = []
    for index, gantry in enumerate(phantom.gantry_deg):
        own = np.flatnonzero(phantom.beam == index)
        rays = [
            {"ray_pos_bev": np.array([phantom.x_mm[b], 0.0, phantom.y_mm[b]]), "beamlets": [{"energy": ENERGY_MV}]}
            for b in own
        ]
        beams.append(beam(gantry, phantom.isocentre_xyz_mm, phantom.sad_mm, phantom.beamlet_mm, rays))
    return SteeringInformation(beams=beams)


def field_steering(phantom: OpenFields) -> SteeringInformation:
    """Every open field as one ray through the isocentre with a mask."""
    reach = round((phantom.half_field_mm + 5.0) / FIELD_RESOLUTION_MM)
    place = FIELD_RESOLUTION_MM * np.arange(-reach, reach + 1)
    # A pixel that the edge cuts through counts by its share.
    open_share = np.clip((phantom.half_field_mm - np.abs(place)) / FIELD_RESOLUTION_MM + 0.5, 0, 1)
    beams = []
    for gantry in phantom.gantry_deg:
        shape = FieldShapeAsMask(energy=ENERGY_MV, mask=np.outer(open_share, open_share), resolution=FIELD_RESOLUTION_MM)
        ray = {"ray_pos_bev": np.zeros(3), "beamlets": [shape]}
        beams.append(beam(gantry, phantom.isocentre_xyz_mm, phantom.sad_mm, 2 * phantom.half_field_mm, [ray]))
    return SteeringInformation(beams=beams)


def influence(phantom: Beamlets) -> tuple[dict[str, object], NDArray[np.float32]]:
    """Figures of the influence matrix, and the dose of all beamlets at weight 1."""
    patient = patient_of(phantom)
    structures = structures_of(patient, phantom.body)

    def calculate(case: Beamlets) -> object:
        return engine(case, patient, case.body).calc_dose_influence(patient, structures, beamlet_steering(case))

    calculate(first_beamlets(phantom, 4))
    forget_peak()
    matrices, cost = timed(lambda: calculate(phantom))
    peak = peak_memory_gib()
    matrix = matrices.physical_dose.flat[0]
    weights, gradient = np.ones(matrix.shape[1], np.float32), np.ones(matrix.shape[0], np.float32)
    transposed = matrix.T
    dose, apply = fastest(lambda: matrix @ weights, 3)
    _, adjoint = fastest(lambda: transposed @ gradient, 3)
    figures: dict[str, object] = {
        **cost,
        "beamlets": int(matrix.shape[1]),
        "n_nonzero": int(matrix.nnz),
        "peak_memory_gib": peak,
        "apply_cpu_s": apply["cpu_s"],
        "adjoint_cpu_s": adjoint["cpu_s"],
        "settings": "engine defaults: lateral cut-off 50 mm, float32 values and 64-bit rows",
    }
    return figures, dose.reshape(phantom.density.shape)


def optimise(phantom: Beamlets) -> tuple[dict[str, object], NDArray[np.float32]]:
    """Figures of the fluence optimisation with the default solver (SciPy's L-BFGS-B), and its dose."""
    patient = patient_of(phantom)
    masks = fluence_goals.structures(phantom)
    hinge = {"underdose": lambda gy, w: SquaredUnderdosing(d_min=gy, priority=w),
             "overdose": lambda gy, w: SquaredOverdosing(d_max=gy, priority=w)}  # fmt: skip
    vois = []
    for name, voi_type in (("PTV", "TARGET"), ("Core", "OAR"), ("Body", "EXTERNAL")):
        image = sitk.GetImageFromArray(masks[name].astype(np.uint8))
        image.CopyInformation(patient.cube_hu)
        wanted = [hinge[kind](gy, weight) for own, kind, gy, weight in fluence_goals.GOALS if own == name]
        vois.append(create_voi(voi_type=voi_type, name=name, ct_image=patient, mask=image, objectives=wanted))
    cst = create_cst(vois=vois, ct_image=patient)
    steering = beamlet_steering(phantom)
    matrices = engine(phantom, patient, phantom.body).calc_dose_influence(
        patient, structures_of(patient, phantom.body), steering
    )
    plan = create_pln({"radiation_mode": "photons", "machine": MACHINE, "num_of_fractions": 1})
    told: dict = {}
    weights, cost = timed(lambda: fluence_optimization(patient, cst, steering, matrices, plan, opt_info=told))
    dose = matrices.physical_dose.flat[0] @ np.asarray(weights, np.float32)
    figures: dict[str, object] = {**cost, "iterations": told.get("num_iter"), "evaluations": len(told["obj_history"])}
    return figures, dose.reshape(phantom.density.shape)


def fields(phantom: OpenFields, sharp: bool, repeats: int) -> tuple[dict[str, object], NDArray[np.float32]]:
    """Figures of the open fields' dose, and the dose; `sharp` makes the penumbra as narrow as it may be."""
    patient = patient_of(phantom)
    body = phantom.density > SKIN
    structures = structures_of(patient, body)

    def calculate() -> NDArray[np.float32]:
        own = engine(phantom, patient, body)
        if sharp:
            own.force_penumbra = SHARP_EDGE_MM
            own.geometric_lateral_cutoff = WIDE_CUTOFF_MM
        result = own.calc_dose_forward(patient, structures, field_steering(phantom), None)
        return sitk.GetArrayFromImage(result["physical_dose"])

    forget_peak()
    dose, first = timed(calculate)
    cost = first
    if repeats:
        dose, cost = fastest(calculate, repeats)
    settings = "field-wise pencil beam, engine defaults"
    if sharp:
        settings += f", penumbra {SHARP_EDGE_MM:g} mm, cut-off {WIDE_CUTOFF_MM:g} mm from the field"
    return {**cost, "first_cpu_s": first["cpu_s"], "peak_memory_gib": peak_memory_gib(), "settings": settings}, dose


def main() -> None:
    """Runs one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("influence", "fields", "field", "optimise"))
    parser.add_argument("phantom", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    threads = keep_to_threads()
    if chosen.task in ("influence", "optimise"):
        task = influence if chosen.task == "influence" else optimise
        figures, dose = task(load_beamlets(chosen.phantom))
    else:
        alone = chosen.task == "field"
        figures, dose = fields(load_fields(chosen.phantom), sharp=alone, repeats=0 if alone else 2)
    np.savez(chosen.out.with_suffix(".npz"), dose=np.asarray(dose, dtype=np.float32))
    write_figures(chosen.out.with_suffix(".json"), {**figures, "version": version("pyRadPlan"), "threads": threads})


if __name__ == "__main__":
    main()
