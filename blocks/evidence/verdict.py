"""What the evidence of a rehearsal supports."""

from collections.abc import Iterable

from blocks.evidence.catalogue import Category, Severity
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, CheckStatus, Record, Stage, StageState, Verdict
from blocks.evidence.stages import StageName

_STEADY_STATE = frozenset(
    {StageName.PREFLIGHT, StageName.SNAPSHOT, StageName.TRANSFER, StageName.DECLARE}
)


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


def exit_code(record: Record) -> int:
    """0 verified within objectives; 1 failed, an objective missed, or a finding of severity high
    or worse; 2 could not verify. What is accepted does not count.
    """
    accepted = {item.id for item in record.findings if item.accepted is not None}
    missed = {id for id, met in record.objectives.items() if met is False}
    if (
        record.verdict is Verdict.FAILED
        or missed - accepted
        or any(
            item.severity in (Severity.CRITICAL, Severity.HIGH)
            for item in record.findings
            if item.accepted is None
        )
    ):
        return 1
    unknown = (record.rto_seconds is not None and record.rto_met is None) or (
        record.rpo_seconds is not None and record.rpo_met is None
    )
    return 2 if unknown or record.verdict is not Verdict.VERIFIED else 0


def _fails(item: Finding) -> bool:
    """Whether such a finding alone means that recovery does not work; coming late does not."""
    late = item.category is Category.TIME
    return item.severity is Severity.CRITICAL or (item.severity is Severity.HIGH and not late)
