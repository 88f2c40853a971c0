"""One small phantom a treatment site, made on the fly for the tests: coarse voxels, the organs that the protocols know, and
densities near those of a patient. Invented, nobody's anatomy.

Frame: LPS mm, the nose towards -y, the patient's left at +x, z = 0 in the target's middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from rtplan.domain.grid import Grid
from sample_data.phantom import AIR_HU, Field, Phantom, Roi, axes, centred_grid, ellipsoid, loft, roi, slab, tube, without

MUSCLE_HU, FAT_HU, LUNG_HU, BONE_HU, MARROW_HU, TUMOUR_HU = 45.0, -95.0, -740.0, 650.0, 250.0, 40.0
SPACING_ZYX_MM = (5.0, 4.0, 4.0)
SUBCUTANEOUS_MM = 14.0
Paint = tuple[Field, float]


def _phantom(
    name: str, title: str, protocol_id: str, grid: Grid, body: Field, paints: Sequence[Paint], rois: Sequence[Roi]
) -> Phantom:
    """Muscle under subcutaneous fat, painted over with `paints` in order; the External comes first among the structures."""
    depth_mm = distance_transform_edt(body < 0, sampling=grid.spacing_zyx_mm)
    hu = np.full(grid.shape_zyx, float(AIR_HU))
    hu[body < 0] = MUSCLE_HU
    hu[(depth_mm > 0) & (depth_mm < SUBCUTANEOUS_MM)] = FAT_HU
    for field, value in paints:
        hu[(field < 0) & (body < 0)] = value
    voxels = np.rint(hu).astype(np.int16)
    return Phantom(name, title, protocol_id, "", grid, voxels, (roi("BODY", "EXTERNAL", body), *rois))


def _trunk(grid: Grid, half_width_mm: float, half_depth_mm: float, *, half_length_mm: float) -> Field:
    """A flattened cylinder along z."""
    ends = [(z, 0.0, 0.0, half_width_mm, half_depth_mm) for z in (-half_length_mm, half_length_mm)]
    return loft(grid, ends, exponent=2.4)


def _both(make: Callable[[float], Field]) -> Field:
    return np.minimum(make(1.0), make(-1.0))


def _pair(name: str, make: Callable[[float], Field]) -> tuple[Roi, Roi]:
    return roi(f"{name}_L", "ORGAN", make(1.0)), roi(f"{name}_R", "ORGAN", make(-1.0))


def _pelvis(name: str, title: str, protocol_id: str, targets: Callable[[Grid], Sequence[tuple[str, Field]]]) -> Phantom:
    """A pelvis with bladder, rectum, sigmoid, bowel, femoral heads, penile bulb and genitals, and the site's targets."""
    grid = centred_grid((50, 66, 96), SPACING_ZYX_MM)
    z, y, x = axes(grid)
    body = _trunk(grid, 175.0, 115.0, half_length_mm=117.0)
    rectum = loft(grid, [(-50, 0, 55, 12, 12), (0, 0, 46, 16, 15), (45, 0, 52, 15, 15), (70, 6, 50, 13, 12)])
    bladder = without(ellipsoid(grid, (0, -22, 42), (38, 30, 28)), rectum - 3.0)
    sigmoid = tube(grid, [(6, 48, 76), (35, 30, 88), (45, 5, 92)], 12.0)
    bag = without(np.maximum(ellipsoid(grid, (0, -25, 105), (95, 55, 45)), slab(z, 62, 112)), bladder, sigmoid, rectum)
    loops = np.maximum(bag + 8.0, np.cos(x / 9.0) * np.cos(y / 9.0) * 6.0 - 3.0)
    heads = _pair("Femur_Head", lambda s: ellipsoid(grid, (s * 90, 2, 12), (23, 23, 23)))
    hips = _both(lambda s: ellipsoid(grid, (s * 98, 15, 62), (22, 48, 48)))
    sacrum = loft(grid, [(10, 0, 84, 14, 9), (60, 0, 88, 38, 14), (112, 0, 78, 45, 20)])
    bones = np.minimum(np.minimum(hips, sacrum), np.minimum(heads[0].field, heads[1].field))
    drawn = [roi(label, "PTV", np.maximum(field, body + 6.0)) for label, field in targets(grid)]
    organs = [
        roi("Rectum", "ORGAN", rectum),
        roi("Bladder", "ORGAN", bladder),
        roi("Sigmoid", "ORGAN", sigmoid),
        roi("Bowel Bag", "ORGAN", bag),
        roi("Bowel_Small", "ORGAN", loops),
        roi("Penile Bulb", "ORGAN", ellipsoid(grid, (0, 30, -48), (10, 9, 9))),
        roi("Genitals", "ORGAN", ellipsoid(grid, (0, -80, -85), (28, 22, 22))),
        *heads,
    ]
    paints = [
        (bones, BONE_HU),
        (bones + 5.0, MARROW_HU),
        (bladder, 5.0),
        (rectum, 30.0),
        (rectum + 9.0, -300.0),
        (bag, 10.0),
    ]
    return _phantom(name, title, protocol_id, grid, body, paints, (*drawn, *organs))


def prostate() -> Phantom:
    """Prostate with a margin of 6 mm."""
    return _pelvis(
        "prostate", "Pelvis, prostate", "prostate_70_28", lambda g: [("PTV", ellipsoid(g, (0, 12, 0), (31, 26, 31)))]
    )


def rectum() -> Phantom:
    """Rectal tumour in the mesorectum; the elective target holds the boost."""

    def targets(grid: Grid) -> list[tuple[str, Field]]:
        boost = ellipsoid(grid, (0, 48, 15), (30, 26, 34))
        elective = loft(grid, [(-35, 0, 50, 28, 26), (20, 0, 42, 45, 36), (62, 0, 45, 42, 34)])
        return [("PTV_5000", boost), ("PTV_4700", np.minimum(boost, elective))]

    return _pelvis("rectum", "Pelvis, rectum", "rectum_50_25", targets)


def cervix() -> Phantom:
    """Cervix and uterus with nodes along both pelvic walls."""

    def targets(grid: Grid) -> list[tuple[str, Field]]:
        middle = ellipsoid(grid, (0, 14, 18), (38, 30, 42))
        nodes = _both(lambda s: tube(grid, [(s * 48, 14, 5), (s * 56, 4, 40), (s * 40, 18, 80)], 15.0))
        return [("PTV_4500", np.minimum(middle, nodes))]

    return _pelvis("cervix", "Pelvis, cervix", "cervix_45_25", targets)


def brain() -> Phantom:
    """A head on a neck; the target is the brain with a margin of 3 mm."""
    grid = centred_grid((54, 60, 48), (4.0, 4.0, 4.0), centre_z_mm=-10.0)
    z, _, _ = axes(grid)
    head = ellipsoid(grid, (0, 0, 5), (78, 96, 84))
    face = ellipsoid(grid, (0, -38, -40), (60, 58, 62))
    neck = loft(grid, [(-112, 0, 18, 58, 58), (-40, 0, 18, 58, 60)])
    body = np.minimum(np.minimum(head, face), neck)
    floor = np.interp(grid.y_mm(), [-60, 10, 60], [-22, -46, -58])[None, :, None]
    whole = ellipsoid(grid, (0, 4, 5), (65, 83, 71))
    inside = np.maximum(whole, floor - z)
    skull = np.maximum(without(whole - 7.0, inside), floor - 7.0 - z)
    lenses = _pair("Lens", lambda s: ellipsoid(grid, (s * 31, -84, -32), (5, 4, 5)))
    eyes = _both(lambda s: ellipsoid(grid, (s * 31, -75, -32), (12, 12, 12)))
    parotids = _pair("Parotid", lambda s: ellipsoid(grid, (s * 54, 5, -68), (10, 17, 22)))
    paints = [(skull, BONE_HU), (inside, 36.0), (eyes, 12.0), (ellipsoid(grid, (0, -50, -52), (20, 30, 18)), float(AIR_HU))]
    rois = (roi("PTV_Brain", "PTV", np.maximum(inside - 3.0, body + 5.0)), *lenses, *parotids)
    return _phantom("brain", "Head, whole brain", "whole_brain_30_10", grid, body, paints, rois)


def spine() -> Phantom:
    """A trunk with a metastasis of the first lumbar vertebra between the kidneys."""
    grid = centred_grid((42, 62, 90), SPACING_ZYX_MM)
    z, _, _ = axes(grid)
    body = _trunk(grid, 165.0, 108.0, half_length_mm=98.0)
    bodies = loft(grid, [(-98, 0, 42, 24, 17), (98, 0, 42, 22, 16)])
    canal = loft(grid, [(-98, 0, 68, 11, 9), (98, 0, 68, 11, 9)])
    arch = without(canal - 7.0, canal)
    cord = loft(grid, [(-98, 0, 68, 6, 5), (98, 0, 68, 6, 5)])
    kidneys = _pair("Kidney", lambda s: ellipsoid(grid, (s * 62, 35, 5), (26, 22, 52)))
    vertebra = np.maximum(np.minimum(bodies, np.minimum(arch, canal)) - 6.0, slab(z, -32.0, 32.0))
    bones = np.minimum(bodies, arch)
    paints = [(bones, BONE_HU), (bodies + 4.0, MARROW_HU), (canal, 20.0), (_both(lambda s: kidneys[0].field), 35.0)]
    rois = (roi("PTV_Spine", "PTV", vertebra), roi("Cord", "ORGAN", cord), *kidneys)
    return _phantom("spine", "Trunk, vertebral metastasis", "bone_20_5", grid, body, paints, rois)


def _thorax(grid: Grid) -> tuple[Field, dict[str, Field], list[Paint]]:
    body = _trunk(grid, 165.0, 105.0, half_length_mm=118.0)
    lungs = {s: ellipsoid(grid, (s * 78, 5, 5), (62, 78, 118)) for s in (1.0, -1.0)}
    heart = ellipsoid(grid, (22, -32, -45), (48, 38, 44))
    spine_ = loft(grid, [(-118, 0, 68, 20, 16), (118, 0, 68, 18, 15)])
    canal = loft(grid, [(-118, 0, 86, 10, 8), (118, 0, 86, 10, 8)])
    cord = loft(grid, [(-118, 0, 86, 5, 4.5), (118, 0, 86, 5, 4.5)])
    gullet = loft(grid, [(-118, 5, 42, 9, 7), (118, 0, 42, 9, 7)])
    middle = np.minimum(heart, _trunk(grid, 26.0, 200.0, half_length_mm=130.0))
    parts = {
        "Lung_L": without(lungs[1.0], middle),
        "Lung_R": without(lungs[-1.0], middle),
        "Heart": heart,
        "SpinalCord": cord,
        "Esophagus": gullet,
    }
    ribs = np.maximum(np.minimum(lungs[1.0], lungs[-1.0]) - 9.0, np.abs(np.mod(axes(grid)[0], 28.0) - 14.0) - 6.0)
    paints = [
        (ribs, 400.0),
        (parts["Lung_L"] - 2.0, MUSCLE_HU),
        (parts["Lung_R"] - 2.0, MUSCLE_HU),
        (parts["Lung_L"], LUNG_HU),
        (parts["Lung_R"], LUNG_HU),
        (heart, 40.0),
        (np.minimum(spine_, canal - 6.0), BONE_HU),
        (spine_ + 4.0, MARROW_HU),
        (canal, 20.0),
        (gullet, 30.0),
    ]
    return body, parts, paints


def breast(side: str = "left") -> Phantom:
    """A chest with breasts; the target is one breast, 5 mm under the skin and off the lung."""
    grid = centred_grid((48, 76, 90), SPACING_ZYX_MM)
    body, parts, paints = _thorax(grid)
    mounds = {s: ellipsoid(grid, (s * 82, -72, -5), (62, 66, 58)) for s in (1.0, -1.0)}
    skin = np.minimum(body, np.minimum(mounds[1.0], mounds[-1.0]))
    wall = _trunk(grid, 150.0, 90.0, half_length_mm=130.0)
    glands = {s: without(np.maximum(mounds[s], skin + 2.0), wall) for s in (1.0, -1.0)}
    treated = 1.0 if side == "left" else -1.0
    depth_mm = distance_transform_edt(skin < 0, sampling=grid.spacing_zyx_mm)
    lungs = np.minimum(parts["Lung_L"], parts["Lung_R"])
    ptv = np.maximum(without(np.maximum(mounds[treated], skin + 2.0), wall + 6.0, lungs - 5.0), 5.0 - depth_mm)
    rois = (
        roi("PTV_Breast", "PTV", ptv),
        *(roi(name, "ORGAN", field) for name, field in parts.items()),
        roi("Breast_L", "ORGAN", glands[1.0]),
        roi("Breast_R", "ORGAN", glands[-1.0]),
    )
    paints = [*paints, (glands[1.0] + 3.0, -40.0), (glands[-1.0] + 3.0, -40.0)]
    return _phantom(f"breast_{side}", f"Chest, {side} breast", "breast_40_15", grid, skin, paints, rois)


def lung(side: str = "left") -> Phantom:
    """A chest with a tumour of 36 mm in one lung and a margin of 8 mm."""
    grid = centred_grid((48, 60, 90), SPACING_ZYX_MM)
    body, parts, paints = _thorax(grid)
    centre = ((1.0 if side == "left" else -1.0) * 82.0, 8.0, 30.0)
    tumour = ellipsoid(grid, centre, (18, 18, 18))
    rois = (
        roi("PTV", "PTV", ellipsoid(grid, centre, (26, 26, 26))),
        roi("GTV", "GTV", tumour),
        *(roi(name, "ORGAN", field) for name, field in parts.items()),
    )
    return _phantom(f"lung_{side}", f"Chest, {side} lung", "lung_60_30", grid, body, [*paints, (tumour, TUMOUR_HU)], rois)
