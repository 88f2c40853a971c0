"""UIDs of outputs, and where results come from."""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple
from pathlib import Path

from small_plan import NOW

from rtplan.dicom.uids import new_output_ids, new_uid
from rtplan.provenance import code_version, sha256_of_bytes, sha256_of_file


def test_every_output_gets_its_own_fresh_uid():
    # mutant: one UID for all, or UIDs that repeat from run to run
    first, second = (astuple(new_output_ids(NOW))[:-1] for _ in range(2))
    assert len({*first, *second}) == 12
    for uid in first:
        assert re.fullmatch(r"2\.25\.[1-9][0-9]{0,38}", uid)
        assert len(uid) <= 64


def test_uids_come_from_the_given_entropy_alone():
    assert new_uid(lambda n: b"\x07" * n) == new_uid(lambda n: b"\x07" * n)
    assert new_uid(lambda n: b"\x07" * n) != new_uid(lambda n: b"\x08" * n)
    # Version 4, variant 1, whatever the bytes.
    number = int(new_uid(lambda n: b"\xff" * n).removeprefix("2.25."))
    assert (number >> 76) & 0xF == 4
    assert (number >> 62) & 0b11 == 0b10


def test_hashes_are_sha256(tmp_path: Path):
    data = b"rtplan" * 100_000
    (tmp_path / "f").write_bytes(data)
    assert sha256_of_file(tmp_path / "f") == sha256_of_bytes(data) == hashlib.sha256(data).hexdigest()


def test_the_code_names_its_version():
    assert re.match(r"\d+\.\d+", code_version())
