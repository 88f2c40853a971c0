"""The report: the same figures in both files, nothing unescaped, pictures the right way round."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_plan import ISO, machine, plan
from small_report import report_data

from rtplan.domain.example_arc import example_arc
from rtplan.domain.example_context import example_machine
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage
from rtplan.domain.openings import open_area_cm2
from rtplan.steps.delivery_time import delivery_time
from rtplan.steps.report import ReportData, write_report
from rtplan.steps.report.beams_eye import arc_stills, beams_eye_png, open_mu
from rtplan.steps.report.planes import VIEWS, dose_on_plane, nearest_index

NASTY = "<script>alert('x')</script> & \"$\\frac{1}$\" 耳下腺"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportData, str, dict]:
    data = report_data()
    html, js = write_report(data, tmp_path_factory.mktemp("report"))
    return data, html.read_text(), json.loads(js.read_text())


class Text(HTMLParser):
    """Collects the text of a page, tag names and the sources of images."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.sources = "", set[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_json_holds_the_goals_as_judged(files):
    data, _, plain = files
    assert len(plain["goals"]) == len(data.verification.goals)
    for entry, result in zip(plain["goals"], data.verification.goals, strict=True):
        assert (entry["structure"], entry["metric"]) == (result.goal.structure, result.goal.metric.text)
        assert (entry["value"], entry["met"], entry["limit"]) == (result.value, result.met, result.goal.limit)
        assert entry["status"] == "unverified"
    assert plain["outcome"] == "goals_missed"
    assert (plain["goals_met"], plain["goals_judged"], plain["goals_total"]) == (2, 3, 4)


def test_the_page_shows_the_figures_of_the_json(files):
    _, page, plain = files
    text = Text(page).text
    for goal in plain["goals"]:
        if goal["value"] is not None:
            assert f"{goal['value']:.2f}" in text
    for target in plain["targets"]:
        assert f"{target['d95_gy']:.2f}" in text
    for beam in plain["beams"]:
        assert f"{beam['mu']:.1f}" in text
    assert f"{plain['plan']['mu_per_fraction']:.1f}" in text
    assert "✘ missed" in text
    assert "not judged: structure absent" in text


def test_the_page_says_what_it_is(files):
    _, page, _ = files
    text = Text(page).text
    assert "AUTO-GENERATED - NOT APPROVED - recalculate & QA before use" in text
    assert "generic, not commissioned" in text
    assert text.count("unverified") >= 4
    assert "HOLD METAL" in text
    assert "1 plan check failed: DOSE_GRID" in text
    assert "NOT converged" in text


def test_one_file_without_scripts_or_links(files):
    _, page, _ = files
    parsed = Text(page)
    assert "script" not in parsed.tags
    assert len(parsed.sources) == 4
    assert all(s.startswith("data:image/") for s in parsed.sources)
    assert len(page) < 5_000_000


def test_names_from_outside_are_only_text(tmp_path: Path):
    # mutant: autoescape=False. Also: no figure stumbles over mathematics or a script its font lacks.
    data = report_data(NASTY, NASTY)
    page = write_report(data, tmp_path)[0].read_text()
    parsed = Text(page)
    assert "script" not in parsed.tags
    assert NASTY in parsed.text
    assert json.loads((tmp_path / "report.json").read_text())["patient"]["name"] == NASTY


def test_histograms_in_the_json_are_those_judged(files):
    data, _, plain = files
    by_name = {s["name"]: s for s in plain["structures"]}
    for dvh in data.verification.dvhs:
        np.testing.assert_allclose(by_name[dvh.structure]["dvh"]["volume_percent"], dvh.volume_percent, atol=1e-4)
        np.testing.assert_allclose(by_name[dvh.structure]["dvh"]["dose_gy"], dvh.dose_gy, atol=1e-4)
    # The dose grid ends inside the body along z.
    assert by_name["External"]["in_dose_grid_percent"] < 100
    assert by_name["PTV_70"]["in_dose_grid_percent"] == 100


def test_no_figure_is_infinite_in_the_json(files):
    _, _, plain = files
    assert plain["solver"]["relative_gap"] is None
    assert plain["solver"]["converged"] is False


def test_the_histogram_is_an_svg_with_every_structure(files):
    _, page, _ = files
    svg = base64.b64decode(re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)[0]).decode()
    for name in ("PTV_70", "PTV_56", "SpinalCord", "Parotid_L"):
        assert name in svg
    assert "Ring" not in svg


def test_patients_left_is_on_the_right_and_anterior_up():
    # The radiological convention, by arithmetic: x grows to the left, y to posterior, z to superior.
    axial, coronal, sagittal = VIEWS
    assert (axial.left, axial.right, axial.top, axial.bottom) == ("R", "L", "A", "P")
    assert (axial.column_axis, axial.row_axis, axial.row_up) == (2, 1, False)
    assert (coronal.left, coronal.right, coronal.top) == ("R", "L", "S")
    assert (coronal.column_axis, coronal.row_axis, coronal.row_up) == (2, 0, True)
    assert (sagittal.left, sagittal.right, sagittal.top) == ("A", "P", "S")
    assert (sagittal.column_axis, sagittal.row_axis, sagittal.row_up) == (1, 0, True)


def test_the_dose_on_a_plane_is_where_the_dose_is():
    # mutant: swap rows and columns, or x and z. The dose is a hill at the isocentre.
    data = report_data()
    grid = data.ct.grid
    centres = (grid.z_mm(), grid.y_mm(), grid.x_mm())
    for view in VIEWS:
        index = nearest_index(grid, view.across, ISO[2 - view.across])
        columns, rows = centres[view.column_axis], centres[view.row_axis]
        plane = dose_on_plane(data, view, centres[view.across][index], columns, rows)
        row, column = np.unravel_index(plane.argmax(), plane.shape)
        assert abs(rows[row] - ISO[2 - view.row_axis]) < 5
        assert abs(columns[column] - ISO[2 - view.column_axis]) < 6


def test_pixels_of_a_drawn_axial_plane_are_the_right_way_round():
    # A bright block at the patient's left back must be drawn at the lower right. mutant: origin="upper" without row_up
    from matplotlib.figure import Figure

    from rtplan.steps.report import planes
    from rtplan.steps.report.figures import png_bytes

    grid = Grid((5, 60, 80), (3.0, 2.0, 2.0), (-79.0, -59.0, -6.0))
    hu = np.full(grid.shape_zyx, -1000, dtype=np.int16)
    hu[:, 45:55, 65:75] = 1000
    data = report_data()
    body = replace(data.structures.structures[0], mask=np.ones(grid.shape_zyx, dtype=bool))
    data = replace(
        data,
        ct=CtImage(grid, hu, data.ct.series, "HFS", ""),
        structures=replace(data.structures, grid=grid, structures=(body,)),
    )
    figure = Figure(figsize=(4, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    box = ((-79.0, 79.0), (-59.0, 59.0))
    planes._draw_view(axes, data, VIEWS[0], (-70.0, -50.0, 0.0), box, {})
    from io import BytesIO

    from matplotlib.image import imread

    picture = imread(BytesIO(png_bytes(figure, 50)))[..., :3].min(axis=2)
    height, width = picture.shape
    assert picture[int(0.82 * height), int(0.88 * width)] > 0.8
    assert picture[int(0.18 * height), int(0.88 * width)] < 0.3
    assert picture[int(0.82 * height), int(0.25 * width)] < 0.3


def test_the_beams_eye_view_conserves_monitor_units_and_area():
    # mutant: swap the banks; forget the jaws
    beam, mlc = plan().beams[1], machine().mlc
    x_edges, y_edges, mu = open_mu(beam, mlc)
    assert mu.max() <= beam.mu + 1e-9
    total = (mu * np.diff(y_edges)[:, None] * np.diff(x_edges)[None, :]).sum()
    expected = 0.0
    for start, end in zip(beam.control_points[::2], beam.control_points[1::2], strict=True):
        a = start.aperture
        for pair in range(mlc.n_pairs):
            height = min(mlc.leaf_boundaries_mm[pair + 1], a.jaw_y2_mm) - max(mlc.leaf_boundaries_mm[pair], a.jaw_y1_mm)
            width = min(a.leaf_x2_mm[pair], a.jaw_x2_mm) - max(a.leaf_x1_mm[pair], a.jaw_x1_mm)
            expected += (end.cumulative_mu - start.cumulative_mu) * max(height, 0) * max(width, 0)
    assert total == pytest.approx(expected, rel=1e-9)


def test_the_report_module_does_not_load_drawing_libraries():
    code = "import sys, rtplan.steps.report; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_arc_is_a_strip_of_eight_apertures_with_their_angles():
    # mutants: the sum over all angles; apertures of the first eight control points
    arc = example_arc()
    stills = arc_stills(arc, example_machine().mlc)
    assert len(stills) == 8
    assert [s.title.split("\n")[0] for s in stills] == [
        f"1: CW {arc.control_points[i].gantry_angle_deg:.0f}°" for i in (0, 1, 3, 4, 6, 7, 9, 10)
    ]
    for still, index in zip(stills, (0, 1, 3, 4, 6, 7, 9, 10), strict=True):
        x_edges, y_edges, fraction = still.mu
        area = float((fraction * np.outer(np.diff(y_edges), np.diff(x_edges))).sum()) / 100
        assert area == pytest.approx(open_area_cm2(arc.control_points[index].aperture, example_machine().mlc), abs=0.3)
    assert len(arc_stills(replace(arc, control_points=arc.control_points[:3]), example_machine().mlc)) == 3


def test_the_report_tells_arcs_from_segments(files):
    data, page, plain = files
    assert plain["plan"]["arcs"] == 1
    assert plain["plan"]["segments"] == sum(b["segments"] for b in plain["beams"]) == 6
    arc = plain["beams"][3]
    assert (arc["rotation"], arc["arc_deg"], arc["segments"], arc["control_points"]) == ("CW", pytest.approx(20.0), 0, 5)
    assert [b["rotation"] for b in plain["beams"][:3]] == ["NONE"] * 3
    assert "350 CW → 10 (20)" in page and "of which 1 arcs" in page
    time = delivery_time(data.plan, data.machine)
    assert plain["plan"]["delivery_s"] == pytest.approx(time.total_s, abs=0.06)
    assert [b["delivery_s"] for b in plain["beams"]] == pytest.approx([b.total_s for b in time.beams], abs=0.06)


def test_a_plan_of_arcs_alone_and_one_without_are_drawn():
    data = report_data()
    for beams in (data.plan.beams[3:], data.plan.beams[:3], data.plan.beams):
        assert beams_eye_png(replace(data, plan=replace(data.plan, beams=beams))).startswith(b"\x89PNG")
