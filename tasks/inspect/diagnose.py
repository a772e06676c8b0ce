"""From an error to the finding that it stands for: one cause, one finding."""

from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.stages import StageName
from blocks.hosts.host import Host
from blocks.plan.loading import PlanError
from tasks.reporting.clock import Suspended

_OTHERWISE: dict[str, FindingId] = {
    StageName.PREFLIGHT: FindingId.BACKUP_FAILED,
    StageName.SNAPSHOT: FindingId.BACKUP_FAILED,
    StageName.TRANSFER: FindingId.COPY_BEHIND,
    StageName.DECLARE: FindingId.FENCE_LEAKS,
    StageName.KEY_FETCH: FindingId.KEY_ONLY_IN_SOURCE,
    StageName.RESTORE: FindingId.RESTORE_FAILED,
    StageName.VERIFY: FindingId.RESTORE_FAILED,
}


class FoundProblems(FarsideError):
    """A stage saw broken assumptions that make the next one impossible; all are in `findings`."""

    def __init__(self, stage: str, found: tuple[Finding, ...]) -> None:
        lines = [f"{item.id}: {item.subject}: {item.evidence}" for item in found]
        super().__init__("; ".join(lines), operation=stage)
        self.found = found


def diagnose(
    error: BaseException, stage: str, source: str, *, subject: str = ""
) -> tuple[Finding, ...]:
    """The findings behind an error that ended `stage`; none if it is no broken assumption.

    `source` is the name of the source domain: what fails there is a failed backup, not a failed
    recovery. `subject` is what the finding is about, if the error itself does not say so.
    """
    if isinstance(error, FoundProblems):
        return error.found
    if not isinstance(error, FarsideError) or isinstance(error, PlanError | Suspended):
        return ()
    known = None if error.domain == source else error.finding
    finding_id = known or _OTHERWISE.get(stage)
    if finding_id is None:
        return ()
    place = "/".join(part for part in (error.domain, error.host) if part)
    subject = subject or error.subject or place or stage
    # The stage went no further, whatever such a finding is otherwise.
    return (_of(error, finding_id, subject, stage, Severity.CRITICAL),)


def unreachable(error: FarsideError, host: Host, stage: str) -> Finding:
    """A host that cannot be asked, and that the rehearsal can do without."""
    finding_id, subject = error.finding or FindingId.HOST_UNREACHABLE, f"{host.domain}/{host.name}"
    return _of(error, finding_id, subject, stage, Severity.MEDIUM)


def _of(
    error: FarsideError, finding_id: str, subject: str, stage: str, severity: Severity
) -> Finding:
    what = f"{error.operation}: " if error.operation not in ("", stage) else ""
    text, remedy = f"{what}{error.message}", error.hint or None
    return finding(finding_id, subject, text, stage, severity=severity, remedy=remedy)
