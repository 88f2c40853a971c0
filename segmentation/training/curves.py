"""The course of a training as a picture."""

from __future__ import annotations

import json
from pathlib import Path


def draw_curves(log: Path, picture: Path) -> None:
    """Loss and Dice against the step, from log.jsonl. A step that was run twice counts as it was run last."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = {row["step"]: row for row in map(json.loads, log.read_text().splitlines())}
    steps = sorted(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(steps, [rows[s]["loss"] for s in steps], lw=0.8)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    scored = [s for s in steps if "dice" in rows[s]]
    for name in sorted({n for s in scored for n in rows[s]["dice"]}):
        right.plot(scored, [rows[s]["dice"].get(name) for s in scored], marker=".", label=name)
    right.set(xlabel="step", ylabel="Dice, four calibration patients", ylim=(0, 1))
    right.legend(fontsize=7, loc="lower right") if scored else None
    figure.savefig(picture, dpi=110)
    plt.close(figure)
