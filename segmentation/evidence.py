"""What a model knows about a CT before anybody believes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import Float3


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A CT on the model's working grid with what each member of the ensemble made of it.

    All arrays stand (z, y, x) with axes to superior, posterior and the patient's left. n structures, m members.
    """

    names: tuple[str, ...]  # TG-263, the order of the first (or second) axis below
    hu: NDArray[np.float32]  # (z, y, x)
    spacing_zyx_mm: Float3
    probability: NDArray[np.float32]  # (n, z, y, x), mean over the members, before any clean-up
    members: NDArray[np.bool_]  # (m, n, z, y, x), each member's own answer
    masks: NDArray[np.bool_]  # (n, z, y, x), after the clean-up: what will be drawn

    def index(self, name: str) -> int | None:
        """Place of a structure, None when the model does not know it."""
        return self.names.index(name) if name in self.names else None
