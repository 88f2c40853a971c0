"""Energies that the dose engine has not been compared with."""

from __future__ import annotations

from dataclasses import replace

from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_context import example_context
from rtplan.domain.validity import COLLAPSED_CONE
from rtplan.domain.verdict import CheckResult, Finding


class BeamEnergy:
    """The nominal energy lies between the lowest and the highest validated one; beyond is a finding (BEAM_ENERGY, flag)."""

    kind = "BEAM_ENERGY"

    def check(self, context: Delivery) -> CheckResult:
        """Energy of the machine's beam."""
        energy_mv, (low, high) = context.machine.beam.nominal_energy_mv, COLLAPSED_CONE.nominal_energies_mv
        message = f"{energy_mv:g} MV; validated from {low:g} to {high:g} MV"
        if low <= energy_mv <= high:
            return CheckResult(self.kind, True, message)
        said = f"beams of {energy_mv:g} MV; the dose engine was {COLLAPSED_CONE.provenance}"
        return CheckResult(self.kind, True, message, (Finding("BEAM_ENERGY", "flag", said),))

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: 18 MV."""
        good = example_context()
        beam = replace(good.machine.beam, nominal_energy_mv=18.0)
        return good, replace(good, machine=replace(good.machine, beam=beam))


PLUGIN = BeamEnergy()
