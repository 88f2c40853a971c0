"""The CUDA kernels built by g++ with `kernels/cuda/shim.h`, and a device that is the host, to start them from the launchers.

The launchers run as they do before a GPU. Every argument is held against the kernel's own declaration, since neither CUDA
nor ctypes would notice a wrong one.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from kernels.cuda.runtime import FOLDER, THREADS, Source

POINTERS = {
    "float": np.float32, "double": np.float64, "int": np.int32, "unsigned": np.uint32, "long long": np.int64,
    "signed char": np.int8, "unsigned char": np.uint8, "unsigned short": np.uint16, "unsigned long long": np.uint64,
    "short": np.int16,
}  # fmt: skip
FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off")


def declarations(text: str) -> dict[str, list[tuple[type, bool]]]:
    """For each kernel of a .cu file, its parameters' types and whether each is a pointer."""
    found = {}
    for name, inside in re.findall(r"__global__ void (\w+)\((.*?)\) \{", text, flags=re.DOTALL):
        parameters = []
        for one in inside.replace("\n", " ").split(","):
            words = one.replace("__restrict__", " ").replace("const ", " ").replace("*", " * ").split()
            pointer = "*" in words
            parameters.append((POINTERS[" ".join(w for w in words[:-1] if w != "*")], pointer))
        found[name] = parameters
    return found


def alone(source: Source) -> Source:
    """The source for threads that run one by one: where several carry a line together, one carries it all."""
    definitions = dict(source.definitions)
    if "PER_THREAD" in definitions:
        definitions["PER_THREAD"] = definitions["LANES"]
    return replace(source, definitions=tuple(definitions.items()))


class HostRuntime:
    """`kernels.cuda.runtime.Runtime` on the host: buffers are NumPy arrays, a launch runs its threads one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built: dict[Source, tuple[ctypes.CDLL, dict[str, list[tuple[type, bool]]]]] = {}
        self.launches = 0
        self.lock = threading.Lock()

    def put(self, array, derive=None):
        copy = np.array(array if derive is None else derive(array), order="C", copy=True)
        copy.flags.writeable = True
        return copy

    def zeros(self, shape, dtype):
        return np.zeros(shape, dtype)

    def get(self, buffer):
        return np.array(buffer)

    def address(self, buffer):
        return buffer.ctypes.data

    def start(self, source, kernel, threads, arguments):
        library, kernels = self.library(source)
        wanted = kernels[kernel]
        assert len(arguments) == len(wanted), f"{kernel} takes {len(wanted)} arguments, got {len(arguments)}"
        values = []
        for place, (given, (dtype, pointer)) in enumerate(zip(arguments, wanted, strict=True)):
            assert isinstance(given, np.ndarray if pointer else np.generic), f"{kernel}, argument {place}: {type(given)}"
            assert given.dtype == dtype, f"{kernel}, argument {place}: {given.dtype}, not {dtype}"
            assert not pointer or given.flags.c_contiguous, f"{kernel}, argument {place} has gaps"
            values.append(np.array([given.ctypes.data], np.int64) if pointer else np.array([given]))
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        getattr(library, f"host_{kernel}")(-(-threads[0] // THREADS), threads[1], THREADS, pointers)
        self.launches += 1

    def module(self, source):
        return self.library(source)

    def library(self, source):
        with self.lock:
            return self._library(source)

    def _library(self, source):
        if source not in self.built:
            self.built[source] = self.build(source)
        return self.built[source]

    def build(self, source):
        kernels = declarations(source.text)
        entries = [
            f'extern "C" void host_{name}(unsigned x, unsigned y, unsigned t, void **a) {{ run({name}, x, y, t, a); }}'
            for name in kernels
        ]
        stem = f"{Path(source.file).stem}_{len(self.built)}"
        code = self.folder / f"{stem}.cpp"
        code.write_text("\n".join(['#include "shim.h"', f'#include "{source.file}"', *entries, ""]))
        shared = self.folder / f"{stem}.so"
        command = ["g++", *FLAGS, *alone(source).defines, f"-I{FOLDER}", "-o", str(shared), str(code)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(shared)), kernels
