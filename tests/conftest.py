"""Puts tests/ on the path, so that the suites share their builders of synthetic data; gives processes that run tests side by
side a core each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import numba
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """In a process beside others: one thread for the kernels, and for torch, which looks when it is imported."""
    if hasattr(config, "workerinput"):
        os.environ["OMP_NUM_THREADS"] = "1"
        numba.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most long tests first: what is left for the end is short, whichever process takes it."""
    long = Counter(item.path for item in items if item.get_closest_marker("long"))
    items.sort(key=lambda item: -long[item.path])


@pytest.fixture
def all_threads() -> Iterator[None]:
    """As many threads as there are cores, for tests that compare with fewer."""
    before = numba.get_num_threads()
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    yield
    numba.set_num_threads(before)
