"""The plan is for the machine it is judged by (I-33, MC-14)."""

from __future__ import annotations

from dataclasses import replace

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_context
from rtplan.domain.verdict import CheckResult


class MachineModel:
    """Machine and energy of the plan are those of the machine file; fractions are those of the protocol."""

    kind = "MACHINE_MODEL"

    def check(self, context: PlanContext) -> CheckResult:
        """Compare names and fractions."""
        plan, protocol = context.plan, context.prescription.protocol
        found = (plan.machine_id, plan.energy_id, plan.fractions)
        expected = (context.machine.machine_id, context.machine.beam.energy_id, protocol.fractions)
        return CheckResult(self.kind, found == expected, f"machine, energy, fractions: {found}; expected {expected}")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: another energy."""
        good = example_context()
        return good, replace(good, plan=replace(good.plan, energy_id="15X"))


PLUGIN = MachineModel()
