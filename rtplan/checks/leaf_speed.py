"""Leaves and jaws that move while MU are given keep up with the dose rate (MC-04)."""

from __future__ import annotations

from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_control_point
from rtplan.domain.machine import Machine
from rtplan.domain.motion import intervals
from rtplan.domain.plan import ControlPoint, PlanBeam
from rtplan.domain.verdict import CheckResult


class LeafSpeed:
    """In every interval with MU, motion / (MU / dose rate) stays within the speed of leaves and of jaws.

    A fixed beam is given at the highest dose rate. In an arc the dose rate gives way to the leaves, down to the machine's
    lowest, so that is the one that counts. Intervals without MU take as long as the leaves need.
    """

    kind = "LEAF_SPEED"

    def check(self, context: Delivery) -> CheckResult:
        """Leaf or jaw with the largest share of its speed over all intervals with MU."""
        machine = context.machine
        fastest, message = 0.0, "nothing moves while MU are given"
        for beam in context.plan.beams:
            rate_mu_min = _slowest_rate_mu_min(beam, machine)
            for i, interval in enumerate(intervals(beam)):
                if interval.mu <= 0.0:
                    continue
                seconds = 60.0 * interval.mu / rate_mu_min
                for name, motion_mm, allowed in (
                    ("leaf", interval.leaf_mm, machine.mlc.max_leaf_speed_mm_s),
                    ("jaw", interval.jaw_mm, machine.jaws.max_speed_mm_s),
                ):
                    if motion_mm / seconds / allowed > fastest:
                        fastest = motion_mm / seconds / allowed
                        where = f"beam {beam.number}, control points {i} to {i + 1}"
                        message = f"{name} at {motion_mm / seconds:.1f} mm/s ({where}); at most {allowed:g} mm/s"
        return CheckResult(self.kind, fastest <= 1 + 1e-6, message)

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: leaves travel 30 mm within 1 MU, that is 0.1 s."""
        good = example_context()
        return good, with_control_point(good, 2, ControlPoint(61.0, 0.0, example_aperture(10.0, 20.0)))


def _slowest_rate_mu_min(beam: PlanBeam, machine: Machine) -> float:
    if beam.is_arc and machine.arc is not None:
        return machine.arc.min_dose_rate_mu_min
    return machine.max_dose_rate_mu_min


PLUGIN = LeafSpeed()
