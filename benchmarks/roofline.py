"""Ceilings of this machine that benchmark figures are held against: python -m benchmarks.roofline

Bytes count once for reading and once for writing. Rates are by each thread's own processor time, the threads running at
once, best of several short runs: so other work on the machine disturbs them little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

_COPY_BYTES = 128 << 20  # per thread: beyond every cache
_ROUNDS = 5
_IN_CACHE = 2048  # float32 values: half of a first-level cache
_REPEATS = 20_000
_FMA_PER_VALUE = 16


@numba.njit(nogil=True, fastmath=True)
def _polynomials(x: NDArray[np.float32], c: np.float32, repeats: int) -> None:
    """Evaluates a polynomial of degree 16 in each value, `repeats` times: 32 flop for 8 bytes of first-level cache."""
    for _ in range(repeats):
        for i in range(len(x)):
            v = x[i]
            y = v
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            y = y * v + c
            x[i] = y


def copy_bytes_per_s(threads: int | None = None) -> float:
    """Bytes read plus bytes written a second by copies of large arrays, on `threads` threads (all cores when None)."""
    threads = threads or os.cpu_count() or 1
    pairs = [(np.ones(_COPY_BYTES // 8), np.ones(_COPY_BYTES // 8)) for _ in range(threads)]
    return 2.0 * _COPY_BYTES * _runs_per_s([partial(np.copyto, a, b) for a, b in pairs])


def fp32_flops_per_s(threads: int | None = None) -> float:
    """Single-precision operations a second of fused multiply-adds, on `threads` threads (all cores when None)."""
    threads = threads or os.cpu_count() or 1
    values = [np.full(_IN_CACHE, 0.25, np.float32) for _ in range(threads)]
    _polynomials(values[0], np.float32(0.1), 1)
    runs = _runs_per_s([partial(_polynomials, x, np.float32(0.1), _REPEATS) for x in values])
    return 2.0 * _FMA_PER_VALUE * _IN_CACHE * _REPEATS * runs


def _runs_per_s(actions: list[Callable[[], object]]) -> float:
    """How often a second all threads together run their actions, each thread its own, in the best of some rounds."""

    def seconds(action: Callable[[], object]) -> float:
        began = time.thread_time()
        action()
        return time.thread_time() - began

    with ThreadPoolExecutor(max_workers=len(actions)) as pool:
        return max(sum(1.0 / s for s in pool.map(seconds, actions)) for _ in range(_ROUNDS))


def ceilings() -> dict[str, float]:
    """Both ceilings on one thread and on all cores."""
    return {
        "copy_bytes_per_s_one_thread": copy_bytes_per_s(1),
        "copy_bytes_per_s_all_cores": copy_bytes_per_s(),
        "fp32_flops_per_s_one_thread": fp32_flops_per_s(1),
        "fp32_flops_per_s_all_cores": fp32_flops_per_s(),
    }


if __name__ == "__main__":
    for name, value in ceilings().items():
        print(f"{name:30s} {value:.3g}")
