"""The report for the reviewer: one HTML file, and the same figures as JSON."""

from rtplan.steps.report.data import DoseSummary, ReportData, SolverSummary
from rtplan.steps.report.write import write_report

__all__ = ["DoseSummary", "ReportData", "SolverSummary", "write_report"]
