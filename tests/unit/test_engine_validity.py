"""What contradicts itself never reaches the rays: the engine's public functions refuse it, each with its code."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from water_beam import beam_model, block, open_field

from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.progress import silent
from rtplan.engines.collapsed_cone import PLUGIN, dose
from rtplan.errors import RtplanError

WATER = block(np.ones((6, 6, 6), dtype=np.float32))
FIELD = open_field()
BEAMLETS = Beamlets((FIELD.beam,), [0, 0], [0, 0], [-5.0, 0.0], [0.0, 5.0], [-5.0, -5.0], [0.0, 0.0])
VOXELS = np.arange(10)


def refused_by_dose(density=WATER, fluence=(FIELD,), model=None) -> RtplanError:
    with pytest.raises(RtplanError) as caught:
        dose(density, fluence, model or beam_model(), quality="quick", backend="cpu")
    return caught.value


def refused_by_influence(density=WATER, beamlets=BEAMLETS, model=None, voxels=VOXELS) -> RtplanError:
    with pytest.raises(RtplanError) as caught:
        PLUGIN.influence(density, beamlets, model or beam_model(), voxels, backend="cpu", progress=silent)
    return caught.value


def with_voxel(value: float, *, electron: bool = False) -> DensityImage:
    changed = WATER.mass_density_g_cm3.copy()
    changed[2, 3, 4] = value
    mass, other = (WATER.mass_density_g_cm3, changed) if electron else (changed, WATER.mass_density_g_cm3)
    return DensityImage(WATER.grid, mass, other)


def turned(field: FluenceMap = FIELD, **changes: object) -> FluenceMap:
    return FluenceMap(replace(field.beam, **changes), field.x_edges_mm, field.y_edges_mm, field.fluence_mu)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("electron", [False, True])
@pytest.mark.parametrize("value", [NAN, INF, -INF, -0.01, 1000.0])  # the last is water in kg/m³
def test_a_density_that_is_none(value: float, electron: bool):
    # mutant: `low < 0 or high > 25` lets NaN through; electron density not looked at
    image = with_voxel(value, electron=electron)
    assert refused_by_dose(image).code == refused_by_influence(image).code == "DENSITY_INVALID"


@pytest.mark.parametrize("spacing", [NAN, INF, 0.0, -5.0])
def test_a_grid_that_is_none_is_refused_where_it_is_made_and_where_it_arrives(spacing: float):
    # mutant: without _refuse_grid
    with pytest.raises(ValueError, match="not positive"):
        Grid((6, 6, 6), (5.0, spacing, 5.0), (0.0, 0.0, 0.0))
    damaged = pickle.loads(pickle.dumps(WATER))  # what crosses processes is not made anew, so nothing is checked
    object.__setattr__(damaged.grid, "spacing_zyx_mm", (5.0, spacing, 5.0))
    assert refused_by_dose(damaged).code == refused_by_influence(damaged).code == "GRID_INVALID"


@pytest.mark.parametrize("mu", [NAN, INF, -1.0])
def test_a_fluence_that_is_none(mu: float):
    # mutant: negative MU allowed
    bad = FluenceMap(FIELD.beam, [-30, 0, 30], [-30, 30], [[1.0, mu]])
    assert refused_by_dose(fluence=(FIELD, bad)).code == "FLUENCE_INVALID"


@pytest.mark.parametrize("edges", [[-30, 30, 0], [-30, 0, 0], [-30, NAN, 30], [-INF, 0, 30], [NAN, 0, 30]])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_edges_that_do_not_rise(edges: list[float], axis: str):
    # mutant: >= 0 for > 0; one axis not looked at
    if axis == "x":
        bad = FluenceMap(FIELD.beam, edges, [-30, 30], [[1.0, 1.0]])
    else:
        bad = FluenceMap(FIELD.beam, [-30, 30], edges, [[1.0], [1.0]])
    assert refused_by_dose(fluence=(bad,)).code == "FLUENCE_INVALID"


@pytest.mark.parametrize(
    "change", [{"gantry_angle_deg": NAN}, {"sad_mm": 0.0}, {"sad_mm": INF}, {"isocentre_xyz_mm": (0.0, NAN, 0.0)}]
)
def test_a_beam_from_nowhere(change: dict[str, object]):
    # mutant: without _refuse_beam's first condition
    beam = replace(FIELD.beam, **change)
    assert refused_by_dose(fluence=(turned(**change),)).code == "BEAM_INVALID"
    assert refused_by_influence(beamlets=replace(BEAMLETS, beams=(beam,))).code == "BEAM_INVALID"


@pytest.mark.parametrize("isocentre", [(1000.0, 0.0, 0.0), (0.0, -316.0, 0.0), (0.0, 0.0, 316.0)])
def test_an_isocentre_far_from_the_patient(isocentre: tuple[float, float, float]):
    # mutant: the lower bound alone
    away = turned(isocentre_xyz_mm=isocentre)
    assert refused_by_dose(fluence=(away,)).code == "ISOCENTRE_FAR"
    assert refused_by_influence(beamlets=replace(BEAMLETS, beams=(away.beam,))).code == "ISOCENTRE_FAR"


def test_an_isocentre_beside_a_phantom_is_a_set_up():
    # mutant: an isocentre outside the grid refused: SSD 110 cm would be
    above = turned(isocentre_xyz_mm=(0.0, -115.0, 0.0))
    assert dose(WATER, (above,), beam_model(), quality="quick", backend="cpu").max() > 0


@pytest.mark.parametrize(
    "change",
    [
        {"energy_fluence_per_mu_mev_cm2": NAN},
        {"energy_fluence_per_mu_mev_cm2": 0.0},
        {"photon_fraction": [0.4, NAN, 0.2]},
        {"photon_fraction": [0.4, -0.4, 1.0]},
        {"energy_mev": [0.6, INF, 4.0]},
        {"off_axis_factor": [1.0, NAN]},
        {"source_sigma_x_mm": NAN},
    ],
)
def test_a_beam_model_with_holes(change: dict[str, object]):
    # mutant: arrays not looked at; numbers not looked at
    model = replace(beam_model(), **change)
    for error in (refused_by_dose(model=model), refused_by_influence(model=model)):
        assert (error.code, error.exit_code) == ("BEAM_MODEL_INVALID", 2)


@pytest.mark.parametrize(
    "values", [{"x2_mm": [-5.0, 5.0]}, {"y1_mm": [NAN, -5.0]}, {"x1_mm": [-INF, 0]}, {"beam_index": [0, 1]}]
)
def test_beamlets_that_are_none(values: dict[str, object]):
    # mutant: >= for >; beam_index not looked at
    assert refused_by_influence(beamlets=replace(BEAMLETS, **values)).code == "BEAMLETS_INVALID"


@pytest.mark.parametrize("voxels", [[-1, 3], [0, 216]])
def test_voxels_of_another_grid(voxels: list[int]):
    # mutant: > for >=
    assert refused_by_influence(voxels=np.array(voxels)).code == "VOXELS_INVALID"


def test_a_dose_that_is_no_number_is_not_handed_out(monkeypatch: pytest.MonkeyPatch):
    # mutant: without the check of the result
    monkeypatch.setattr("rtplan.engines.collapsed_cone._energy_per_cc", lambda *_: np.full((6, 6, 6), NAN, np.float32))
    assert refused_by_dose().code == "DOSE_NOT_FINITE"


def test_sound_input_passes():
    beam = Beam("b", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    dark = FluenceMap(beam, [-30, 30], [-30, 30], [[0.0]])
    assert np.all(dose(WATER, (dark,), beam_model(), quality="quick", backend="cpu") == 0)
