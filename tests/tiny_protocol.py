"""A protocol of one target and three beams on coarse grids, for tests that plan on a small phantom."""

from __future__ import annotations

from typing import Any

import yaml

TARGET_GOAL = {
    "structure": "PTV_5000",
    "goal": "D95[Gy] >= 47.5",
    "priority": 1,
    "source": "made_up",
    "status": "unverified",
}


def organ_goal(structure: str, goal: str, priority: int) -> dict[str, Any]:
    """A goal of nobody's."""
    return {"structure": structure, "goal": goal, "priority": priority, "source": "made_up", "status": "unverified"}


def tiny_protocol(organs: list[dict[str, Any]], goals: list[dict[str, Any]]) -> str:
    """YAML of the protocol `tiny` with organs, and goals besides those of its target."""
    return yaml.safe_dump(
        {
            "id": "tiny",
            "version": "1.0",
            "title": "A tiny site",
            "status": "unverified",
            "sources": {"made_up": "made up"},
            "fractions": 25,
            "levels": [{"target": "PTV_5000", "dose_gy": 50, "names": ["PTV_5000"]}],
            "nested_targets": False,
            "target_skin_crop_mm": 0,
            "target_margin_mm": 3,
            "organs": organs,
            "helpers": [],
            "goals": [TARGET_GOAL, *goals],
            "technique": "imrt",
            "beams": {"gantry_angles_deg": [0, 120, 240], "collimator_angle_deg": 0},
            "normalisation": {"structure": "PTV_5000", "metric": "D50[Gy]", "value": 50},
            "beamlet_mm": 5,
            "dose_grid_mm": 4,
            "optimisation_grid_mm": 4,
            "segments_per_beam": 2,
        },
        sort_keys=False,
    )
