"""Chooses a backend by name. Never a quiet fallback."""

from __future__ import annotations

from importlib import import_module

from kernels.contract import Backend, BackendUnavailable

BACKENDS = ("cpu", "cuda", "reference")
MODULES = {
    "terma": ("terma",),
    "superpose": ("superpose",),
    "coverage": ("split_field",),
    "influence": ("deposit_columns",),
    "columns": ("apply_columns", "adjoint_columns"),
}


def get_backend(name: str) -> Backend:
    """The operations of backend `name` (see `kernels.contract`). Raises BackendUnavailable when it cannot run here.

    For "cuda" a device has answered and all kernels are compiled when this returns.
    """
    if name not in BACKENDS:
        raise BackendUnavailable(f"backend {name!r} is not known; there are {', '.join(BACKENDS)}")
    device = import_module("kernels.cuda.device").device() if name == "cuda" else None
    modules = {module: import_module(f"kernels.{name}.{module}") for module in MODULES}
    if device is not None:
        for module in modules.values():
            for source in module.SOURCES:
                device.module(source)
    operations = {operation: getattr(modules[module], operation) for module, names in MODULES.items() for operation in names}
    return Backend(name=name, **operations)


def available_backends() -> tuple[str, ...]:
    """Those of `BACKENDS` that run here."""
    return tuple(name for name in BACKENDS if _runs(name))


def _runs(name: str) -> bool:
    try:
        get_backend(name)
    except BackendUnavailable:
        return False
    return True
