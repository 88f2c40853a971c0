"""The list of cases of a batch: a CSV file with the columns ct, structures, protocol, machine, and perhaps model."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from rtplan.errors import CaseRejected, RequestInvalid

COLUMNS = ("ct", "structures", "protocol", "machine")
MODEL_COLUMN = "model"  # optional; an empty cell means the model of the whole batch
MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One case as the manifest names it. `line` is its line in the file, `number` counts the cases from 1.

    `model` is empty where the row leaves the choice to the batch, and "none" where nothing is to be contoured.
    """

    number: int
    line: int
    ct: str
    structures: str
    protocol: str
    machine: str
    model: str = ""

    @property
    def name(self) -> str:
        """The case's folder and its name in progress and outcomes."""
        return f"case_{self.number:03d}"


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """Rows of a manifest, in order. Raises RequestInvalid for a file that is no manifest; a bad row is not its business."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, path)
            cells = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(c.strip() for c in row)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise RequestInvalid("MANIFEST_INVALID", f"{path}: {error}", "a UTF-8 CSV file", "") from None
    if not cells:
        raise RequestInvalid("MANIFEST_EMPTY", f"{path} lists no case", "one row a case", "")
    if len(cells) > MAX_ROWS:
        raise RequestInvalid("MANIFEST_TOO_LONG", f"{path} lists {len(cells)} cases", f"at most {MAX_ROWS}", "split it")
    rows = []
    for number, (line, row) in enumerate(cells, start=1):
        if len(row) > len(header):
            raise RequestInvalid(
                "MANIFEST_INVALID",
                f"{path}, line {line}: {len(row)} cells",
                f"{len(header)} cells",
                "quote cells with commas",
            )
        named = dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
        cells_of_row = {column: named[column] for column in COLUMNS}
        rows.append(ManifestRow(number, line, **cells_of_row, model=named.get(MODEL_COLUMN, "")))
    return tuple(rows)


def _check_header(header: list[str], path: Path) -> None:
    if sorted(header) not in (sorted(COLUMNS), sorted((*COLUMNS, MODEL_COLUMN))):
        raise RequestInvalid(
            "MANIFEST_COLUMNS",
            f"{path} has the columns {', '.join(header) or 'none'}",
            f"{', '.join(COLUMNS)}, and {MODEL_COLUMN} where rows name their own",
            "mend the first line",
        )


def check_row(row: ManifestRow, folder: Path) -> None:
    """Raise CaseRejected when a row's cells are empty or its inputs are not there. Paths are relative to `folder`."""
    for column in COLUMNS:
        if not getattr(row, column):
            raise CaseRejected("ROW_INCOMPLETE", f"manifest line {row.line}: {column} is empty", "a value", "fill it in")
    if not (folder / row.ct).is_dir():
        raise CaseRejected("INPUT_MISSING", f"manifest line {row.line}: CT folder {row.ct} is not there", "a folder", "")
    if not (folder / row.structures).is_file():
        raise CaseRejected(
            "INPUT_MISSING", f"manifest line {row.line}: structures {row.structures} are not there", "an RTSTRUCT file", ""
        )
