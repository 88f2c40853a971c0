"""Segmentation models by name: the shelf `segmentation.models`, and the MONAI bundles that the settings name.

Nothing here imports torch: a model does when it segments.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Protocol, runtime_checkable

from rtplan.errors import BackendMissing, CaseRejected, LibraryInvalid, RtplanError, SafetyStop
from rtplan.library.model_settings import ModelSettings
from rtplan.registry import shelf
from segmentation.bundle.files import pin
from segmentation.bundle.spec import shipped_table, shipped_tables
from segmentation.bundles import BundleSegmenter, bundle_at
from segmentation.contract import DeviceMissing, ModelRefused, ModelUnverified, OutputInvalid, Segmenter

ModelError = ModelUnverified | ModelRefused | DeviceMissing | OutputInvalid


@runtime_checkable
class Verifiable(Protocol):
    """A model with files that can be checked without running it."""

    def verify(self) -> None:
        """Check files, hashes and versions. Raises ModelUnverified or ModelRefused."""
        ...


def list_segmenters(settings: ModelSettings) -> dict[str, Segmenter]:
    """Every model by id: those that ship, then the configured bundles. Reads no model file.

    Raises LibraryInvalid, SETTINGS_INVALID, when a bundle has the id of a model that ships.
    """
    found: dict[str, Segmenter] = dict(shelf("segmentation.models"))
    for bundle in settings.bundles:
        if bundle.id in found:
            raise LibraryInvalid(
                "SETTINGS_INVALID", f"models: a bundle is called {bundle.id}", "an id that no shipped model has", "rename it"
            )
        found[bundle.id] = BundleSegmenter(bundle.spec())
    return found


def load_segmenter(model_id: str, settings: ModelSettings) -> Segmenter:
    """The model of that id, or the configured bundle at that path when `model_id` is a path. Reads no model file yet.

    Raises LibraryInvalid MODEL_UNKNOWN, and CaseRejected MODEL_REFUSED for a path that the settings do not name.
    """
    if os.sep in model_id:
        try:
            return bundle_at(Path(model_id), [bundle.spec() for bundle in settings.bundles])
        except ModelRefused as error:
            raise as_rtplan_error(error, model_id) from error
    models = list_segmenters(settings)
    if model_id not in models:
        raise LibraryInvalid(
            "MODEL_UNKNOWN",
            f"segmentation model {model_id!r} is not known",
            "one of " + ", ".join(models),
            "name one of these, or have an administrator add the bundle to the settings",
        )
    return models[model_id]


def why_unusable(segmenter: Segmenter) -> RtplanError | None:
    """What is wrong with a model's files, None when they are as pinned. Runs nothing of the model."""
    if not isinstance(segmenter, Verifiable):
        return None
    try:
        segmenter.verify()
    except (ModelUnverified, ModelRefused) as error:
        return as_rtplan_error(error, segmenter.kind)
    return None


def pinned_entry(folder: Path) -> tuple[str, ...]:
    """Lines of the settings that trust the bundle in a folder as it lies there. Reads and hashes; executes nothing.

    Raises as `as_rtplan_error` says.
    """
    try:
        found = pin(folder)
    except (ModelUnverified, ModelRefused) as error:
        raise as_rtplan_error(error, str(folder)) from error
    table = next((name for name in shipped_tables() if _covers(name, found.channels)), None)
    channels = ", ".join(found.channels)
    names = [f"      table: {table}"] if table else ["      names:  # TG-263 name: [channels]", f"        # {channels}"]
    return (
        "models:",
        "  bundles:",
        f"    - id: {re.sub(r'[^a-z0-9_]+', '_', folder.resolve().name.lower()).strip('_0123456789') or 'bundle'}",
        f"      path: {json.dumps(str(found.path), ensure_ascii=False)}",
        f"      weights_file: {json.dumps(found.weights_file)}",
        f"      weights_sha256: {found.weights_sha256}",
        f"      config_sha256: {found.config_sha256}",
        f"      version: {json.dumps(found.version)}",
        *names,
    )


def _covers(table: str, channels: tuple[str, ...]) -> bool:
    return {part for union in shipped_table(table).channels.values() for part in union} <= set(channels)


def as_rtplan_error(error: ModelError, model_id: str) -> RtplanError:
    """A model's refusal as one that routes: MODEL_UNVERIFIED, MODEL_REFUSED, BACKEND_MISSING or MODEL_OUTPUT_INVALID."""
    found = f"model {model_id}: {error}"
    match error:
        case ModelUnverified():
            expected = "the files, hashes and version that the model was released or pinned with"
            return LibraryInvalid(
                "MODEL_UNVERIFIED", found, expected, "restore the files, or have an administrator pin them"
            )
        case ModelRefused():
            expected = "a configured model that can be used on this CT"
            return CaseRejected("MODEL_REFUSED", found, expected, "name another model, or contour by hand")
        case DeviceMissing():
            return BackendMissing("BACKEND_MISSING", found, "a device that torch can use", "choose --device cpu")
        case OutputInvalid():
            expected = "finite probabilities, one channel for each structure"
            return SafetyStop("MODEL_OUTPUT_INVALID", found, expected, "contour by hand, and report the model")
