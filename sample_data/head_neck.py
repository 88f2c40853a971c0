"""A head and neck with shoulders: bones, airway, organs at risk, nested targets, a couch below. Invented, nobody's anatomy.

Frame: LPS mm, z = 0 near the angle of the mandible (C2/C3), nose towards -y, the patient's left at +x.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from rtplan.domain.grid import Grid
from sample_data.phantom import (
    AIR_HU,
    Field,
    Phantom,
    Roi,
    axes,
    blend,
    centred_grid,
    ellipsoid,
    loft,
    noise_hu,
    roi,
    slab,
    tube,
    without,
)

SHAPE_ZYX, SPACING_ZYX_MM, CENTRE_Z_MM = (110, 112, 176), (3.0, 2.5, 2.5), 15.0


def head_neck() -> Phantom:
    """The whole phantom, deterministic."""
    grid = centred_grid(SHAPE_ZYX, SPACING_ZYX_MM, CENTRE_Z_MM)
    body = _body(grid)
    parts = _anatomy(grid, body)
    hu = gaussian_filter(_painted(grid, body, parts), sigma=(0.3, 0.5, 0.5))
    hu = np.where(hu > -950, hu + noise_hu(grid.shape_zyx, 8.0), hu)
    voxels = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    title = "Anthropomorphic head and neck, oropharynx left with bilateral nodes"
    rois = _rois(grid, body, parts)
    return Phantom("head_neck", title, "head_neck_70_63_56", "HEADNECK", grid, voxels, rois, with_targets_alone=True)


def _both(make: Callable[[float], Field]) -> Field:
    """The same shape on the left (+1) and on the right (-1)."""
    return np.minimum(make(1.0), make(-1.0))


def _body(grid: Grid) -> Field:
    head = ellipsoid(grid, (0, 2, 92), (78, 98, 82))
    face = loft(
        grid,
        [
            (-33, 0, -42, 30, 40),
            (-26, 0, -36, 44, 52),
            (-15, 0, -30, 55, 63),
            (0, 0, -28, 63, 68),
            (20, 0, -28, 68, 70),
            (45, 0, -28, 70, 70),
            (70, 0, -30, 68, 65),
            (100, 0, -30, 60, 62),
        ],
        exponent=2.3,
    )
    neck = loft(
        grid,
        [
            (-125, 0, 20, 92, 68),
            (-90, 0, 18, 66, 62),
            (-60, 0, 14, 58, 58),
            (-20, 0, 14, 59, 57),
            (20, 0, 18, 65, 57),
            (60, 0, 25, 68, 62),
        ],
    )
    shoulders = loft(
        grid,
        [
            (-160, 0, 15, 202, 88),
            (-150, 0, 15, 198, 87),
            (-130, 0, 18, 184, 78),
            (-115, 0, 22, 160, 66),
            (-105, 0, 25, 132, 55),
            (-95, 0, 28, 100, 46),
            (-85, 0, 30, 70, 36),
        ],
        exponent=2.5,
    )
    nose = ellipsoid(grid, (0, -102, 46), (13, 16, 17))
    ears = _both(lambda s: ellipsoid(grid, (s * 76, 14, 56), (9, 13, 27)))
    body = blend(blend(head, face, 14.0), blend(neck, shoulders, 25.0), 16.0)
    return blend(blend(body, nose, 10.0), ears, 5.0)


def _anatomy(grid: Grid, body: Field) -> dict[str, Field]:
    z, y, x = axes(grid)
    mandible = _mandible(grid)
    spine = _spine(grid)
    canal = loft(grid, [(-170, 0, 66, 11, 8), *((k, 0, c + 19, 11, 8.5) for k, c in SPINE_KNOTS[1:]), (38, 0, 33, 13, 11)])
    floor = np.interp(grid.y_mm(), [-30, 10, 30], [80, 60, 36])[None, :, None]
    outer = ellipsoid(grid, (0, 2, 92), (72, 92, 76))
    inner = ellipsoid(grid, (0, 2, 92), (66, 86, 70))
    brainstem = loft(
        grid, [(32, 0, 33, 7, 6.5), (42, 0, 28, 9, 8), (55, 0, 21, 14, 11), (65, 0, 16, 14, 11), (75, 0, 13, 12, 9)]
    )
    larynx_y = np.interp(grid.z_mm(), [-80, -60, -38], [-17, -20, -17])[:, None, None]
    larynx = np.maximum((np.hypot(x / 19.0, (y - larynx_y) / 17.0) - 1) * 17.0, slab(z, -78, -38))
    return {
        "brain": np.maximum(inner, floor - z),
        "skull": np.maximum(without(outer, np.maximum(inner, floor - z)), floor - 6 - z),
        "brainstem": brainstem,
        "spine": spine,
        "canal": canal,
        "cord": loft(
            grid, [(-170, 0, 66, 6, 4.5), *((k, 0, c + 19, 6.5, 4.8) for k, c in SPINE_KNOTS[1:]), (32, 0, 33, 7, 6)]
        ),
        "mandible": mandible,
        "parotid_l": without(ellipsoid(grid, (53, 6, 20), (11, 18, 27)), mandible - 1.5),
        "parotid_r": without(ellipsoid(grid, (-53, 6, 20), (11, 18, 27)), mandible - 1.5),
        "airway": _airway(grid),
        "larynx": larynx,
        "esophagus": loft(
            grid, [(-170, 0, 33, 9, 6), (-150, 0, 27, 8.5, 6), (-110, 0, 11, 8, 5), (-92, 0, 4, 8, 4.5), (-76, 0, 2, 7.5, 4)]
        ),
        "oral": without(ellipsoid(grid, (0, -50, 0), (27, 31, 18)), mandible),
        "lungs": _both(lambda s: ellipsoid(grid, (s * 62, 28, -168), (46, 46, 66))),
    }


# Height and centre y of the vertebral bodies, from T4 up to C1.
SPINE_KNOTS = (
    (-170.0, 47.0),
    (-150.0, 42.0),
    (-110.0, 30.0),
    (-80.0, 20.0),
    (-60.0, 15.0),
    (-40.0, 11.0),
    (0.0, 12.0),
    (29.0, 14.0),
)
_DISC_EVERY_MM = 18.0


def _spine(grid: Grid) -> Field:
    """Vertebral bodies, arches and spinous processes; the discs and the canal are painted over it."""
    z, y, x = axes(grid)
    bodies = loft(grid, [(k, 0, c, 13.0, 9.5) for k, c in SPINE_KNOTS])
    arches = loft(grid, [(k, 0, c + 19, 15.5, 12.5) for k, c in SPINE_KNOTS])
    centre_y = np.interp(grid.z_mm(), *zip(*SPINE_KNOTS, strict=True))[:, None, None]
    phase = np.mod(z, _DISC_EVERY_MM) - _DISC_EVERY_MM / 2
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5, slab(y - centre_y, 28, 44)), np.abs(phase) - 5.0)
    transverse = np.maximum(np.maximum(np.abs(x) - 25.0, np.abs(y - centre_y - 9) - 4.5), np.abs(phase) - 4.0)
    column = slab(z, SPINE_KNOTS[0][0], SPINE_KNOTS[-1][0])
    return np.minimum(np.minimum(bodies, arches), np.maximum(np.minimum(spinous, transverse), column))


def _mandible(grid: Grid) -> Field:
    """A horseshoe from the chin to both angles, and the rami up to the joints."""
    t = np.linspace(-1, 1, 13)
    # The arch: x, y, and the height of the body's middle, rising from the chin to the angle.
    arch = [(46 * np.sin(u * np.pi / 2), -79 + 55 * abs(u) ** 2.2, -15 + 11 * abs(u)) for u in t]
    body = np.minimum(*(tube(grid, [(px, py, pz + lift) for px, py, pz in arch], 6.0) for lift in (-4.0, 7.0)))
    ramus = _both(
        lambda s: np.minimum(
            tube(grid, [(s * 45, -25, -4), (s * 48, -22, 22), (s * 50, -30, 40)], 4.6),
            tube(grid, [(s * 45, -17, -2), (s * 49, -12, 22), (s * 52, -6, 47)], 4.8),
        )
    )
    return np.minimum(body, ramus)


def _airway(grid: Grid) -> Field:
    return loft(
        grid,
        [
            (-170, 0, 16, 9, 8),
            (-150, 0, 9, 9, 8),
            (-110, 0, -6, 8.5, 8),
            (-90, 0, -14, 8.5, 8.5),
            (-72, 0, -19, 8, 9),
            (-62, 0, -20, 3.5, 9),
            (-52, 0, -20, 6, 9),
            (-30, 0, -15, 12, 7),
            (-10, 0, -11, 11, 7.5),
            (10, 0, -11, 9, 6.5),
            (30, 0, -12, 10, 6),
            (48, 0, -16, 10, 7),
        ],
    )


def _painted(grid: Grid, body: Field, parts: dict[str, Field]) -> Field:
    """HU of every tissue, painted from the outside in."""
    depth_mm = distance_transform_edt(body < 0, sampling=grid.spacing_zyx_mm)
    fat_mm = np.interp(grid.z_mm(), [-150, -90, -30, 60], [13, 9, 6, 3.5])[:, None, None]
    hu = np.full(grid.shape_zyx, float(AIR_HU))
    _paint_couch(grid, body, hu)
    hu[body < 0] = 48.0
    hu[(depth_mm > 0) & (depth_mm < 2.6 + fat_mm)] = -95.0
    hu[(depth_mm > 0) & (depth_mm < 2.6)] = 20.0
    for field, value in _soft(grid, parts) + _bones(grid, parts) + _gas(grid, parts):
        hu[(field < 0) & (body < 0)] = value
    return hu


def _soft(grid: Grid, parts: dict[str, Field]) -> list[tuple[Field, float]]:
    return [
        (_both(lambda s: ellipsoid(grid, (s * 31, -12, 24), (6, 9, 16))), -90.0),  # parapharyngeal fat
        (_both(lambda s: ellipsoid(grid, (s * 45, -46, 14), (8, 12, 14))), -90.0),  # buccal fat
        (_both(lambda s: loft(grid, [(-100, s * 50, 26, 9, 14), (-50, s * 46, 34, 7, 14), (-5, s * 47, 38, 5, 12)])), -85.0),
        (parts["oral"], 55.0),
        (parts["parotid_l"], -5.0),
        (parts["parotid_r"], -5.0),
        (_both(lambda s: ellipsoid(grid, (s * 30, -34, -16), (9, 14, 11))), 30.0),  # submandibular glands
        (_both(lambda s: ellipsoid(grid, (s * 20, -8, -96), (8, 10, 18))), 115.0),  # thyroid
        (parts["esophagus"], 35.0),
        (parts["brain"], 36.0),
        (_both(lambda s: ellipsoid(grid, (s * 9, -4, 98), (5, 26, 9))), 8.0),  # ventricles
        (parts["brainstem"], 30.0),
    ]


def _bones(grid: Grid, parts: dict[str, Field]) -> list[tuple[Field, float]]:
    z, y, x = axes(grid)
    phase = np.abs(np.mod(z, _DISC_EVERY_MM)) + 0.0 * parts["spine"]
    discs = np.maximum(
        parts["spine"],
        np.maximum(phase - 3.5, y - np.interp(grid.z_mm(), *zip(*SPINE_KNOTS, strict=True))[:, None, None] - 10),
    )
    midface = np.maximum(ellipsoid(grid, (0, -60, 38), (40, 29, 27)), -(z - 9))
    hyoid = np.maximum(np.maximum(np.abs(np.hypot(x, y + 12) - 21) - 3.0, np.abs(z + 31) - 4.0), y + 8)
    thyroid_cartilage = np.maximum(
        np.maximum(np.maximum(parts["larynx"], -(parts["larynx"] + 4.0)), slab(z, -70, -42)), y + 12
    )
    cricoid = np.maximum(np.maximum(parts["airway"] - 5.0, slab(z, -84, -73)), -(parts["airway"] - 1.0))
    ribs = np.maximum(
        np.maximum(parts["lungs"] - 8.0, -(parts["lungs"] - 2.5)), np.abs(np.mod(z + 0.55 * y, 26.0) - 13.0) - 5.0
    )
    clavicles = _both(
        lambda s: tube(grid, [(s * 12, -44, -128), (s * 70, -38, -116), (s * 125, -4, -112), (s * 150, 10, -118)], 6.0)
    )
    humeri = _both(lambda s: ellipsoid(grid, (s * 163, 18, -148), (23, 23, 25)))
    scapulae = _both(lambda s: tube(grid, [(s * 150, 42, -126), (s * 110, 66, -132), (s * 70, 82, -150)], 6.0))
    zygoma = _both(lambda s: tube(grid, [(s * 40, -78, 48), (s * 58, -62, 50), (s * 64, -30, 52), (s * 62, -4, 52)], 4.5))
    return [
        (midface, 350.0),
        (zygoma, 700.0),
        (
            np.maximum(np.maximum((np.hypot(x / 24.0, (y + 44.0) / 40.0) - 1) * 24.0, y + 42), slab(z, 9, 14)),
            700.0,
        ),  # hard palate
        (parts["skull"], 950.0),
        (np.maximum(parts["skull"] + 2.0, -(z - 60)), 550.0),  # diploe
        (parts["spine"], 620.0),
        (parts["spine"] + 3.0, 330.0),
        (discs, 100.0),
        (parts["canal"], 12.0),
        (parts["cord"], 38.0),
        (parts["brainstem"], 30.0),
        (parts["mandible"], 1250.0),
        (parts["mandible"] + 2.6, 450.0),
        (hyoid, 350.0),
        (thyroid_cartilage, 180.0),
        (cricoid, 220.0),
        (ribs, 450.0),
        (clavicles, 800.0),
        (clavicles + 2.5, 350.0),
        (humeri, 600.0),
        (humeri + 3.0, 260.0),
        (scapulae, 550.0),
    ]


def _gas(grid: Grid, parts: dict[str, Field]) -> list[tuple[Field, float]]:
    z, y, x = axes(grid)
    orbits = _both(lambda s: ellipsoid(grid, (s * 31, -70, 72), (17, 24, 16)))
    nasal = np.maximum(ellipsoid(grid, (0, -58, 42), (13, 42, 24)), -(z - 15))
    septum = np.maximum(np.maximum(np.abs(x) - 2.0, nasal), y + 24)
    return [
        (orbits, -80.0),
        (_both(lambda s: ellipsoid(grid, (s * 31, -76, 72), (12, 12, 12))), 12.0),  # eyes
        (_both(lambda s: ellipsoid(grid, (s * 31, -86, 72), (4.5, 2.5, 4.5))), 80.0),  # lenses
        (nasal, -1000.0),
        (septum, 60.0),
        (_both(lambda s: ellipsoid(grid, (s * 26, -58, 38), (10, 18, 17))), -1000.0),  # maxillary sinuses
        (ellipsoid(grid, (0, -38, 58), (11, 14, 8)), -1000.0),  # sphenoid and ethmoid sinus
        (ellipsoid(grid, (0, -50, 5), (19, 28, 3)), -1000.0),  # air above the tongue
        (_both(lambda s: ellipsoid(grid, (s * 62, 14, 52), (12, 4, 4))), -1000.0),  # ear canals
        (parts["airway"], -1000.0),
        (parts["esophagus"] + 3.2, -400.0),
        (parts["lungs"], -780.0),
    ]


def _paint_couch(grid: Grid, body: Field, hu: Field) -> None:
    """A flat carbon couch and a foam head rest, both outside the patient."""
    z, y, x = axes(grid)
    couch = np.maximum(np.abs(x) - 205.0, slab(y, 106.0, 128.0)) + 0.0 * z
    rest = np.maximum(np.maximum(np.abs(x) - 85.0, slab(y, 45.0, 106.0)), slab(z, -75.0, 140.0))
    hu[(rest < 0) & (body > 2.0)] = -960.0
    hu[couch < 0] = -920.0
    hu[(couch < 0) & (couch > -4.0)] = -150.0


def _targets(grid: Grid, body: Field, parts: dict[str, Field]) -> tuple[Field, Field, Field]:
    """PTV70 in PTV63 in PTV56, cropped 4 to 5 mm under the skin and clear of the spinal canal."""
    depth_mm = distance_transform_edt(body < 0, sampling=grid.spacing_zyx_mm)
    primary = ellipsoid(grid, (20, -11, 2), (20, 20, 27))
    node = ellipsoid(grid, (40, 13, -16), (14, 17, 22))
    high = blend(primary, node, 8.0)
    left_63 = loft(grid, [(-64, 36, 9, 13, 17), (-30, 40, 12, 15, 19), (0, 41, 12, 15, 18), (24, 38, 9, 13, 16)])
    middle = blend(high - 7.0, left_63, 8.0)
    left_56 = loft(
        grid, [(-99, 33, 8, 14, 16), (-60, 36, 9, 14, 18), (-30, 40, 12, 16, 20), (10, 41, 11, 15, 18), (38, 36, 8, 11, 13)]
    )
    right_56 = loft(
        grid,
        [(-99, -33, 8, 14, 16), (-60, -36, 9, 14, 18), (-30, -40, 12, 16, 20), (0, -40, 12, 14, 18), (17, -38, 10, 12, 15)],
    )
    low = np.minimum(blend(middle, left_56, 8.0), right_56)
    crops = (5.0 - depth_mm, parts["canal"] - 5.0, parts["spine"] + 4.0)
    cropped = [np.maximum(without(field, *crops[1:]), crops[0]) for field in (high, middle, low)]
    return cropped[0], cropped[1], cropped[2]


def _rois(grid: Grid, body: Field, parts: dict[str, Field]) -> tuple[Roi, ...]:
    """Structures under the names that a sender might use."""
    z, _, _ = axes(grid)
    high, middle, low = _targets(grid, body, parts)
    mandible = np.maximum(parts["mandible"], body)
    return (
        roi("BODY", "EXTERNAL", body),
        roi("PTV70", "PTV", high),
        roi("PTV63", "PTV", np.minimum(middle, high)),
        roi("PTV56", "PTV", np.minimum(np.minimum(low, middle), high)),
        roi("Brain Stem", "ORGAN", parts["brainstem"]),
        roi("Spinal Cord", "ORGAN", parts["cord"]),
        roi("Parotid L", "ORGAN", parts["parotid_l"]),
        roi("Parotid R", "ORGAN", parts["parotid_r"]),
        roi("Mandible", "ORGAN", mandible),
        roi("Larynx", "ORGAN", parts["larynx"]),
        roi("Oesophagus", "ORGAN", np.maximum(parts["esophagus"], -(z + 160))),
        roi("Oral Cavity", "ORGAN", parts["oral"]),
    )
