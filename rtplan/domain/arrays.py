"""Owned, read-only arrays for frozen dataclasses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def frozen(array: Any, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Read-only, C-contiguous array owned by the caller. Copies unless the input is already such an array."""
    source = np.asarray(array)
    wanted = np.dtype(dtype) if dtype is not None else source.dtype
    if source.dtype == wanted and source.flags.c_contiguous and source.flags.owndata and not source.flags.writeable:
        return source
    copy = np.array(source, dtype=wanted, order="C", copy=True)
    copy.flags.writeable = False
    return copy
