"""One isocentre, in the patient (I-32, MC-12, MC-13)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_context, with_beam
from rtplan.domain.verdict import CheckResult

_SAME_MM = 0.01


class Isocentre:
    """All beams share one finite isocentre, which lies inside the External, at the machine's SAD."""

    kind = "ISOCENTRE"

    def check(self, context: PlanContext) -> CheckResult:
        """First beam at fault."""
        beams = context.plan.beams
        points = np.array([b.beam.isocentre_xyz_mm for b in beams], dtype=np.float64).reshape(-1, 3)
        if not len(points) or not np.all(np.isfinite(points)):
            return CheckResult(self.kind, False, f"isocentres {points.tolist()} are not all finite")
        apart = np.abs(points - points[0]).max(axis=1)
        if apart.max() > _SAME_MM:
            odd = beams[int(apart.argmax())].number
            return CheckResult(
                self.kind, False, f"beam {odd}: isocentre {apart.max():.2f} mm from that of beam {beams[0].number}"
            )
        for beam in beams:
            if beam.beam.sad_mm != context.machine.sad_mm:
                return CheckResult(self.kind, False, f"beam {beam.number}: SAD {beam.beam.sad_mm} mm, not the machine's")
        grid, body = context.structures.grid, context.structures.external.mask
        index = np.rint(grid.to_index(points[0])).astype(int)
        inside = bool(np.all(index >= 0) and np.all(index < grid.shape_zyx) and body[tuple(index)])
        at = ", ".join(f"{v:.1f}" for v in points[0])
        return CheckResult(self.kind, inside, f"isocentre at ({at}) mm, {'inside' if inside else 'outside'} the External")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the second beam's isocentre is shifted by 5 mm."""
        good = example_context()
        beam = good.plan.beams[1]
        return good, with_beam(good, 1, replace(beam, beam=replace(beam.beam, isocentre_xyz_mm=(5.0, 0.0, 0.0))))


PLUGIN = Isocentre()
