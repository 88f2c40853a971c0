"""A delivery into a folder is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtplan.channels.folder import PLUGIN
from rtplan.errors import TransportFailed


def sources(tmp_path: Path, text: str = "new") -> list[Path]:
    folder = tmp_path / f"made-{text}"
    folder.mkdir()
    made = []
    for name in ("RTPLAN.dcm", "RTDOSE.dcm", "report.json"):
        made.append(folder / name)
        made[-1].write_text(f"{text} {name}")
    return made


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir()}


def test_a_new_folder_holds_exactly_the_files(tmp_path: Path):
    out = tmp_path / "deep" / "out"
    assert PLUGIN.deliver(sources(tmp_path), out) == ("RTPLAN.dcm", "RTDOSE.dcm", "report.json")
    assert contents(out) == {n: f"new {n}" for n in ("RTPLAN.dcm", "RTDOSE.dcm", "report.json")}
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_an_old_delivery_is_replaced_and_other_files_stay(tmp_path: Path):
    out = tmp_path / "out"
    PLUGIN.deliver(sources(tmp_path, "old"), out)
    (out / "notes.txt").write_text("mine")
    PLUGIN.deliver(sources(tmp_path), out)
    assert contents(out)["RTDOSE.dcm"] == "new RTDOSE.dcm"
    assert contents(out)["notes.txt"] == "mine"
    assert len(contents(out)) == 4


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("interrupt_at", range(8))
def test_an_interruption_anywhere_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, interrupt_at: int
):
    # mutant: rename report.json first; write straight into the folder
    out = tmp_path / "out"
    if existing:
        PLUGIN.deliver(sources(tmp_path, "old"), out)
    calls = 0

    def counted(step):
        def run(*arguments: object, **named: object):
            nonlocal calls
            calls += 1
            if calls > interrupt_at:
                raise OSError(28, "No space left on device")
            return step(*arguments, **named)

        return run

    new = sources(tmp_path)
    for module, name in ((os, "fsync"), (os, "replace"), (Path, "rename"), (Path, "unlink")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    try:
        PLUGIN.deliver(new, out)
    except TransportFailed as error:
        assert error.code == "DELIVERY_FAILED"
    monkeypatch.undo()
    found = contents(out) if out.exists() else {}
    kinds = {text.split()[0] for text in found.values()}
    if "report.json" in found:
        assert len(found) == 3
        assert len(kinds) == 1
    PLUGIN.deliver(sources(tmp_path, "again"), out)
    assert {text.split()[0] for text in contents(out).values()} == {"again"}


def test_a_place_that_cannot_be_written_is_a_transport_failure(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TransportFailed, match="DELIVERY_FAILED"):
        PLUGIN.deliver(sources(tmp_path), tmp_path / "file" / "out")


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    first = sources(tmp_path)[0]
    with pytest.raises(TransportFailed):
        PLUGIN.deliver([first, first], tmp_path / "out")
    assert not (tmp_path / "out").exists()
