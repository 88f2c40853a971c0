"""Every error that rtplan raises on purpose.

    RtplanError(code, found, expected, remedy)
    ├ CaseRejected        to the sender; never retried        exit code 4
    ├ RequestInvalid      the command or manifest is wrong    exit code 2
    ├ LibraryInvalid      a protocol or machine file is wrong exit code 2
    ├ PlanningFailed      to a planner                        exit code 1
    ├ SafetyStop          to a physicist; never automatic     exit code 1
    ├ BackendMissing      the asked-for device is absent      exit code 1
    └ TransportFailed     retry with back-off                 exit code 1

Errors are routed by class and code, never by the text.
"""

from __future__ import annotations


class RtplanError(Exception):
    """A mistake with a stable code, what was found, what was expected, and what to do about it."""

    exit_code = 1

    def __init__(self, code: str, found: str, expected: str = "", remedy: str = "") -> None:
        self.code = code
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(self.line())

    def line(self) -> str:
        """The whole error on one line, for a terminal: control characters are removed."""
        parts = [f"{self.code}: {self.found}"]
        if self.expected:
            parts.append(f"expected: {self.expected}")
        if self.remedy:
            parts.append(f"remedy: {self.remedy}")
        text = "; ".join(parts)
        return "".join(c if c.isprintable() else " " for c in text)

    def __reduce__(self) -> tuple[type[RtplanError], tuple[str, str, str, str]]:
        # Errors cross process borders (Dask workers); the default reduce would lose the fields.
        return type(self), (self.code, self.found, self.expected, self.remedy)


class CaseRejected(RtplanError):
    """The input cannot be planned safely. Goes back to the sender and is never retried."""

    exit_code = 4


class RequestInvalid(RtplanError):
    """What was asked for makes no sense as it stands: a manifest without its columns, an output folder in use."""

    exit_code = 2


class LibraryInvalid(RtplanError):
    """A protocol, machine or calibration file is wrong; the engine refuses to start with it."""

    exit_code = 2


class PlanningFailed(RtplanError):
    """The case is sound but no deliverable plan came out."""


class SafetyStop(RtplanError):
    """A result contradicts itself; a physicist has to look before anything goes on."""


class BackendMissing(RtplanError):
    """The asked-for compute device is not there. Never a quiet fallback."""


class TransportFailed(RtplanError):
    """A transfer or a cluster failed; the same request may be tried again."""
