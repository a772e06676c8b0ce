"""Verify: a usable service, or not; nothing that could not be asked counts as a yes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from blocks.engines.checks import CheckSpec, SqlQuestion, Ticks, judged, listed, run_check
from blocks.engines.restored import References, Restored
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Check, CheckStatus
from blocks.evidence.stages import StageName
from tasks.context import Rehearsal, stage
from tasks.heartbeat import Lost, acknowledged_after
from tasks.inspect.app_secrets import opens
from tasks.inspect.diagnose import diagnose
from tasks.inspect.ownership import calls_to_source, identify_tools, uses_of_source
from tasks.inspect.reachability import leaks
from tasks.log_end import recovered_by_log
from tasks.reporting.clock import StageInProgress

STAGE = StageName.VERIFY
_WHOLE = "rows 1 to the newest without a gap, every acknowledged one among them"
COLD_SHARE = 0.1
"""What the first queries may take longer than their repetition, as a part of the RTO."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in the restored service. Numbers that nobody can know are None."""

    checks: tuple[Check, ...]
    recovered_until: datetime | None
    lost: Lost | None
    ended_at: datetime
    """When the last check had been made."""
    usable: bool
    """Whether none of them failed, and the service has answered at all."""

    @property
    def usable_at(self) -> datetime | None:
        """When the last check had passed; None if the service is not usable."""
        return self.ended_at if self.usable else None


@stage(STAGE, limit=24 * 3600)
def verify(rehearsal: Rehearsal, service: Restored) -> Verification:
    """Ask everything, whatever the answers before: one run finds as much as it can."""
    plan = rehearsal.plan
    with rehearsal.clock.stage(STAGE) as clock:
        with clock.step("recovery point"):
            checks, until, lost = _recovery_point(rehearsal, service)
        checks += service.checks
        questions = [
            SqlQuestion(check.name, check.database, check.sql, check.expected)
            for check in plan.checks
        ]
        before = len(checks)
        checks += _made(rehearsal, clock, service.usable(questions))
        secrets = (opens(rehearsal, service, item) for item in plan.secrets)
        checks += _made(rehearsal, clock, secrets)
        checks += _made(rehearsal, clock, service.integrity())
        ended_at = rehearsal.clock.now()
        found = [*_failures(checks), *_cold(rehearsal, checks)]
        rehearsal.findings.add(*found)
        with clock.step("dependencies"):
            checks += _references(rehearsal, service)
        usable = _is_usable(checks[before:]) and all(map(_lets_use, checks))
        last = _made(rehearsal, clock, _failover(service))
        rehearsal.findings.add(*_failures(last))
        checks += last
        # Whoever takes over may call, too.
        with clock.step("calls to the source"):
            checks += _calls(rehearsal)
        # A source that came back meanwhile may have been asked, or have taken what was written.
        with clock.step("fence"):
            proof = leaks(rehearsal, STAGE)
            clock.go_on()
            rehearsal.findings.add(*proof.leaking)
            checks.append(proof.check)
        return Verification(tuple(checks), until, lost, ended_at, usable)


def _made(rehearsal: Rehearsal, clock: StageInProgress, specs: Iterable[CheckSpec]) -> list[Check]:
    """One check after the other, each timed as a step."""
    made, began = list[Check](), rehearsal.clock.now()
    for spec in specs:
        made.append(run_check(spec))
        clock.go_on()
        ended = rehearsal.clock.now()
        clock.add_step(spec.name, began, ended, grows=spec.grows)
        began = ended
    return made


def _failover(service: Restored) -> Iterator[CheckSpec]:
    if spec := service.failover():
        yield spec


def _references(rehearsal: Rehearsal, service: Restored) -> Iterator[Check]:
    """What of the source the service names becomes findings; what was not searched, a check."""
    plan = rehearsal.plan
    identify_tools(rehearsal, plan.recovery.hosts)
    try:
        named = service.references(plan.source.belongings)
    except FarsideError as error:
        named = References(unseen=(error.message,))
    if named.unseen:
        text = listed(named.unseen)
        yield _unknown("dependencies", "nothing in it names the source", text)
    rehearsal.findings.add(*(item.at(STAGE) for item in named.found))
    rehearsal.findings.add(*uses_of_source(rehearsal))


def _calls(rehearsal: Rehearsal) -> Iterator[Check]:
    """Calls to the source become findings; that they could not be looked for, a check."""
    called, unseen = calls_to_source(rehearsal)
    rehearsal.findings.add(*called)
    for problem in unseen:
        if problem.finding:
            rehearsal.findings.add(*diagnose(problem, STAGE, rehearsal.source.name))
    if unseen:
        text = listed([problem.message for problem in unseen])
        yield _unknown("calls-to-source", "nobody calls the source", text)


def _unknown(name: str, expected: str, why: str) -> Check:
    return Check(name, CheckStatus.UNKNOWN, expected, f"could not run: {why}")


def _recovery_point(
    rehearsal: Rehearsal, service: Restored
) -> tuple[list[Check], datetime | None, Lost | None]:
    plan = rehearsal.plan
    checks: list[Check] = []
    until: datetime | None = None
    try:
        until = service.newest_transaction()
    except FarsideError as error:
        checks.append(Check("recovery-point", CheckStatus.UNKNOWN, None, None, error.message))
    by_log = None
    with suppress(FarsideError):  # then the log tells nothing, and what is known otherwise counts
        by_log = recovered_by_log(rehearsal, service)
    until = max((_aware(at) for at in (until, by_log) if at is not None), default=None)
    if plan.heartbeat is None:
        return checks, until, None
    heart = plan.heartbeat
    try:
        ticks = service.heartbeat(heart.database, heart.table)
        lost = acknowledged_after(heart.ledger, ticks.newest_id or 0, rehearsal.cut_at)
    except (FarsideError, OSError, ValueError) as error:
        checks.append(Check("heartbeat", CheckStatus.UNKNOWN, _WHOLE, None, str(error)))
        return checks, until, None
    checks.append(heartbeat_check(ticks, lost.rows))
    known = [_aware(moment) for moment in (until, ticks.newest_at) if moment is not None]
    return checks, max(known, default=None), lost


def _aware(moment: datetime) -> datetime:
    """A time without a zone is UTC, as all of farside's are."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def heartbeat_check(ticks: Ticks, lost: int) -> Check:
    """No gap: every row that was acknowledged up to the newest restored one is there."""
    wrong = []
    if ticks.newest_id is None:
        wrong.append("the table is empty")
    elif ticks.first_missing is not None:
        wrong.append(f"row {ticks.first_missing} is missing below {ticks.newest_id}")
    right = f"{ticks.count} rows, newest {ticks.newest_id}; {lost} acknowledged after it"
    answer = partial(judged, wrong, right)
    return run_check(CheckSpec("heartbeat", _WHOLE, answer, finding=FindingId.INCOMPLETE_RESTORE))


def _is_usable(checks: Sequence[Check]) -> bool:
    """Whether a service that answers so may be in use.

    One that was asked more than it answered is not, although nothing failed: it may have ended.
    """
    passed, unknown = (
        sum(check.status is status for check in checks)
        for status in (CheckStatus.PASSED, CheckStatus.UNKNOWN)
    )
    return 0 < passed >= unknown


def _lets_use(check: Check) -> bool:
    """Whether a service with this answer may be in use. Its application must have got in."""
    if check.name == "login":
        return check.status is CheckStatus.PASSED
    return check.status is not CheckStatus.FAILED


def _cold(rehearsal: Rehearsal, checks: list[Check]) -> list[Finding]:
    """The plan's questions, if users would wait for a cold service."""
    asked = [check.seconds for check in checks if check.seconds is not None]
    first, again = (sum(pair[turn] for pair in asked) for turn in (0, 1))
    if first - again <= COLD_SHARE * rehearsal.plan.objectives.rto.total_seconds():
        return []
    text = f"the plan's checks took {first:.1f} s at first, {again:.1f} s once more"
    return [finding(FindingId.USABLE_NOT_RESTORED, rehearsal.plan.name, text, STAGE)]


def _failures(checks: Iterable[Check]) -> Iterator[Finding]:
    for check in checks:
        if check.status is CheckStatus.FAILED:
            for subject in check.subjects or (check.name,):
                text = f"expected {check.expected}; got {check.evidence.get(subject, check.actual)}"
                yield finding(check.finding, subject, text, STAGE)
