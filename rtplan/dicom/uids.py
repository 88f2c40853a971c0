"""Identifiers of what rtplan writes: fresh, random, and never made from patient data."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class OutputIds:
    """UIDs and creation time of one set of outputs. Each object is alone in a series of its own."""

    structure_set_uid: str
    structure_set_series_uid: str
    plan_uid: str
    plan_series_uid: str
    dose_uid: str
    dose_series_uid: str
    created: datetime


def new_uid(random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """A fresh UID "2.25.<decimal UUID version 4>" (ITU-T X.667; DICOM PS3.5 B.2); at most 44 characters."""
    return f"2.25.{uuid.UUID(bytes=random_bytes(16), version=4).int}"


def new_output_ids(now: datetime, random_bytes: Callable[[int], bytes] = os.urandom) -> OutputIds:
    """Fresh UIDs for a structure set, a plan and a dose, all created `now`. `random_bytes(n)` is the source of entropy."""
    uids = [new_uid(random_bytes) for _ in range(6)]
    return OutputIds(uids[0], uids[1], uids[2], uids[3], uids[4], uids[5], now)
