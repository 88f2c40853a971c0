"""Chooses a backend by name. Never a quiet fallback."""

from __future__ import annotations

from importlib import import_module

from kernels.contract import Backend, BackendUnavailable

BACKENDS = ("cpu", "reference")
MODULES = {
    "terma": ("terma",),
    "superpose": ("superpose",),
    "coverage": ("split_field",),
    "influence": ("deposit_columns",),
    "columns": ("apply_columns", "adjoint_columns"),
}


def get_backend(name: str) -> Backend:
    """The operations of backend `name` (see `kernels.contract`). Raises BackendUnavailable when it cannot run here."""
    if name not in BACKENDS:
        raise BackendUnavailable(f"backend {name!r} is not available; there are {', '.join(BACKENDS)}")
    operations = {
        operation: getattr(import_module(f"kernels.{name}.{module}"), operation)
        for module, names in MODULES.items()
        for operation in names
    }
    return Backend(name=name, **operations)
