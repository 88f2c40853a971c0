"""The kernel backends as parameters of a test. Those that need a device are skipped, visibly, where it is absent."""

from __future__ import annotations

import pytest

from kernels.backend import BACKENDS, get_backend
from kernels.contract import BackendUnavailable

ON_A_DEVICE = ("cuda",)
SLOW = ("reference",)  # the specification in NumPy: for small grids only
# Every backend that some version has, so that one which is lost is seen as skipped.
NAMES = tuple(dict.fromkeys((*BACKENDS, *ON_A_DEVICE)))


def every_backend(*, slow: bool = True) -> list[object]:
    """Names of the backends for `pytest.mark.parametrize`, without the slow ones if asked."""
    names = [name for name in NAMES if slow or name not in SLOW]
    return [pytest.param(name, marks=[pytest.mark.gpu] if name in ON_A_DEVICE else []) for name in names]


def require(name: str) -> str:
    """The backend's name, or a skip where its device is absent. Backends without a device are never absent."""
    try:
        get_backend(name)
    except BackendUnavailable as error:
        if name not in ON_A_DEVICE:
            raise
        pytest.skip(f"{name}: {error}")
    return name
