"""What organs and scans usually look like: ranges over the training patients, as they ship with a model.

`envelopes.json` holds quantiles and counts only, no patient's data. It is made by `segmentation.training.envelopes`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentation.contract import Float3, ModelUnverified

FILE_NAME, FORMAT = "envelopes.json", "rtplan-envelopes-1"
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Range:
    """Quantiles of a measure over `n` training patients, at `QUANTILES`, in the measure's own unit."""

    n: int
    quantiles: tuple[float, float, float, float, float]

    @property
    def usual(self) -> tuple[float, float]:
        """Where 90 % of the training patients lie."""
        return self.quantiles[1], self.quantiles[3]

    @property
    def median(self) -> float:
        """The middle of the training patients."""
        return self.quantiles[2]

    def excess(self, value: float) -> float:
        """How far `value` lies beyond the usual range, in widths of that range: 0 within, negative below."""
        low, high = self.usual
        width = max(high - low, 1e-6 * max(abs(low), abs(high), 1.0))
        return min(0.0, value - low) / width + max(0.0, value - high) / width


@dataclass(frozen=True, slots=True, eq=False)
class Envelopes:
    """Usual ranges. `structures[name][measure]`, `scan[measure]`, and where organs lie from each other.

    `offsets_zyx_mm[name][other]` is the median way from the reference point of `other` to that of `name`.
    """

    structures: Mapping[str, Mapping[str, Range]]
    scan: Mapping[str, Range]
    offsets_zyx_mm: Mapping[str, Mapping[str, Float3]]


def load_envelopes(folder: Path) -> Envelopes:
    """Read `folder`/envelopes.json. Raises ModelUnverified when it is missing or is not one."""
    return envelopes_of(read_json(folder / FILE_NAME, FORMAT), str(folder / FILE_NAME))


def envelopes_of(data: Mapping[str, Any], where: str) -> Envelopes:
    """Envelopes of parsed JSON. Raises ModelUnverified with the place at fault."""
    only_keys(data, {"format", "structures", "scan", "offsets_zyx_mm"}, where)
    structures = {name: _ranges(part, f"{where}: {name}") for name, part in table(data, "structures", where).items()}
    scan = _ranges(table(data, "scan", where), f"{where}: scan")
    offsets = {
        name: {other: _way(way, f"{where}: {name} from {other}") for other, way in table(ways, None, where).items()}
        for name, ways in table(data, "offsets_zyx_mm", where).items()
    }
    if not structures or not scan:
        raise ModelUnverified(f"{where}: no structure or no measure of the scan")
    return Envelopes(structures, scan, offsets)


def dumped(envelopes: Envelopes) -> dict[str, Any]:
    """What `envelopes_of` reads back."""
    return {
        "format": FORMAT,
        "structures": {name: _plain(part) for name, part in envelopes.structures.items()},
        "scan": _plain(envelopes.scan),
        "offsets_zyx_mm": {n: {o: list(w) for o, w in ways.items()} for n, ways in envelopes.offsets_zyx_mm.items()},
    }


def _plain(ranges: Mapping[str, Range]) -> dict[str, Any]:
    return {key: {"n": found.n, "quantiles": list(found.quantiles)} for key, found in ranges.items()}


def read_json(path: Path, expected_format: str) -> dict[str, Any]:
    """A JSON object that says it is of the expected format; else ModelUnverified."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnverified(f"{path}: {error}") from error
    if not isinstance(data, dict) or data.get("format") != expected_format:
        raise ModelUnverified(f"{path}: not a file of format {expected_format}")
    return data


def only_keys(data: Mapping[str, Any], keys: set[str], where: str) -> None:
    """Refuse a table with a missing or an unknown key."""
    if set(data) != keys:
        raise ModelUnverified(f"{where}: keys {sorted(data)}, expected {sorted(keys)}")


def table(data: Any, key: str | None, where: str) -> Mapping[str, Any]:
    """The table at `key` of `data` (or `data` itself); else ModelUnverified."""
    value = data[key] if key is not None else data
    if not isinstance(value, dict):
        raise ModelUnverified(f"{where}: {key or 'entry'} is not a table")
    return value


def number(value: Any, where: str) -> float:
    """A finite number; else ModelUnverified."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ModelUnverified(f"{where}: {value!r} is not a finite number")
    return float(value)


def numbers(value: Any, count: int, where: str) -> tuple[float, ...]:
    """A list of `count` finite numbers; else ModelUnverified."""
    if not isinstance(value, list) or len(value) != count:
        raise ModelUnverified(f"{where}: expected {count} numbers")
    return tuple(number(v, where) for v in value)


def _ranges(data: Any, where: str) -> dict[str, Range]:
    out = {}
    for key, entry in table(data, None, where).items():
        only_keys(table(entry, None, where), {"n", "quantiles"}, f"{where}: {key}")
        q01, q05, q50, q95, q99 = numbers(entry["quantiles"], len(QUANTILES), f"{where}: {key}")
        n = int(number(entry["n"], f"{where}: {key}"))
        if n < 1 or not q01 <= q05 <= q50 <= q95 <= q99:
            raise ModelUnverified(f"{where}: {key}: n or the order of the quantiles")
        out[key] = Range(n, (q01, q05, q50, q95, q99))
    return out


def _way(value: Any, where: str) -> Float3:
    z, y, x = numbers(value, 3, where)
    return z, y, x
