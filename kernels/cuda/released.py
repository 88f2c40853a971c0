"""Released energy that stays where it was computed, so that `superpose` need not send it back to the device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Released
from kernels.cuda.runtime import Buffer, Runtime


class DeviceReleased(Released):
    """A `Released` whose `energy` is copied to the host when it is first read. `buffer` (G, z, y, x) lies on `runtime`."""

    __slots__ = ("_host", "buffer", "runtime")
    _host: NDArray[np.float32] | None
    buffer: Buffer
    runtime: Runtime

    def __init__(self, start_zyx: tuple[int, int, int], buffer: Buffer, runtime: Runtime) -> None:
        for name, value in (("start_zyx", start_zyx), ("buffer", buffer), ("runtime", runtime), ("_host", None)):
            object.__setattr__(self, name, value)

    @property
    def energy(self) -> NDArray[np.float32]:
        """Energy (G, z, y, x) on the host; read-only, as what is on the device would not follow a change."""
        host = self._host
        if host is None:
            host = self.runtime.get(self.buffer)
            host.flags.writeable = False
            object.__setattr__(self, "_host", host)
        return host

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the box lies in the grid."""
        z, y, x = (slice(a, a + n) for a, n in zip(self.start_zyx, self.buffer.shape[1:], strict=True))
        return z, y, x


def on_device(released: Released, on: Runtime) -> Buffer:
    """A beam's energy (G, z, y, x) on a device, without a copy where it is there."""
    if isinstance(released, DeviceReleased) and released.runtime is on:
        return released.buffer
    return on.put(np.ascontiguousarray(released.energy, dtype=np.float32))
