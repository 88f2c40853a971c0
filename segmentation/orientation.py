"""Any array orientation to the standard one and back: axes to superior, posterior and the patient's left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import CtVolume, Float3

_STANDARD_ROWS = (2, 1, 0)  # the patient axis (x, y, z) of each standard array axis (z, y, x)


@dataclass(frozen=True, slots=True)
class Turn:
    """How a volume's array is turned to stand (z, y, x): first `axes` are transposed, then those of `flips` reversed."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def forward(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of an array of the volume in standard orientation."""
        return self._flipped(array.transpose(self.axes))

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of a standard array in the volume's orientation."""
        return self._flipped(array).transpose(np.argsort(self.axes))

    def index_back(self, index_zyx: tuple[int, int, int], shape_zyx: tuple[int, ...]) -> tuple[int, int, int]:
        """Index in the volume's array of a voxel of the standard array of `shape_zyx`."""
        turned = [n - 1 - i if flip else i for i, n, flip in zip(index_zyx, shape_zyx, self.flips, strict=True)]
        out = [0, 0, 0]
        for axis, i in zip(self.axes, turned, strict=True):
            out[axis] = int(i)
        return out[0], out[1], out[2]

    def _flipped(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]


def turn_of(volume: CtVolume) -> Turn:
    """The turn that brings a volume to standard orientation. A left-handed array is only flipped, never mirrored."""
    step = volume.affine_lps_mm[:3, :3]
    main = [int(np.argmax(np.abs(step[:, axis]))) for axis in range(3)]
    axes = tuple(main.index(patient_axis) for patient_axis in _STANDARD_ROWS)
    flips = tuple(bool(step[row, axis] < 0) for row, axis in zip(_STANDARD_ROWS, axes, strict=True))
    return Turn((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


def standard_spacing_mm(volume: CtVolume) -> Float3:
    """Voxel spacing (z, y, x) in mm after the turn."""
    spacing = np.linalg.norm(volume.affine_lps_mm[:3, :3], axis=0)
    z, y, x = (float(spacing[axis]) for axis in turn_of(volume).axes)
    return z, y, x
