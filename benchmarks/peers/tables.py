"""The peers' figures side by side, and as ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Rows = Mapping[str, Mapping[str, object]]
OURS = "rtplan"
NAME_WIDTH = 26
WIDTH = 14


def ratios(rows: Rows, keys: Sequence[str]) -> dict[str, dict[str, float]]:
    """Peer over rtplan for each peer and key that both have a positive figure for: above 1, rtplan needs less."""
    ours = rows.get(OURS, {})
    result: dict[str, dict[str, float]] = {}
    for name, figures in rows.items():
        if name != OURS:
            common = {key: _over(figures.get(key), ours.get(key)) for key in keys}
            result[name] = {key: value for key, value in common.items() if value is not None}
    return result


def _over(theirs: object, ours: object) -> float | None:
    if not isinstance(theirs, int | float) or not isinstance(ours, int | float) or ours <= 0:
        return None
    return theirs / ours


def table(title: str, rows: Rows, columns: Sequence[tuple[str, str]], *, with_ratios: bool) -> str:
    """Rows of figures under `columns` (key, heading). A peer with an `error` shows that in its row; it is never left out."""
    lines = [title, f"{'':{NAME_WIDTH}s}" + "".join(f"{heading:>{WIDTH}s}" for _, heading in columns)]
    over = ratios(rows, [key for key, _ in columns]) if with_ratios else {}
    for name, figures in rows.items():
        lines.append(f"{name:{NAME_WIDTH}s}" + _cells(figures, columns))
        if over.get(name):
            lines.append(f"{'  over ' + OURS:{NAME_WIDTH}s}" + _cells(over[name], columns))
    return "\n".join(lines)


def _cells(figures: Mapping[str, object], columns: Sequence[tuple[str, str]]) -> str:
    if "error" in figures:
        return f"  DID NOT RUN: {figures['error']}"
    return "".join(f"{_text(figures.get(key)):>{WIDTH}s}" for key, _ in columns)


def _text(value: object) -> str:
    if isinstance(value, int | float):
        return f"{value:.3g}" if abs(value) < 1e4 else f"{value / 1e6:.4g}e6"
    return "-"
