"""From the names that clinics use, in many languages, to the names of AAPM TG-263."""

from __future__ import annotations

from rtplan.library.names.match import match_name
from rtplan.library.names.reading import CONFIRM_BELOW, NameMatch
from rtplan.library.names.tables import name_tables

__all__ = ["CONFIRM_BELOW", "NameMatch", "fma_code", "known_names", "match_name", "tg263_name"]


def tg263_name(raw: str) -> str | None:
    """TG-263 name for a region's name, None when it is less certain than CONFIRM_BELOW (see `match_name`)."""
    found = match_name(raw)
    return found.name if found.sure else None


def fma_code(name: str) -> int | None:
    """Code of a TG-263 name in the Foundational Model of Anatomy, None when there is none."""
    return name_tables().fma.get(name)


def known_names() -> tuple[str, ...]:
    """Every TG-263 name that `tg263_name` can return, but for PRVs."""
    organs = name_tables().organs.values()
    return tuple(sorted({n for o in organs for n in ((f"{o.name}_L", f"{o.name}_R") if o.paired else (o.name,))}))
