"""What the evidence of a rehearsal supports."""

from collections.abc import Iterable
from enum import IntEnum

from blocks.evidence.catalogue import Category, Severity
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, CheckStatus, Record, Stage, StageState, Verdict
from blocks.evidence.stages import StageName

_STEADY_STATE = frozenset(
    {StageName.PREFLIGHT, StageName.SNAPSHOT, StageName.TRANSFER, StageName.DECLARE}
)


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    """Verified, within both objectives; of other commands: all is done."""
    FAILED = 1
    """Failed (also when a node died on the way and did not come back), or an objective was missed,
    or there is a finding of severity high or worse; risks that the plan accepts do not count."""
    UNVERIFIED = 2
    """Could not verify: a check could not run, and what could not run never counts as passed; or
    the record could not be written."""
    USAGE = 64
    """Bad usage or plan; nothing was touched."""


def verdict_of(
    stages: Iterable[Stage], checks: Iterable[Check], findings: Iterable[Finding] = ()
) -> Verdict:
    """The verdict that the evidence supports: the worst wins, and unknown is never a pass.

    What is accepted does not count, and objectives that were missed do not count here; see
    `exit_code`.
    """
    stages, checks = tuple(stages), tuple(checks)
    ran = {stage.name: stage.state for stage in stages}
    if (
        any(check.status is CheckStatus.FAILED for check in checks)
        or any(_fails(item) for item in findings if item.accepted is None)
        or any(
            state is StageState.FAILED and name not in _STEADY_STATE | {StageName.TEARDOWN}
            for name, state in ran.items()
        )
    ):
        return Verdict.FAILED
    stopped = any(
        state in (StageState.FAILED, StageState.CANCELLED) and name != StageName.TEARDOWN
        for name, state in ran.items()
    )
    passed = any(check.status is CheckStatus.PASSED for check in checks)
    if stopped or not passed or ran.get("verify") is not StageState.COMPLETED:
        return Verdict.COULD_NOT_VERIFY
    removed = ran.get("teardown") in (StageState.COMPLETED, StageState.SKIPPED)
    unknown = any(check.status is CheckStatus.UNKNOWN for check in checks)
    return Verdict.PARTIAL if unknown or not removed else Verdict.VERIFIED


def exit_code(record: Record) -> ExitCode:
    """How a rehearsal with this record ends. What is accepted does not count."""
    accepted = {item.id for item in record.findings if item.accepted is not None}
    missed = {objective for objective, met in record.objectives.items() if met is False}
    if (
        record.verdict is Verdict.FAILED
        or missed - accepted
        or any(
            item.severity in (Severity.CRITICAL, Severity.HIGH)
            for item in record.findings
            if item.accepted is None
        )
    ):
        return ExitCode.FAILED
    unknown = (record.rto_seconds is not None and record.rto_met is None) or (
        record.rpo_seconds is not None and record.rpo_met is None
    )
    if unknown or record.verdict is not Verdict.VERIFIED:
        return ExitCode.UNVERIFIED
    return ExitCode.OK


def _fails(item: Finding) -> bool:
    """Whether such a finding alone means that recovery does not work; coming late does not."""
    late = item.category is Category.TIME
    return item.severity is Severity.CRITICAL or (item.severity is Severity.HIGH and not late)
