"""Shelf of objectives: one formula per file, each a function of the dose in one structure.

Every objective is in Gy² and is a mean over the structure's volume (or the square of a dose), so that it does not depend on
the number of voxels and that weights compare across structures: 1 Gy² is "1 Gy too much everywhere". Sums run in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from rtplan.errors import LibraryInvalid

Float = NDArray[np.float64]


class Objective(BaseModel, ABC):
    """A penalty on the dose of one structure: never negative, zero where the wish is met.

    `kind` is its name in a protocol's YAML; `convex` says whether the value is a convex function of dose >= 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    kind: ClassVar[str]
    convex: ClassVar[bool]

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, float]) -> Self:
        """The objective with a protocol's parameters. Raises LibraryInvalid for a missing, unknown or impossible one."""
        try:
            return cls(**parameters)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "parameters"
            raise LibraryInvalid(
                "OBJECTIVE_INVALID",
                f"{cls.kind}: {where} = {first['input']!r}: {first['msg']}",
                f"parameters {sorted(cls.model_fields)}",
                "correct the objective in the protocol file",
            ) from error

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """An objective that a dose of 0 to 60 Gy partly violates; contract tests run on it."""

    @abstractmethod
    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and its gradient (n,) in Gy, for dose (n,) Gy over the course and volume shares (n,) > 0.

        A voxel of weight 2 counts as two voxels of weight 1; only ratios of weights matter.
        """


def hottest_part(dose_gy: Float, voxel_weight: Float, fraction: float) -> Float:
    """Part of each voxel's weight (n,) that lies in the hottest `fraction` of the volume.

    The voxel on the border counts partly, so that the parts sum to exactly `fraction` of the total weight.
    """
    order = np.argsort(-dose_gy, kind="stable")
    ranked = voxel_weight[order]
    before = np.concatenate(([0.0], np.cumsum(ranked, dtype=np.float64)[:-1]))
    part = np.empty(len(order), dtype=np.float64)
    part[order] = np.clip(fraction * ranked.sum(dtype=np.float64) - before, 0.0, ranked)
    return part
