"""The record as Markdown, for Prefect's artifacts."""

import logging
import re
import textwrap
from collections.abc import Sequence

import pandas as pd
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from blocks.evidence.findings import Finding
from blocks.evidence.moments import iso
from blocks.evidence.record import Record, Stage
from tasks.reporting.terminal import (
    against,
    by_acceptance,
    errors,
    histories_of,
    lost,
    nodes_shown,
    seconds,
    verdict,
)
from tasks.reporting.units import duration, printable, rate, size

_log = logging.getLogger(__name__)


def markdown(record: Record, lifecycle: pd.DataFrame | None = None) -> str:
    """The record as Markdown: summary, stages, checks, findings with remedies, runbook.

    `lifecycle` (see `tasks.frames`) tells how long each finding has been known.
    """
    accepted, counted = by_acceptance(record)
    histories = histories_of(record, lifecycle)
    sections = [
        f"# {verdict(record)}: {_cell(record.plan.name)}",
        _markdown_summary(record),
        "## Stages\n\n" + _markdown_table(_stage_rows(record)),
    ]
    sections += [f"**{name}** {_cell(what)}" for name, what in errors(record)]
    sections.append("## Findings\n\n" + (_markdown_findings(counted, histories) or "None."))
    if accepted:
        rows = _accepted_rows(accepted, histories)
        sections.append("## Accepted risks\n\n" + _markdown_table(rows))
    if record.checks:
        sections.append("## Checks\n\n" + _markdown_table(_check_rows(record)))
    if record.not_verified:
        sections.append(
            "## Not verified\n\n" + "\n".join(f"- {_cell(item)}" for item in record.not_verified)
        )
    if record.runbook:
        sections.append("## Runbook, without farside\n\n" + _markdown_runbook(record))
    return "\n\n".join(sections) + "\n"


def publish(record: Record, lifecycle: pd.DataFrame | None = None) -> None:
    """Show the record in Prefect's UI: a Markdown artifact, and a table of the stages.

    To be called inside a flow run. The artifacts are copies for the eye: if the server does not
    take them, that is logged, and the rehearsal's outcome stays what it is.
    """
    key = f"farside-{_slug(record.plan.name)}"
    try:
        create_markdown_artifact(
            markdown(record, lifecycle), key=key, description=f"Rehearsal {record.rehearsal_id}"
        )
        create_table_artifact(
            _stage_rows(record),
            key=f"{key}-stages",
            description=f"Stages of rehearsal {record.rehearsal_id}",
        )
    except Exception as error:
        text = printable(str(error))
        _log.warning("The artifacts of %s were not published: %s", record.rehearsal_id, text)


def _stage_rows(record: Record) -> list[dict[str, str]]:
    breakdown = record.rta_breakdown()
    return [
        {
            "stage": stage.name,
            "state": stage.state.value,
            "took": "" if stage.seconds is None else duration(stage.seconds),
            "of it RTA": duration(breakdown[stage.name]) if stage.name in breakdown else "",
            "moved": "" if stage.bytes is None else size(stage.bytes),
            "rate": rate(stage.bytes, stage.seconds),
            "attempts": str(stage.attempts) if stage.attempts else "",
            "steps": _steps(stage),
        }
        for stage in record.stages
    ]


def _steps(stage: Stage) -> str:
    return ", ".join(
        f"{step.name} {duration(step.seconds)}" for step in stage.steps if step.seconds is not None
    )


def _check_rows(record: Record) -> list[dict[str, str]]:
    return [
        {
            "check": check.name,
            "status": check.status.value,
            "expected": check.expected or "",
            "actual": check.actual or "",
            "detail": check.detail or "",
        }
        for check in record.checks
    ]


def _markdown_summary(record: Record) -> str:
    plan, chosen = record.plan, record.backup_set
    rows = [
        ("Rehearsal", record.rehearsal_id),
        ("Plan", f"{plan.name} ({plan.engine}, {plan.source} to {plan.recovery})"),
        ("Declared", iso(record.declared_at) if record.declared_at else "never"),
        ("Usable", iso(record.usable_at) if record.usable_at else "never"),
        (
            "RTA",
            f"{seconds(record.rta_seconds)}, "
            f"{against(record.rto_met, record.rto_seconds, 'RTO').plain}",
        ),
        (
            "RPA",
            f"{seconds(record.rpa_seconds)}, "
            f"{against(record.rpo_met, record.rpo_seconds, 'RPO').plain}",
        ),
        ("Waited", f"{seconds(record.waited_seconds)} for Prefect, not in the RTA"),
        ("Lost", lost(record)),
        ("Backup set", f"{chosen.id} ({chosen.selection})" if chosen else "none"),
    ]
    if nodes := nodes_shown(record):
        rows.append(("Nodes", nodes))
    return _markdown_table([{"": name, "outcome": value} for name, value in rows])


def _markdown_findings(findings: Sequence[Finding], histories: dict[tuple[str, str], str]) -> str:
    return "\n\n".join(
        f"### {item.id}: {_cell(item.subject)}\n\n"
        f"*{item.severity.value}, {item.category.value}, met in {item.stage}*: {item.title}.\n\n"
        + (f"- Known: {known}\n" if (known := histories.get((item.id, item.subject))) else "")
        + f"- Seen: {_cell(item.evidence)}\n"
        f"- Remedy: {_cell(item.remedy)}"
        for item in findings
    )


def _accepted_rows(
    findings: Sequence[Finding], histories: dict[tuple[str, str], str]
) -> list[dict[str, str]]:
    return [
        {
            "finding": item.id,
            "subject": item.subject,
            "severity": item.severity.value,
            "until": str(item.accepted.until),
            "reason": item.accepted.reason,
            "known": histories.get((item.id, item.subject), ""),
            "seen": item.evidence,
        }
        for item in findings
        if item.accepted
    ]


def _markdown_runbook(record: Record) -> str:
    return "\n\n".join(
        f"{number}. {_cell(step.title)}{f' (on {_cell(step.where)})' if step.where else ''}\n\n"
        + textwrap.indent(_code("\n".join(step.commands)), "   ")
        for number, step in enumerate(record.runbook, 1)
    )


def _code(text: str) -> str:
    """A block of code whose end no line of it can forge."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"


def _markdown_table(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return "None."
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text that comes from databases and hosts, made harmless inside Markdown."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", printable(text))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
