"""From network output, piece by piece, to labels and to how sure the network is of them.

Two kinds: one label for each voxel (softmax over all channels), or each channel for itself (sigmoid). Arrays here stand as
the pieces do: the image's longest axis, then the other two in order.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.bundle.geometry import Box


class Answer(Protocol):
    """What a network made of an image, kept small. Structures are numbers; each is the union of its channels."""

    def take(self, start: int, output: Any) -> None:
        """Add a piece (channels, k, ., .) of network output that begins at index `start`."""
        ...

    def box(self, structure: int) -> Box | None:
        """Where a structure is, None when it is nowhere."""
        ...

    def mask(self, structure: int) -> NDArray[np.bool_]:
        """Its voxels in its box."""
        ...

    def found(self, structure: int) -> tuple[bool, ...]:
        """Which of its channels have a voxel."""
        ...

    def certainty(self, structure: int) -> NDArray[np.uint8]:
        """How sure the network is of what it said of each voxel, 0 to 100 %; a lower bound."""
        ...

    def expected_dice(self, structure: int) -> float:
        """Dice against the truth if the network's probabilities were right: 2 Σ_mask p / (|mask| + Σ p)."""
        ...


class OneLabel:
    """Softmax: one label for each voxel, and its probability.

    2 bytes a voxel whatever the number of channels. `_joint[l, c]` is the sum of channel c's probability over the voxels
    labelled l: all that the expected Dice of any union needs.
    """

    def __init__(self, structures: list[tuple[int, ...]], n_channels: int, shape: tuple[int, ...]) -> None:
        self._structures = structures
        self._label = np.zeros(shape, np.uint8 if n_channels <= 256 else np.uint16)
        self._certainty = np.zeros(shape, np.uint8)
        self._joint = np.zeros((n_channels, n_channels))
        self._count = np.zeros(n_channels)
        self._boxes: list[Box | None] | None = None

    def take(self, start: int, output: Any) -> None:
        """As `Answer`."""
        import torch

        label = output.argmax(0)
        share = torch.softmax(output, 0)
        top = share.gather(0, label[None])[0]
        part = slice(start, start + output.shape[1])
        self._label[part] = label.cpu().numpy().astype(self._label.dtype)
        self._certainty[part] = (100 * top).round().to(torch.uint8).cpu().numpy()
        flat = label.flatten()
        joint = torch.zeros(self._joint.shape, device=output.device)
        self._joint += joint.index_add_(0, flat, share.flatten(1).T).cpu().numpy()
        self._count += torch.bincount(flat, minlength=len(self._count)).cpu().numpy()

    def box(self, structure: int) -> Box | None:
        """As `Answer`."""
        if self._boxes is None:
            # find_objects counts from 1 and leaves 0 out.
            found = ndimage.find_objects(self._label.astype(np.int32) + 1, max_label=len(self._count))
            self._boxes = list(found)
        parts = [box for channel in self._structures[structure] if (box := self._boxes[channel]) is not None]
        return _around(parts)

    def mask(self, structure: int) -> NDArray[np.bool_]:
        """As `Answer`."""
        box = self.box(structure)
        assert box is not None
        wanted = np.zeros(len(self._count), bool)
        wanted[list(self._structures[structure])] = True
        return wanted[self._label[box]]

    def found(self, structure: int) -> tuple[bool, ...]:
        """As `Answer`."""
        return tuple(bool(self._count[channel] > 0) for channel in self._structures[structure])

    def certainty(self, structure: int) -> NDArray[np.uint8]:
        """As `Answer`."""
        # A voxel of another label is outside with at least that label's probability: one map serves every structure.
        return self._certainty

    def expected_dice(self, structure: int) -> float:
        """As `Answer`."""
        channels = list(self._structures[structure])
        inside = self._joint[np.ix_(channels, channels)].sum()
        return float(2 * inside / (self._count[channels].sum() + self._joint[:, channels].sum()))


class EachForItself:
    """Sigmoid: each channel against a threshold. Two bytes a voxel for each structure; a union has its likeliest channel's
    probability.
    """

    def __init__(self, structures: list[tuple[int, ...]], threshold: float, shape: tuple[int, ...]) -> None:
        self._structures = structures
        self._threshold = threshold
        self._inside = [np.zeros(shape, bool) for _ in structures]
        self._certainty = [np.zeros(shape, np.uint8) for _ in structures]
        self._sums = np.zeros((len(structures), 3))  # voxels in the mask, probability in it, probability anywhere
        self._found = [np.zeros(len(channels), bool) for channels in structures]

    def take(self, start: int, output: Any) -> None:
        """As `Answer`."""
        import torch

        part = slice(start, start + output.shape[1])
        for number, channels in enumerate(self._structures):
            share = torch.sigmoid(output[list(channels)])
            self._found[number] |= (share >= self._threshold).flatten(1).any(1).cpu().numpy()
            likeliest = share.max(0).values
            inside = likeliest >= self._threshold
            sure = torch.where(inside, likeliest, 1 - likeliest)
            self._inside[number][part] = inside.cpu().numpy()
            self._certainty[number][part] = (100 * sure).round().to(torch.uint8).cpu().numpy()
            self._sums[number] += [float(inside.sum()), float(likeliest[inside].sum()), float(likeliest.sum())]

    def box(self, structure: int) -> Box | None:
        """As `Answer`."""
        found: list[Box | None] = ndimage.find_objects(self._inside[structure].view(np.uint8), max_label=1)
        return found[0]

    def mask(self, structure: int) -> NDArray[np.bool_]:
        """As `Answer`."""
        box = self.box(structure)
        assert box is not None
        return self._inside[structure][box]

    def found(self, structure: int) -> tuple[bool, ...]:
        """As `Answer`."""
        return tuple(bool(there) for there in self._found[structure])

    def certainty(self, structure: int) -> NDArray[np.uint8]:
        """As `Answer`."""
        return self._certainty[structure]

    def expected_dice(self, structure: int) -> float:
        """As `Answer`."""
        voxels, inside, anywhere = self._sums[structure]
        return float(2 * inside / (voxels + anywhere))


def _around(boxes: list[Box]) -> Box | None:
    if not boxes:
        return None
    z, y, x = (slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes)) for axis in range(3))
    return z, y, x
