"""What an administrator says of a bundle, and the lists of names that ship."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from segmentation.contract import VOCABULARY

TABLES = Path(__file__).parent.parent / "bundle_tables"
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class NameTable:
    """What a bundle's channels are called in TG-263.

    `channels` gives to each TG-263 name the channels whose union it is; a channel may serve several names, and one that is
    nowhere stays out of the result. `remarks` says, by TG-263 name, how its extent here differs from the usual one.
    """

    channels: Mapping[str, tuple[str, ...]]
    remarks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted({*self.channels, *self.remarks} - VOCABULARY)
        if unknown:
            raise ValueError(f"not in the vocabulary: {', '.join(unknown)}")
        hollow = sorted(name for name, parts in self.channels.items() if not parts)
        if hollow or not self.channels:
            raise ValueError(f"structures of no channel: {', '.join(hollow) or 'the list is empty'}")
        object.__setattr__(self, "channels", MappingProxyType({name: tuple(c) for name, c in self.channels.items()}))
        object.__setattr__(self, "remarks", MappingProxyType(dict(self.remarks)))

    def __reduce__(self) -> tuple[type[NameTable], tuple[dict[str, tuple[str, ...]], dict[str, str]]]:
        # Read-only mappings do not cross process borders by themselves.
        return type(self), (dict(self.channels), dict(self.remarks))


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """A bundle that an administrator trusts, and the hashes of what was trusted.

    `path` is the bundle's folder, absolute; `weights_file` stands relative to it. `config_sha256` is
    `segmentation.bundle.files.config_sha256` of it, because its configuration executes Python. `version` is that of its
    `metadata.json`.
    """

    id: str
    path: Path
    weights_file: str
    weights_sha256: str
    config_sha256: str
    version: str
    names: NameTable

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise ValueError(f"{self.path} is not absolute")
        for name in ("weights_sha256", "config_sha256"):
            if not _SHA256.match(getattr(self, name)):
                raise ValueError(f"{name} is not 64 hexadecimal digits in lower case")


def shipped_tables() -> tuple[str, ...]:
    """Names of the lists that ship, each called as the bundle that it is for."""
    return tuple(sorted(path.stem for path in TABLES.glob("*.json")))


@cache
def shipped_table(name: str) -> NameTable:
    """A list that ships. Raises KeyError for a name that is none."""
    if name not in shipped_tables():
        raise KeyError(name)
    data = json.loads((TABLES / f"{name}.json").read_text(encoding="utf-8"))
    return NameTable({structure: tuple(parts) for structure, parts in data["structures"].items()}, data["remarks"])
