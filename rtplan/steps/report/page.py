"""Pages from templates: one file each, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

MAX_PICTURES = 24  # of findings on one page; those that hold the case come first
_FOLDER = Path(__file__).parent


def data_uri(media_type: str, data: bytes) -> str:
    """Bytes as a data URI, so that the page needs no other file. An SVG inside <img> cannot run scripts."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def rendered(template: str, **values: Any) -> str:
    """A page as HTML. Every text is escaped: names in DICOM files come from anywhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fixed"] = _fixed
    environment.filters["signed"] = _signed
    return environment.get_template(template).render(most_pictures=MAX_PICTURES, **values)


def _fixed(value: float | None, decimals: int = 2) -> str:
    """A number with fixed decimals, or a dash."""
    return "–" if value is None else f"{value:.{decimals}f}"


def _signed(value: float | None, decimals: int = 2) -> str:
    """A number with its sign and fixed decimals, or a dash."""
    return "–" if value is None else f"{value:+.{decimals}f}".replace("-", "−")
