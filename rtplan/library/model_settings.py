"""Which segmentation models a deployment may use: the `models` part of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from segmentation.bundle.spec import BundleSpec, NameTable, shipped_table, shipped_tables
from segmentation.contract import VOCABULARY

SHIPPED_MODEL = "head_neck_oar"

ModelId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _absolute(text: str) -> str:
    if not Path(text).is_absolute():
        raise ValueError(f"{text!r} is not an absolute path")
    return text


def _within(text: str) -> str:
    if Path(text).is_absolute() or ".." in Path(text).parts:
        raise ValueError(f"{text!r} is not a path inside the bundle")
    return text


def _table(name: str) -> str:
    if name not in shipped_tables():
        raise ValueError(f"{name!r} is not a table that ships: {', '.join(shipped_tables())}")
    return name


class SettingsPart(BaseModel):
    """A part of the settings: every key known, every type exact."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class BundleSettings(SettingsPart):
    """A MONAI bundle that an administrator trusts. `rtplan models pin` writes this entry.

    `table` names a list that ships, from TG-263 names to the bundle's channels; `names` gives such a list in place.
    """

    id: ModelId
    path: Annotated[str, AfterValidator(_absolute)]
    weights_file: Annotated[str, AfterValidator(_within)]
    weights_sha256: Sha256
    config_sha256: Sha256
    version: Annotated[str, Field(min_length=1, max_length=64)]
    table: Annotated[str, AfterValidator(_table)] | None = None
    names: dict[str, Annotated[list[str], Field(min_length=1)]] | None = None

    @model_validator(mode="after")
    def _one_list_of_names(self) -> BundleSettings:
        if (self.table is None) == (self.names is None):
            raise ValueError("either table or names says what the channels are called in TG-263")
        unknown = sorted(set(self.names or ()) - VOCABULARY)
        if unknown:
            raise ValueError(f"not in the vocabulary of TG-263 names: {', '.join(unknown)}")
        return self

    def spec(self) -> BundleSpec:
        """The bundle as the segmentation package knows it."""
        return BundleSpec(
            id=self.id,
            path=Path(self.path),
            weights_file=self.weights_file,
            weights_sha256=self.weights_sha256,
            config_sha256=self.config_sha256,
            version=self.version,
            names=self._name_table(),
        )

    def _name_table(self) -> NameTable:
        if self.table is not None:
            return shipped_table(self.table)
        return NameTable({name: tuple(parts) for name, parts in (self.names or {}).items()})


class ModelSettings(SettingsPart):
    """The model used when none is named, and the bundles that may be used beside those that ship."""

    default: ModelId = SHIPPED_MODEL
    bundles: tuple[BundleSettings, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _ids_are_told_apart(self) -> ModelSettings:
        ids = [bundle.id for bundle in self.bundles]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"two bundles are called {', '.join(twice)}")
        return self
