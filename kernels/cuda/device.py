"""The real device, through CuPy: kernels compiled by NVRTC for the GPU at hand, host arrays in, host arrays out."""

from __future__ import annotations

import threading
import weakref
from functools import lru_cache
from typing import Any

from numpy.typing import DTypeLike, NDArray

from kernels.contract import BackendUnavailable
from kernels.cuda.runtime import THREADS, Buffer, Derivation, Source

INSTALL = 'pip install "rtplan[gpu]"'


class CupyRuntime:
    """`kernels.cuda.runtime.Runtime` on the current CUDA device. Raises BackendUnavailable."""

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise BackendUnavailable(f"backend 'cuda' needs CuPy, which is not installed: {INSTALL}") from error
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendUnavailable(f"backend 'cuda' finds no device that answers: {error}") from error
        if count == 0:
            raise BackendUnavailable("backend 'cuda' finds no device: the driver counts none")
        self._cupy = cupy
        self._kept: dict[tuple[int, Derivation | None], tuple[weakref.ref[Any], Buffer]] = {}
        self._lock = threading.Lock()

    @property
    def device_name(self) -> str:
        """The GPU's name."""
        number = self._cupy.cuda.runtime.getDevice()
        return str(self._cupy.cuda.runtime.getDeviceProperties(number)["name"].decode())

    def put(self, array: NDArray[Any], derive: Derivation | None = None) -> Buffer:
        """A copy on the device; that of an array which cannot change is kept for as long as the array lives."""
        if array.flags.writeable or not array.flags.owndata:
            return self._copy(array, derive)
        key = id(array), derive
        with self._lock:
            known = self._kept.get(key)
        if known is not None and known[0]() is array:
            return known[1]
        buffer = self._copy(array, derive)
        with self._lock:
            self._kept[key] = weakref.ref(array, lambda _: self._kept.pop(key, None)), buffer
        return buffer

    def _copy(self, array: NDArray[Any], derive: Derivation | None) -> Buffer:
        return self._cupy.asarray(array if derive is None else derive(array), order="C")

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Zeros on the device."""
        return self._cupy.zeros(shape, dtype)

    def get(self, buffer: Buffer) -> NDArray[Any]:
        """A copy on the host, once everything that was started is done."""
        copy: NDArray[Any] = self._cupy.asnumpy(buffer)
        return copy

    def address(self, buffer: Buffer) -> int:
        """Where a buffer begins in the device's memory."""
        return int(buffer.data.ptr)

    def start(self, source: Source, kernel: str, threads: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        """Runs a kernel on the default stream."""
        blocks = int(-(-threads[0] // THREADS)), int(threads[1])
        if blocks[0] and blocks[1]:
            self.module(source).get_function(kernel)(blocks, (THREADS,), arguments)

    def module(self, source: Source) -> Any:
        """A compiled `.cu` file. Raises BackendUnavailable when this installation's compiler is absent or refuses it."""
        return _module(source)


@lru_cache
def _module(source: Source) -> Any:
    import cupy

    options = ("-std=c++17", *source.defines, *(("--fmad=false",) if source.exact else ()))
    try:
        module = cupy.RawModule(code=source.text, options=options)
        module.compile()
    except (cupy.cuda.compiler.CompileException, cupy.cuda.runtime.CUDARuntimeError, RuntimeError, OSError) as error:
        raise BackendUnavailable(
            f"backend 'cuda': NVRTC cannot compile {source.file}: {str(error).splitlines()[0]}; install the CUDA toolkit"
        ) from error
    return module


@lru_cache
def device() -> CupyRuntime:
    """The current CUDA device. Raises BackendUnavailable when CuPy is not installed or no device answers."""
    return CupyRuntime()
