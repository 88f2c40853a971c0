"""The loss: soft Dice and cross-entropy where the reference is known, nothing where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss

_DICE = DiceLoss(sigmoid=False, reduction="none", smooth_nr=1.0, smooth_dr=1.0)


def masked_loss(
    logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor, inside_weights: Sequence[float] | None = None
) -> torch.Tensor:
    """Mean over the known structures of Dice loss plus binary cross-entropy.

    `logits` and `labels` (b, n, z, y, x); `known` (b, n, z, 1, 1) is 1 where the reference says whether a voxel belongs to
    a structure; `inside_weights` (n,), how much a voxel inside each counts in the cross-entropy, 1 when not given. A
    structure with nothing known in a patch has no part in the loss, and its channel no gradient.
    """
    probability = torch.sigmoid(logits)
    dice = _DICE(probability * known, labels * known).flatten(2).mean(-1)
    weights = torch.tensor(inside_weights or [1.0] * logits.shape[1], device=logits.device)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, labels, reduction="none", pos_weight=weights[:, None, None, None]
    )
    entropy = entropy * known
    per_slice = logits.shape[3] * logits.shape[4]
    voxels = known.sum((2, 3, 4)) * per_slice
    entropy = entropy.sum((2, 3, 4)) / voxels.clamp(min=1)
    weight = (voxels > 0).float()
    total: torch.Tensor = ((dice + 2.0 * entropy) * weight).sum() / weight.sum().clamp(min=1)
    return total
