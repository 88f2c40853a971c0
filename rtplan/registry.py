"""Finds the one plug-in in each file of a shelf.

A shelf is a package whose modules each define `PLUGIN`, an object with `kind` (its name in YAML and in messages) and
`example()` (what the contract tests run it on). A module whose name begins with an underscore is a part of its neighbour.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any


@cache
def shelf(package: str) -> dict[str, Any]:
    """Plug-ins of a shelf by kind. Raises ValueError when a file lacks one or two share a kind."""
    found: dict[str, Any] = {}
    root = importlib.import_module(package)
    for info in sorted(pkgutil.iter_modules(root.__path__), key=lambda i: i.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package}.{info.name}")
        plugin = getattr(module, "PLUGIN", None)
        if plugin is None:
            raise ValueError(f"{module.__name__} defines no PLUGIN")
        if plugin.kind in found:
            raise ValueError(f"{package}: two plug-ins are called {plugin.kind}")
        found[plugin.kind] = plugin
    return found
