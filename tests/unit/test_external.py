"""The External is the patient: with lungs and airways, without couch, mask or cushion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from segmentation.contract import VOCABULARY, CtVolume, Segmentation
from segmentation.models.body_threshold import PLUGIN

SPACING_ZYX_MM = (3.0, 1.5, 1.5)
N_SLICES = 14
Y, X = np.meshgrid((np.arange(220) - 100) * 1.5, (np.arange(300) - 150) * 1.5, indexing="ij")
TORSO = (X / 150) ** 2 + (Y / 95) ** 2 < 1


def volume(*layers: tuple[NDArray[np.bool_], int]) -> NDArray[np.int16]:
    """Slices of air with the layers painted one over the other."""
    plane = np.full(X.shape, -1000)
    for mask, hu in layers:
        plane[mask] = hu
    return np.repeat(plane[None], N_SLICES, axis=0).astype(np.int16)


def external(hu: NDArray[np.int16], spacing_zyx_mm: tuple[float, float, float] = SPACING_ZYX_MM) -> NDArray[np.bool_]:
    return PLUGIN.segment(CtVolume.standard(hu, spacing_zyx_mm)).masks["External"]


def mismatch_mm(found: NDArray[np.bool_], plane: NDArray[np.bool_]) -> float:
    """Area of the difference over the outline's length: how far the surface is off on average."""
    outline = np.sum(plane != np.roll(plane, 1, 0)) + np.sum(plane != np.roll(plane, 1, 1))
    return float(np.max(np.sum(found != plane, axis=(1, 2))) / outline * 1.5)


def flat_couch(height_mm: float, top_mm: float = 94.0) -> NDArray[np.bool_]:
    return (np.abs(X) < 215) & (top_mm <= Y) & (top_mm + height_mm > Y)


def sandwich(height_mm: float, top_mm: float = 94.0) -> list[tuple[NDArray[np.bool_], int]]:
    """Carbon skins of 2 to 3 mm around foam."""
    whole, foam = flat_couch(height_mm, top_mm), flat_couch(height_mm - 5, top_mm + 2.5) & (np.abs(X) < 212)
    return [(whole, -50), (foam, -920)]


def curved_couch(low_mm: float, high_mm: float) -> NDArray[np.bool_]:
    radius = np.hypot(X, Y + 200)
    return (radius > low_mm) & (radius < high_mm) & (Y > 40)


def test_a_cylinder_of_water_alone_is_found_to_the_voxel() -> None:
    found = external(volume((TORSO, 0)))
    assert np.array_equal(found, np.repeat(TORSO[None], N_SLICES, axis=0))


@pytest.mark.parametrize(
    "couch",
    [
        [(flat_couch(5), 0)],
        [(flat_couch(20), -100)],
        sandwich(20),
        sandwich(45),
        [*sandwich(20, 99), (flat_couch(5, 94), -800)],
        [(curved_couch(295, 298), -50)],
    ],
    ids=["plate 5 mm", "plate 20 mm", "sandwich 20 mm", "sandwich 45 mm", "mattress on sandwich", "curved shell"],
)
def test_the_couch_under_the_back_does_not_belong_to_the_body(couch) -> None:
    # mutants: no search for the couch's top; no opening
    found = external(volume(*couch, (TORSO, 0)))
    assert mismatch_mm(found, TORSO) < 0.75
    beyond = ~TORSO & (Y > 97)
    assert found[:, beyond].sum() <= 0.002 * TORSO.sum() * N_SLICES


def test_a_couch_that_does_not_touch_is_no_body_even_if_it_is_large() -> None:
    small = (X / 50) ** 2 + (Y / 40) ** 2 < 1
    found = external(volume((flat_couch(25, 80), 0), (small, 0)))
    assert np.array_equal(found[3], small)


def test_a_thick_curved_couch_below_a_mattress_is_no_limb() -> None:
    # mutant: no look at the shape of what spans the scan
    found = external(volume((curved_couch(305, 320), 0), (TORSO, 0)))
    assert np.array_equal(found[3], TORSO)


def test_lungs_and_airways_are_inside() -> None:
    # mutant: no filling
    lungs = ((np.abs(X) - 65) / 40) ** 2 + (Y / 60) ** 2 < 1
    trachea = np.hypot(X, Y) < 9
    assert np.array_equal(external(volume((TORSO, 0), (lungs, -850), (trachea, -1000)))[0], TORSO)


def test_a_narrow_nostril_does_not_open_the_airway() -> None:
    # mutant: no closing before filling
    airway, nostril = np.hypot(X, Y + 60) < 15, (np.abs(X) < 1) & (Y < -50)
    found = external(volume((TORSO, 0), (airway, -1000), (nostril, -1000)))
    assert found[0, np.hypot(X, Y + 60) < 12].all()


def test_an_open_mouth_lets_no_air_around_the_head_in() -> None:
    mouth = (np.abs(X) < 20) & (Y < -40)
    found = external(volume((TORSO, 0), (mouth, -1000)))
    assert not found[:, ~TORSO].any()


def test_arms_apart_from_the_trunk_belong_to_the_body_and_cushions_do_not() -> None:
    # mutants: only the largest part; every large part
    trunk = (X / 90) ** 2 + (Y / 80) ** 2 < 1
    arm, cushion = np.hypot(X - 150, Y) < 35, np.hypot(X + 150, Y) < 35
    hu = volume((trunk, 0), (arm, 0))
    hu[3:11, cushion] = 0  # begins and ends inside the scan: nothing of a patient does
    found = external(hu)
    assert found[:, arm].mean() > 0.99
    assert not found[:, cushion].any()


def test_a_mask_that_stands_off_the_face_is_cut_off() -> None:
    ring = ((X / 165) ** 2 + (Y / 110) ** 2 < 1) & ((X / 162) ** 2 + (Y / 107) ** 2 > 1) & (Y < 60)
    found = external(volume((ring, 50), (TORSO, 0)))
    assert mismatch_mm(found, TORSO) < 0.3


@pytest.mark.parametrize("spacing_mm", [1.0, 2.5, 4.0, 5.0])
def test_the_volume_does_not_depend_on_the_voxels(spacing_mm: float) -> None:
    axis = np.arange(-200, 200, spacing_mm)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    plane = (x / 150) ** 2 + (y / 95) ** 2 < 1
    plate = (np.abs(x) < 190) & (y >= 95) & (y < 115)
    hu = np.repeat(np.where(plane, 0, np.where(plate, -50, -1000))[None], 8, axis=0).astype(np.int16)
    area = external(hu, (3.0, spacing_mm, spacing_mm))[4].sum() * spacing_mm**2
    assert area == pytest.approx(np.pi * 150 * 95, rel=0.015)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_mirrored_patient_gets_a_mirrored_external(axis: int) -> None:
    # mutant: even opening that shifts by a voxel
    tube, mask = np.hypot(X - 150, Y + 30) < 6, (np.abs(Y + 20) < 2) & (X > 0) & (X < 160)
    hu = volume((TORSO & (X < 140), 0), (tube, 0), (mask, 0))
    hu[:5, (np.abs(X + 160) < 30) & (np.abs(Y) < 2.9)] = 0
    for spacing in (SPACING_ZYX_MM, (3.0, 3.0, 3.0)):
        assert np.array_equal(np.flip(external(hu, spacing), axis), external(np.flip(hu, axis).copy(), spacing))


def test_a_body_cut_by_every_border_stays_whole() -> None:
    hu = np.zeros((6, 60, 60), np.int16)
    assert external(hu).all()


def test_air_alone_has_no_external() -> None:
    assert not PLUGIN.segment(CtVolume.standard(np.full((4, 30, 30), -1000, np.int16), SPACING_ZYX_MM)).masks


def test_confidence_falls_where_something_touches_the_body() -> None:
    def confidence(hu: NDArray[np.int16]) -> float:
        return PLUGIN.segment(CtVolume.standard(hu, SPACING_ZYX_MM)).confidence["External"]

    alone, on_couch = confidence(volume((TORSO, 0))), confidence(volume((flat_couch(20), 0), (TORSO, 0)))
    assert alone == 1.0
    assert 0.5 < on_couch < 0.95


def test_the_model_keeps_its_own_example() -> None:
    example = PLUGIN.example()
    found = PLUGIN.segment(example.volume)
    assert set(found.masks) <= set(PLUGIN.labels) <= VOCABULARY
    for name, inside in example.inside.items():
        assert found.masks[name][inside].all()
        assert not found.masks[name][example.outside[name]].any()


@pytest.mark.parametrize(
    ("masks", "confidence"),
    [({"External": 1}, {}), ({"Exterior": 1}, {"Exterior": 0.5}), ({"External": 1}, {"External": 1.5})],
)
def test_a_result_outside_the_contract_is_refused(masks: Mapping[str, int], confidence: Mapping[str, float]) -> None:
    with pytest.raises(ValueError, match=r"External|Exterior"):
        Segmentation({name: np.ones((1, 1, 1), bool) for name in masks}, confidence)
