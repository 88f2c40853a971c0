"""A GPU that is asked for and absent is an error with its cause, never another backend."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kernels.backend import BACKENDS, available_backends, get_backend
from kernels.contract import BackendUnavailable
from kernels.cuda.device import CupyRuntime, _module, device
from kernels.cuda.runtime import Source


class NoDevice(RuntimeError):
    pass


def fake_cupy(n_devices: int | None, *, compiler_fails: bool = False):
    """As much of CuPy as a device is asked for; `copies` counts what was sent to it."""
    copies = []

    def count():
        if n_devices is None:
            raise NoDevice("cudaErrorInsufficientDriver")
        return n_devices

    def asarray(array, order):
        copies.append(array.shape)
        return np.array(array, order=order)

    class RawModule:
        def __init__(self, code, options):
            self.options = options

        def compile(self):
            if compiler_fails:
                raise RuntimeError("libnvrtc.so.12 not found\nmore")

    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=NoDevice)
    compiler = SimpleNamespace(CompileException=type("CompileException", (Exception,), {}))
    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=runtime, compiler=compiler), asarray=asarray, RawModule=RawModule, copies=copies
    )


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    device.cache_clear()
    _module.cache_clear()
    yield
    device.cache_clear()
    _module.cache_clear()


@pytest.mark.parametrize(
    ("cupy", "cause"),
    [
        (None, "not installed"),
        (fake_cupy(None), "cudaErrorInsufficientDriver"),
        (fake_cupy(0), "no device"),
        (fake_cupy(1, compiler_fails=True), r"cannot compile terma.cu: libnvrtc.so.12 not found;"),
    ],
    ids=["no CuPy", "no driver", "no device", "no compiler"],
)
def test_an_absent_gpu_is_told_with_its_cause(monkeypatch, cupy, cause):
    # mutant: fall back to cpu; compile when a kernel is first started
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(BackendUnavailable, match=cause):
        get_backend("cuda")
    assert available_backends() == tuple(name for name in BACKENDS if name != "cuda")


def test_an_array_that_may_change_is_sent_each_time(monkeypatch):
    # mutant: keep copies by the array's identity alone
    cupy = fake_cupy(1)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    on, density = CupyRuntime(), np.ones(5)
    on.put(density)
    density[:] = 2
    assert on.put(density)[0] == 2
    density.flags.writeable = False
    view = np.zeros(5)[:]
    view.flags.writeable = False  # what it shows may still change
    for array, times in ((density, 1), (view, 2)):
        cupy.copies.clear()
        assert on.put(array) is not None
        on.put(array)
        assert len(cupy.copies) == times


def test_what_is_derived_from_an_array_is_kept_beside_it(monkeypatch):
    # mutant: leave the derivation out of the key
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    on, lengths = CupyRuntime(), np.arange(4)
    lengths.flags.writeable = False
    assert list(on.put(lengths)) == [0, 1, 2, 3]
    assert list(on.put(lengths, np.cumsum)) == [0, 1, 3, 6]
    assert on.put(lengths, np.cumsum) is on.put(lengths, np.cumsum)


def test_a_copy_dies_with_its_array(monkeypatch):
    # mutant: hold copies for ever
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    on, array = CupyRuntime(), np.arange(4)
    array.flags.writeable = False
    on.put(array)
    assert len(on._kept) == 1
    del array
    assert on._kept == {}


def test_options_carry_the_launchers_numbers(monkeypatch):
    # mutant: definitions forgotten
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    module = CupyRuntime().module(Source("columns.cu", (("PARTS", 64),), exact=True))
    assert {"-DPARTS=64", "--fmad=false"} <= set(module.options)
