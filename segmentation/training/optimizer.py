"""Muon for the kernels of the hidden convolutions, AdamW for everything else, as one optimiser.

Muon (Jordan 2024, as torch.optim.Muon) takes the step whose matrix is orthogonal, so directions that the gradient hardly
shows are learned as fast as the loud ones.
"""

from __future__ import annotations

from typing import Any

import torch

CHANNELS_LAST = torch.channels_last_3d


class Optimizer:
    """Both, over one network in channels_last_3d whose parameters stay where they are."""

    def __init__(self, network: torch.nn.Module, weight_decay: float) -> None:
        kernels = [p for p in network.parameters() if p.ndim == 5]
        self._hidden = kernels[1:-1]
        self._matrices = [torch.nn.Parameter(_matrix(p.detach())) for p in self._hidden]
        hidden = {id(p) for p in self._hidden}
        self._other = [p for p in network.parameters() if id(p) not in hidden]
        self._muon = torch.optim.Muon(self._matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(self._other, weight_decay=weight_decay)

    def step(self, learning_rate: float) -> None:
        """One step along the gradients, which are then dropped."""
        for matrix, kernel in zip(self._matrices, self._hidden, strict=True):
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad)
        optimizers: tuple[Any, ...] = (self._muon, self._adamw)  # Muon's step has no types
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad()
        for kernel in self._hidden:
            kernel.grad = None

    def memory(self, layer: torch.nn.Module, channel: int) -> list[torch.Tensor]:
        """What AdamW remembers of an output channel of a layer outside the hidden kernels; views to be changed in place."""
        states = [(p, value) for p in layer.parameters() for value in self._adamw.state[p].values()]
        return [value[channel] for p, value in states if value.shape == p.shape]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` reads back."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as after `state_dict`."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def _matrix(kernel: torch.Tensor) -> torch.Tensor:
    """(first, rest) view of a kernel (first, second, z, y, x) that lies channels last."""
    return kernel.permute(0, 2, 3, 4, 1).reshape(kernel.shape[0], -1)
