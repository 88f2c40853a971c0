"""What a report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rtplan.domain.dose import Dose
from rtplan.domain.goals import Certificate
from rtplan.domain.image import CtImage
from rtplan.domain.ledger import Ledger
from rtplan.domain.machine import Machine
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.prescription import Prescription
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.domain.verification import Verification


@dataclass(frozen=True, slots=True)
class SolverSummary:
    """How well the fluence was optimised. `relative_gap` bounds the distance to the optimum when every term is convex."""

    objective_value: float
    relative_gap: float
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True)
class DoseSummary:
    """How the final dose was calculated."""

    engine: str  # plug-in kind, such as "collapsed_cone"
    quality: str
    cones: int
    backend: str


@dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """A finished plan with everything that a reviewer has to see.

    `findings` are all findings of the case, of whichever step. `assumptions` are sentences on what was taken for granted
    beyond what the report says by itself. `timings_s` are wall seconds per step. `provenance` names what the plan was made
    from and by: hashes of CT, structures, protocol, machine, kernels and calibration, the code's version. `certificates` say
    of some goals what they provably cannot be below. `ledger` has every goal's values on the way to the final dose and under
    shifts. `normalisation_factor` is what the protocol's rule multiplied every MU by, 1 without a rule.
    """

    created: datetime
    ct: CtImage
    structures: StructureSet
    prescription: Prescription
    machine: Machine
    plan: DeliverablePlan
    dose: Dose
    verification: Verification
    findings: tuple[Finding, ...]
    assumptions: tuple[str, ...]
    timings_s: tuple[tuple[str, float], ...]
    solver: SolverSummary
    dose_summary: DoseSummary
    provenance: tuple[tuple[str, str], ...]
    ledger: Ledger
    normalisation_factor: float
    certificates: tuple[Certificate, ...] = ()
