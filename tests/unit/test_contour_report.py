"""What reports say of contours: who drew them, what holds the case, and a picture of each place in doubt."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from small_plan import CT_GRID, NOW, ct, structures
from test_report_files import NASTY, Text, report_data

from rtplan.domain.structures import DrawnBy, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.steps.auto_contour import middle
from rtplan.steps.report import write_report
from rtplan.steps.report.contour_page import ContourPage, write_contour_page
from rtplan.steps.report.contour_pictures import contour_png, finding_pictures, place_of
from rtplan.steps.report.page import MAX_PICTURES
from rtplan.steps.report.planes import VIEWS

DRAWN = DrawnBy("head_neck_oar", "1.0 sha256:" + "ab" * 32, 0.8349)
HOLD = Finding("SHAPE", "hold", "Parotid_L is odd", "Parotid_L", (12, 30, 60))
FLAG = Finding("LATERALITY", "flag", "SpinalCord is far off", "SpinalCord")
NOTE = Finding("SMALL", "info", "SpinalCord is small", "SpinalCord")


def drawn_structures(organ: str = "Parotid_L") -> StructureSet:
    whole = structures(organ)
    changed = tuple(replace(s, origin="model", drawn_by=DRAWN) if s.name == organ else s for s in whole)
    return StructureSet(whole.grid, changed)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    data = replace(report_data(), structures=drawn_structures(), findings=(NOTE, FLAG, HOLD))
    html, js = write_report(data, tmp_path_factory.mktemp("report"))
    return html.read_text(), json.loads(js.read_text())


def test_the_report_says_who_drew_what(report):
    # mutant: origin of every structure "physician"; mutant: confidence left out
    page, plain = report
    by_name = {c["name"]: c for c in plain["contours"]}
    assert set(by_name) == {"External", "PTV_70", "PTV_56", "SpinalCord", "Parotid_L"}  # helpers are drawn by nobody
    assert by_name["SpinalCord"]["origin"] == "physician"
    assert by_name["SpinalCord"]["model"] is None
    drawn = by_name["Parotid_L"]
    assert (drawn["origin"], drawn["model"], drawn["model_version"]) == ("model", DRAWN.model_id, DRAWN.version)
    assert drawn["confidence"] == 0.835
    assert drawn["volume_cc"] == pytest.approx(structures()["Parotid_L"].mask.sum() * 0.012)
    text = Text(page).text
    assert "Contours: who drew what" in text
    assert DRAWN.version in text
    assert "Nobody has reviewed what a model drew: Parotid_L." in text


def test_what_holds_the_case_comes_first(report):
    # mutant: holds among the other findings alone
    page, plain = report
    assert plain["held"] == [HOLD.line]
    text = Text(page).text
    assert text.index(f"HOLD {HOLD.line}") < text.index("judged goals") < text.index("Contours: who drew what")


def test_findings_name_their_structure_and_place(report):
    _, plain = report
    assert [f["code"] for f in plain["findings"]] == ["SHAPE", "LATERALITY", "SMALL"]
    z, y, x = HOLD.at_zyx
    assert plain["findings"][0]["structure"] == "Parotid_L"
    assert plain["findings"][0]["at_xyz_mm"] == [CT_GRID.x_mm()[x], CT_GRID.y_mm()[y], CT_GRID.z_mm()[z]]
    assert plain["findings"][1]["at_xyz_mm"] is None


def test_every_doubt_has_a_picture_and_information_has_none(report):
    # mutant: only findings with a voxel of their own
    page, _ = report
    sources = Text(page).sources
    assert len(sources) == 4 + 2
    assert all(s.startswith("data:image/") for s in sources)
    figures = page.split('<figure class="small">')[1:]
    assert ["SHAPE" in figures[0], "LATERALITY" in figures[1]] == [True, True]


def test_where_a_picture_looks():
    whole = drawn_structures()
    assert place_of(HOLD, whole) == HOLD.at_zyx
    assert place_of(FLAG, whole) == middle(whole["SpinalCord"].mask)
    assert place_of(NOTE, whole) is None
    assert place_of(Finding("X", "flag", "y", "Larynx"), whole) is None
    assert place_of(Finding("X", "flag", "y"), whole) is None


def test_pictures_stop_at_a_number_that_a_page_can_hold():
    many = [replace(HOLD, code=f"C{i}") for i in range(MAX_PICTURES + 3)]
    pictures = finding_pictures(ct(), drawn_structures(), many)
    assert [bool(p) for p in pictures] == [True] * MAX_PICTURES + [False] * 3


def test_left_is_right_in_the_picture_and_anterior_up():
    # mutant: y upwards in an axial picture; mutant: x mirrored
    image = ct()
    bare = StructureSet(CT_GRID, (structures().external,))
    hu = np.full(CT_GRID.shape_zyx, -1000, np.int16)
    hu[:, :20, 60:] = 1000  # anterior, on the patient's left
    png = contour_png(replace(image, hu=hu), bare, "", (10, 30, 40), (VIEWS[0],), 100.0)
    picture = matplotlib.image.imread(io.BytesIO(png))[..., :3].min(axis=2)
    picture = picture[:-45]  # without the legend, whose letters are black as well
    ys, xs = np.nonzero(picture == 0.0)
    shown = picture[ys.min() : ys.max(), xs.min() : xs.max()]
    upper, lower = np.array_split(shown, 2, axis=0)
    corners = [quarter.mean() for half in (upper, lower) for quarter in np.array_split(half, 2, axis=1)]
    assert np.argmax(corners) == 1
    assert corners[1] > 3 * max(corners[0], corners[2], corners[3])


def test_the_contour_page_shows_every_organ_and_escapes_every_text(tmp_path: Path):
    findings = (NOTE, replace(HOLD, message=NASTY))
    page = ContourPage(NOW, ct(NASTY), drawn_structures(), findings, (DRAWN.model_id, DRAWN.version), "0.1.0")
    write_contour_page(page, tmp_path / "RS.html")
    html = (tmp_path / "RS.html").read_text()
    parsed = Text(html)
    assert "script" not in parsed.tags
    assert "default-src 'none'" in html
    assert "NOT APPROVED" in parsed.text
    assert "HELD" in parsed.text
    assert len(parsed.sources) == 1 + 5  # the hold, and five structures; the ring is no contour
    for name in ("External", "PTV_70", "SpinalCord", "Parotid_L", DRAWN.version):
        assert name in parsed.text


def test_nothing_is_held_on_a_page_without_holds(tmp_path: Path):
    page = ContourPage(NOW, ct(), drawn_structures(), (FLAG,), (DRAWN.model_id, DRAWN.version), "0.1.0")
    write_contour_page(page, tmp_path / "RS.html")
    assert "HELD" not in Text((tmp_path / "RS.html").read_text()).text
