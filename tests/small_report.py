"""The report of the small plan: three beams and an arc, one organ beyond its limit, one structure absent."""

from __future__ import annotations

from dataclasses import replace

from small_plan import NOW, arc_beam, ct, density, dose, machine, plan, prescription, structures

from rtplan.domain.context import PartDose, PlanContext
from rtplan.domain.verdict import CheckResult, Finding
from rtplan.steps.final_dose import scaled_dose
from rtplan.steps.ledger import ledger
from rtplan.steps.report import DoseSummary, ReportData, SolverSummary
from rtplan.steps.verify import verify

STAGES = {"ideal_fluence": scaled_dose(dose(), 1.10), "sequenced": scaled_dose(dose(), 0.90)}


def report_data(organ: str = "Parotid_L", name: str = "Müller^Ünal") -> ReportData:
    the_plan = plan((*plan().beams, arc_beam(4)))
    parts = (PartDose((1,), dose()),)
    context = PlanContext(the_plan, machine(), density(), dose(), parts, structures(organ), prescription())
    verification = replace(
        verify(context), checks=(CheckResult("MLC_GAP", True, "fine"), CheckResult("DOSE_GRID", False, "too small"))
    )
    return ReportData(
        created=NOW,
        ct=ct(name),
        structures=structures(organ),
        prescription=prescription(),
        machine=machine(),
        plan=the_plan,
        dose=dose(),
        verification=verification,
        findings=(Finding("ODD", "info", "harmless"), Finding("METAL", "hold", f"see {name}")),
        assumptions=("The couch is level.",),
        timings_s=(("ingest", 1.25), ("optimise", 60.0)),
        solver=SolverSummary(0.5, float("inf"), 120, False),
        dose_summary=DoseSummary("collapsed_cone", "final", 96, "cpu"),
        provenance=(("ct", "c" * 64), ("code", "0.1.0")),
        ledger=ledger(prescription(), structures(organ), STAGES, dose()),
        normalisation_factor=1.0234,
    )
