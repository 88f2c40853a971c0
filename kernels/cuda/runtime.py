"""What the launchers know of a device: to put arrays there, to start compiled kernels, to get arrays back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

FOLDER = Path(__file__).parent
THREADS = 128  # a block
SERIES_BELOW = 0.25  # see path_terms.h
Buffer = Any  # a device's array: it has a shape and a dtype, can be reshaped and cut along its first axis
_INCLUDE = re.compile(r'^#include "(.*)"$', re.MULTILINE)
Derivation = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """A `.cu` file of this folder and its compiler definitions; `exact`: no two roundings may become one."""

    file: str
    definitions: tuple[tuple[str, int | float], ...] = ()
    exact: bool = False

    @property
    def text(self) -> str:
        """What the file holds, headers and all: a compiler's cache that knows the text then knows everything."""
        return _INCLUDE.sub(lambda found: _read(found[1]), _read(self.file))

    @property
    def defines(self) -> tuple[str, ...]:
        """The definitions as every compiler takes them."""
        return tuple(f"-D{name}={value!r}" for name, value in self.definitions)


def _read(file: str) -> str:
    return (FOLDER / file).read_text(encoding="utf-8")


class Runtime(Protocol):
    """A device. Arrays are C-contiguous; launches and copies happen in the order in which they are asked for."""

    def put(self, array: NDArray[Any], derive: Derivation | None = None) -> Buffer:
        """A copy on the device of an array, or of what a function makes of it.

        An array that is read-only and owns its memory cannot change: its copy may be kept for the next time.
        """

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Zeros on the device."""

    def get(self, buffer: Buffer) -> NDArray[Any]:
        """A copy on the host."""

    def address(self, buffer: Buffer) -> int:
        """Where a buffer begins in the device's memory."""

    def start(self, source: Source, kernel: str, threads: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        """Runs a kernel with at least threads[0] threads in x and exactly threads[1] blocks in y.

        `arguments` are buffers and NumPy scalars of the very types that the kernel declares.
        """


def packed(on: Runtime, arrays: tuple[NDArray[np.floating], ...]) -> list[Buffer]:
    """Arrays as float64 on a device by one copy, each a part of it, in their order."""
    sizes = np.cumsum([0, *(np.size(a) for a in arrays)])
    buffer = on.put(np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays]))
    return [buffer[a:b] for a, b in pairwise(sizes)]
