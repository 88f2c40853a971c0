"""Deployment settings: what an administrator decides for one installation. Never physics, never anything clinical.

The file named by the environment variable RTPLAN_SETTINGS, else `~/.config/rtplan/settings.yaml` where it exists, else the
defaults. docs/models.md shows one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from rtplan.errors import LibraryInvalid
from rtplan.library.model_settings import ModelSettings, SettingsPart
from rtplan.library.schema import validated
from rtplan.library.yaml_lines import read_yaml

VARIABLE = "RTPLAN_SETTINGS"


class Settings(SettingsPart):
    """All settings."""

    models: ModelSettings = Field(default_factory=ModelSettings)


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of this installation. Raises LibraryInvalid, SETTINGS_INVALID, naming file, line and field.

    A file that RTPLAN_SETTINGS names must be there: its absence is a mistake, not a wish for the defaults.
    """
    path = settings_path(environment)
    if path is None:
        return Settings()
    try:
        return validated(Settings, read_yaml(path))
    except LibraryInvalid as error:
        raise LibraryInvalid("SETTINGS_INVALID", f"{error.code}: {error.found}", error.expected, error.remedy) from error


def settings_path(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read, None when there is none and the defaults hold."""
    named = environment.get(VARIABLE)
    if named:
        return Path(named)
    usual = Path(environment.get("HOME") or Path.home()) / ".config" / "rtplan" / "settings.yaml"
    return usual if usual.exists() else None
