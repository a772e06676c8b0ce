"""The page of a record, word for word: text from databases and hosts adds no markup to it."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from blocks.engines.registry import catalogue
from blocks.evidence.findings import Acceptance, Finding, finding
from blocks.evidence.record import (
    BackupSetSummary,
    Check,
    CheckStatus,
    Counterpart,
    PlanSummary,
    Record,
    RunbookStep,
    StageState,
)
from tasks.frames import lifecycle
from tasks.reporting.markdown import markdown

PAGES = Path(__file__).with_name("pages")
HOSTILE = (
    "gone\n\n# VERIFIED\n\n![](https://evil/x.png) <img src=//evil>\n```\n| a | b |\n"
    "- [x](y) **bold** _it_ `code` \\ &amp; {{ 7 * 7 }} {% raw %} \x1b[2J\r\u2028end"
)


def as_is(record: Record) -> str:
    """The page of one record alone."""
    return markdown(record)


def with_history(record: Record) -> str:
    """The page of a record that comes a day after one with the same findings."""
    earlier = replace(record, started_at=record.started_at - timedelta(days=1))
    return markdown(record, lifecycle([earlier, record]))


def met(finding_id: str, subject: str, evidence: str, stage: str) -> Finding:
    """A finding whose remedy no change of the catalogue alters."""
    return finding(finding_id, subject, evidence, stage, remedy="Do *this*.\nThen that_one.")


def verified(verified: Record, _failed: Record, _cancelled: Record) -> Record:
    """All is well; several nodes, several steps in the runbook."""
    pairs = (Counterpart("db1", "db1"), Counterpart("db2", None), Counterpart(None, "db3"))
    steps = (
        *verified.runbook,
        RunbookStep("Start it", ("pg_ctl start", "", "  psql <<E", "select 1;", "E"), ""),
    )
    return replace(
        verified,
        waited_seconds=2.5,
        topology=replace(verified.topology, mapping=pairs),
        not_verified=(*verified.not_verified, "who calls the source: no observe_argv"),
        runbook=steps,
    )


def missed(verified: Record, _failed: Record, _cancelled: Record) -> Record:
    """Both objectives missed, one of them accepted."""
    late = met("rto-missed", "shop", "75 s", "verify")
    accepted = replace(late, accepted=Acceptance("a link is | ordered", date(2027, 3, 31)))
    return replace(
        verified,
        rta_seconds=75.0,
        rpa_seconds=11.0,
        transactions_lost=1,
        findings=(accepted, met("rpo-missed", "shop", "11 s", "verify")),
    )


def failed(_verified: Record, failed: Record, _cancelled: Record) -> Record:
    """A restore that failed, with findings of two severities."""
    return replace(
        failed,
        findings=(
            met("clock-skew", "west/db_1", "7 s", "preflight"),
            met("object-corrupt", "base_<b>.000", "part 3:\nSHA-256 61fa | 88ab", "restore"),
        ),
    )


def cancelled(_verified: Record, _failed: Record, cancelled: Record) -> Record:
    """Nothing is known, not even of a stage."""
    return replace(cancelled, stages=())


def hostile(verified: Record, failed: Record, _cancelled: Record) -> Record:
    """Every text that comes from a plan, a host or a database tries to add markup."""
    said = met("object-corrupt", HOSTILE, HOSTILE, "restore")
    risk = met("clock-skew", HOSTILE, HOSTILE, "preflight")
    return replace(
        verified,
        rehearsal_id=f"r1 {HOSTILE}",
        plan=PlanSummary(*[f"{name} {HOSTILE}" for name in ("n", "d", "e", "s", "r")]),
        verdict=failed.verdict,
        backup_set=BackupSetSummary(HOSTILE, verified.started_at, None, HOSTILE, None),
        stages=tuple(
            replace(
                stage,
                state=StageState.CANCELLED,
                error=HOSTILE,
                steps=tuple(replace(step, name=HOSTILE) for step in stage.steps),
            )
            for stage in verified.stages
        ),
        findings=(said, replace(risk, accepted=Acceptance(HOSTILE, date(2027, 3, 31)))),
        checks=tuple(Check(HOSTILE, status, HOSTILE, HOSTILE, HOSTILE) for status in CheckStatus),
        topology=replace(
            verified.topology,
            mapping=(Counterpart(HOSTILE, HOSTILE), Counterpart(None, HOSTILE)),
        ),
        not_verified=(HOSTILE, HOSTILE),
        runbook=(
            RunbookStep(HOSTILE, (HOSTILE, "````", " \t ", "\x0cend"), HOSTILE),
            RunbookStep("none", (), ""),
        ),
    )


@pytest.mark.parametrize("show", [as_is, with_history])
@pytest.mark.parametrize("change", [verified, missed, failed, cancelled, hostile])
def test_a_page_is_as_before(
    change: Callable[..., Record],
    show: Callable[[Record], str],
    request: pytest.FixtureRequest,
) -> None:
    """FARSIDE_WRITE_PAGES=1 writes the pages that are compared with; look at the difference."""
    record = change(*(request.getfixturevalue(n) for n in ("verified", "failed", "cancelled")))
    page = show(record)
    for item in record.findings:
        page = page.replace(catalogue()[item.id].title, f"TITLE OF {item.id}")
    path = PAGES / f"{change.__name__}-{show.__name__.replace('_', '-')}.md"
    if os.environ.get("FARSIDE_WRITE_PAGES"):
        path.write_bytes(page.encode())
    assert page == path.read_bytes().decode()
