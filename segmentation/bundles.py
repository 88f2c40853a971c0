"""A MONAI bundle on disk, as a Segmenter: its network, its preprocessing and its inferer, with our geometry.

A bundle's configuration executes Python, so nothing of it is parsed before its hash is found to be the one that an
administrator pinned in the settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmentation.bundle.files import channel_names, read_verified
from segmentation.bundle.spec import BundleSpec
from segmentation.contract import CtVolume, Example, ModelRefused, ModelUnverified, Segmentation


@dataclass(frozen=True, slots=True)
class BundleSegmenter:
    """A pinned bundle. It reads its files each time it segments, and keeps nothing in between."""

    spec: BundleSpec

    @property
    def kind(self) -> str:
        """Id in the settings."""
        return self.spec.id

    @property
    def labels(self) -> tuple[str, ...]:
        """TG-263 names that the settings give to its channels."""
        return tuple(self.spec.names.channels)

    @property
    def version(self) -> str:
        """Version in its metadata, with the hashes of weights and configuration."""
        spec = self.spec
        return f"{spec.version} (weights sha256 {spec.weights_sha256}, configuration sha256 {spec.config_sha256})"

    def verify(self) -> None:
        """Check files, hashes, version and channel names. Executes nothing. Raises ModelUnverified or ModelRefused."""
        self._check_names(channel_names(read_verified(self.spec).metadata))

    def segment(self, volume: CtVolume, *, device: str = "cpu") -> Segmentation:
        """Outline a CT. Raises ModelUnverified, ModelRefused, OutputInvalid."""
        files = read_verified(self.spec)
        channels = channel_names(files.metadata)
        self._check_names(channels)
        from segmentation.bundle.run import segmented

        return segmented(files, channels, self.spec.names, volume, device)

    def example(self) -> Example:
        """A body of water in air. What a bundle finds in it is not known here, so nothing is said to be in or out."""
        y, x = np.meshgrid(np.arange(-20, 20) * 5.0, np.arange(-24, 24) * 5.0, indexing="ij")
        plane = np.where((x / 100) ** 2 + (y / 80) ** 2 < 1, 0, -1000).astype(np.int16)
        return Example(CtVolume.standard(np.repeat(plane[None], 16, axis=0), (5.0, 5.0, 5.0)), {}, {})

    def _check_names(self, channels: tuple[str, ...]) -> None:
        wanted = {part for parts in self.spec.names.channels.values() for part in parts}
        lacking = sorted(wanted - set(channels))
        if lacking:
            raise ModelUnverified(f"the bundle has no channels {', '.join(lacking)}, which the list of names speaks of")


def bundle_at(path: Path, configured: Iterable[BundleSpec]) -> BundleSegmenter:
    """The configured bundle at a path. Raises ModelRefused for a path that nobody configured, without reading there."""
    for spec in configured:
        if spec.path.resolve() == path.resolve():
            return BundleSegmenter(spec)
    raise ModelRefused(f"no settings name a bundle at {path}; its configuration would execute Python")
