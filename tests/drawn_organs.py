"""A segmentation model for tests: draws what it is told to, and counts how often it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import CtVolume, Doubt, Example, Segmentation

VERSION = "7.1 sha256:" + "ab" * 32


@dataclass
class PaintedModel:
    """Returns `masks` as they are. `error` is raised instead; `doubts` go with the masks."""

    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    labels: tuple[str, ...] = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Larynx", "External")
    doubts: tuple[Doubt, ...] = ()
    error: Exception | None = None
    unverified: Exception | None = None
    confidence: float = 0.83
    kind: str = "painted"
    version: str = VERSION
    loaded: int = 0
    runs: list[tuple[CtVolume, str]] = field(default_factory=list)

    def load(self, model_id: str) -> PaintedModel:
        """Stands in for the pipeline's `load_model`."""
        assert model_id == self.kind
        self.loaded += 1
        return self

    def verify(self) -> None:
        if self.unverified is not None:
            raise self.unverified

    def segment(self, volume: CtVolume, *, device: str = "cpu") -> Segmentation:
        self.runs.append((volume, device))
        if self.error is not None:
            raise self.error
        return Segmentation(self.masks, dict.fromkeys(self.masks, self.confidence), {}, self.doubts)

    def example(self) -> Example:
        raise NotImplementedError


class Painter:
    """A model whose masks depend on the CT: `paint` makes them from the volume."""

    def __init__(self, labels: tuple[str, ...], paint: Callable[[CtVolume], Segmentation]) -> None:
        self.kind, self.version, self.labels, self.segment_with = "painter", VERSION, labels, paint

    def segment(self, volume: CtVolume, *, device: str = "cpu") -> Segmentation:
        return self.segment_with(volume)
