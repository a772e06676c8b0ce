"""From an error to the finding that it stands for: one cause, one finding."""

from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, Findings, Severity, finding

_OTHERWISE = {
    "snapshot": "backup-failed",
    "transfer": "copy-behind",
    "declare": "fence-leaks",
    "restore": "restore-failed",
}


class FoundProblems(FarsideError):
    """A stage saw broken assumptions that make the next one impossible; all are in `findings`."""

    def __init__(self, stage: str, found: tuple[Finding, ...]) -> None:
        lines = [f"{item.id}: {item.subject}: {item.evidence}" for item in found]
        super().__init__("; ".join(lines), operation=stage)
        self.found = found


def diagnose(error: BaseException, stage: str, source: str) -> tuple[Finding, ...]:
    """The findings behind an error that ended `stage`; none if it is no broken assumption.

    `source` is the name of the source domain: what fails there is a failed backup, not a failed
    recovery.
    """
    if isinstance(error, FoundProblems):
        return error.found
    if not isinstance(error, FarsideError):
        return ()
    known = None if error.domain == source else error.finding
    id = known or _OTHERWISE.get(stage)
    if id is None:
        return ()
    subject = "/".join(part for part in (error.domain, error.host) if part) or stage
    what = f"{error.operation}: " if error.operation not in ("", stage) else ""
    return (
        finding(
            id,
            subject,
            f"{what}{error.message}",
            stage,
            severity=Severity.CRITICAL,  # the stage went no further, whatever such a finding is
            remedy=error.hint or None,
        ),
    )


def stop_if_critical(stage: str, findings: Findings, found: tuple[Finding, ...]) -> None:
    """Note `found`; raise FoundProblems if one of them makes going on pointless."""
    findings.add(*found)
    worst = tuple(item for item in found if item.severity.rank == 0)
    if worst:
        raise FoundProblems(stage, worst)
