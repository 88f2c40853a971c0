"""A network's answer to a CT on the working grid, asked several times: as it is, a little larger, and a little smaller.

What the answers share is the model's opinion; where they part it is not sure. Same voxels, same answer: no randomness, and
on a GPU deterministic convolutions only. torch is imported here at the top: import this module only where a model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import SlidingWindowInferer
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.contract import Float3, ModelUnverified, OutputInvalid
from segmentation.device import torch_device
from segmentation.network import build_network, load_tensors
from segmentation.preprocess import from_working_grid, network_input, to_working_grid
from segmentation.weights import ModelDescription, read_weights

WINDOW_STEP = 16  # sides of a window are multiples of it, for any network of up to four halvings
ONE_WINDOW_EXCESS = 1.35  # a side up to so much longer than the roi is still one window: nothing is computed twice
OVERLAP = 0.25
CHANNELS_LAST = torch.channels_last_3d  # a fifth faster on a CPU, with the same answer
TISSUE_HU, PIECE_SHARE, BOX_MARGIN = -350.0, 0.01, 4  # what is a patient, and voxels of air left around one
AIR = -1.0  # what lies beyond the CT, in every window of network_input


@dataclass(frozen=True, slots=True)
class Member:
    """One way to ask. A `spacing_factor` below 1 shows the network the same patient on a finer grid in the slice: larger."""

    name: str
    spacing_factor: float = 1.0


MEMBERS = (Member("as it is"), Member("larger", spacing_factor=0.94), Member("smaller", spacing_factor=1.06))


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """`probability` (n, z, y, x) float32, mean over the members; `members` (m, n, z, y, x), each one's probability > 0.5."""

    probability: NDArray[np.float32]
    members: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A verified network on its device."""

    description: ModelDescription
    network: torch.nn.Module
    device: torch.device

    def ask(self, hu: NDArray[np.float32], members: Sequence[Member] = MEMBERS) -> Answers:
        """What the members make of HU (z, y, x) on the working grid. Raises OutputInvalid, naming the member.

        The network is shown the box around the patient, as in its training: the air of a wide field of view would shift
        the means that it normalises by. Beyond the box every probability is 0.
        """
        box = box_of_patient(hu)
        total: NDArray[np.float32] | None = None
        each = []
        for member in members:
            probability = np.zeros((len(self.description.labels), *hu.shape), np.float32)
            probability[(slice(None), *box)] = self._member(np.ascontiguousarray(hu[box]), member)
            each.append(probability > 0.5)
            total = probability if total is None else total + probability
        if total is None:
            raise ValueError("no member to ask")
        return Answers(total / np.float32(len(each)), np.stack(each))

    def _member(self, hu: NDArray[np.float32], member: Member) -> NDArray[np.float32]:
        """(n, z, y, x) probability of one member, back on the grid that was given."""
        spacing = self.description.working_spacing_zyx_mm
        asked: Float3 = (spacing[0], spacing[1] * member.spacing_factor, spacing[2] * member.spacing_factor)
        working = to_working_grid(hu, spacing, asked) if member.spacing_factor != 1.0 else None
        seen = hu if working is None else working.hu
        answer = self._probability(seen, member)
        if working is None:
            return answer
        return np.stack([from_working_grid(channel, working, hu.shape) for channel in answer])

    def _probability(self, hu: NDArray[np.float32], member: Member) -> NDArray[np.float32]:
        """Sigmoid of the network's logits, (n, z, y, x)."""
        window = tuple(_side(n, roi) for n, roi in zip(hu.shape, self.description.roi_zyx, strict=True))
        inferer = SlidingWindowInferer(window, overlap=OVERLAP, mode="gaussian", padding_mode="constant", cval=AIR)
        given = torch.from_numpy(np.ascontiguousarray(network_input(hu, self.description.windows_hu)))[None]
        given = given.to(self.device, memory_format=CHANNELS_LAST)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
            logits = inferer(given, self.network)
            expected = (1, len(self.description.labels), *hu.shape)
            if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
                found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
                raise OutputInvalid(f"member {member.name!r} of {self.description.model_id}: {found}, expected {expected}")
            if not bool(torch.isfinite(logits).all()):
                raise OutputInvalid(f"member {member.name!r} of {self.description.model_id}: logits that are not finite")
            return np.asarray(torch.sigmoid(logits[0].float()).cpu().numpy())


def box_of_patient(hu: NDArray[np.float32]) -> tuple[slice, slice, slice]:
    """Every slice, and the rows and columns of connected tissue with a margin; everything when there is none.

    Pieces count from a hundredth of the largest on.
    """
    labels, count = ndimage.label(hu > TISSUE_HU)
    if not count:
        return slice(None), slice(None), slice(None)
    voxels = np.bincount(labels.ravel())[1:]
    pieces = [box for box, n in zip(ndimage.find_objects(labels), voxels, strict=True) if n >= PIECE_SHARE * voxels.max()]
    sides = [
        slice(
            max(0, min(box[axis].start for box in pieces) - BOX_MARGIN),
            min(hu.shape[axis], max(box[axis].stop for box in pieces) + BOX_MARGIN),
        )
        for axis in (1, 2)
    ]
    return slice(None), sides[0], sides[1]


def load_model(description: ModelDescription, device: str) -> Model:
    """The network with its weights. Raises ModelUnverified (files), DeviceMissing."""
    weights = read_weights(description)
    where = torch_device(device)
    try:
        # Its first weights are drawn at random, which the caller's own randomness must not notice. On torch's meta device
        # nothing would be drawn, after two seconds of imports.
        with torch.random.fork_rng(devices=[]):
            network = build_network(description.network)
        kept = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        load_tensors(network, kept)
    except (RuntimeError, KeyError, ValueError, TypeError) as problem:
        raise ModelUnverified(f"{description.folder}: weights and network do not fit: {problem}") from problem
    placed: Any = network.to(where)  # torch's types know no memory format of a module
    return Model(description, placed.to(memory_format=CHANNELS_LAST).eval(), where)


def _side(n: int, roi: int) -> int:
    """Side of the window along an axis of n voxels."""
    whole = -(-n // WINDOW_STEP) * WINDOW_STEP
    return whole if whole <= roi * ONE_WINDOW_EXCESS else roi
