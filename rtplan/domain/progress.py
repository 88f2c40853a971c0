"""How a step tells how far it is. Effects (terminals, logs, events) live at the edges."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the step's name, the fraction done (0 to 1) and a short message with the figures of the moment."""

    def __call__(self, step: str, fraction: float, message: str = "") -> None:
        """Report progress."""
        ...


def silent(step: str, fraction: float, message: str = "") -> None:
    """Progress that tells nobody."""
