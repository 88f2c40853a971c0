"""Prescribed structures of the site phantoms, without files between them."""

from __future__ import annotations

import re
from functools import cache

from rtplan.domain.prescription import Prescription
from rtplan.domain.structures import Structure, StructureSet
from rtplan.library.protocols import load_protocol
from rtplan.steps.prescribe import prescribe
from sample_data import sites
from sample_data.phantom import Phantom


@cache
def drawn(name: str, *side: str) -> Phantom:
    """A phantom of `sample_data.sites`."""
    phantom: Phantom = getattr(sites, name)(*side)
    return phantom


@cache
def prescribed(name: str, *side: str, protocol_id: str) -> tuple[Prescription, StructureSet]:
    """The phantom's structures under the protocol's names, and what is prescribed."""
    phantom, protocol = drawn(name, *side), load_protocol(protocol_id)
    rules = [(r.target, r.names, "PTV") for r in protocol.levels] + [(o.name, o.names, "ORGAN") for o in protocol.organs]
    found = []
    for roi in phantom.rois:
        if roi.interpreted_type == "EXTERNAL":
            found.append(Structure("External", "EXTERNAL", roi.mask))
        for own, names, kind in rules:
            if any(re.fullmatch(pattern, roi.name, re.IGNORECASE) for pattern in names):
                found.append(Structure(own, kind, roi.mask, roi.name))  # type: ignore[arg-type]
    return prescribe(StructureSet(phantom.grid, tuple(found)), protocol)
