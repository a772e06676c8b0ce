"""The record as Markdown, for Prefect's artifacts."""

import logging
import re
import textwrap
from collections.abc import Sequence
from datetime import datetime

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from blocks.evidence.findings import Finding
from blocks.evidence.moments import iso
from blocks.evidence.record import Record, Stage
from tasks.reporting import wording
from tasks.reporting.units import duration, printable, rate, size

_log = logging.getLogger(__name__)


def markdown(record: Record, lifecycle: pd.DataFrame | None = None) -> str:
    """The record as Markdown: summary, stages, checks, findings with remedies, runbook.

    `lifecycle` (see `tasks.frames`) tells how long each finding has been known.
    """
    accepted, counted = wording.by_acceptance(record)
    histories = wording.histories_of(record, lifecycle)

    def known(item: Finding) -> str:
        return histories.get((item.id, item.subject), "")

    return _PAGES.get_template("record.md.j2").render(
        record=record,
        verdict=wording.verdict(record),
        lost=wording.lost(record),
        nodes=wording.nodes_shown(record),
        stages=_stage_rows(record),
        errors=wording.errors(record),
        findings=counted,
        accepted=accepted,
        known=known,
    )


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
    except Exception as error:  # noqa: BLE001 (a record counts without its artifacts)
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


def _escaped(value: object) -> Markup:
    """Text that comes from databases and hosts, made harmless inside Markdown, on one line."""
    if isinstance(value, Markup):
        return value
    return Markup(re.sub(r"([\\`*_|<>\[\]])", r"\\\1", printable(str(value))))


def _moment(at: datetime | None) -> str:
    return iso(at) if at else "never"


def _code(lines: Sequence[str]) -> Markup:
    """A block of code, indented as part of a numbered item, whose end no line of it can forge."""
    text = "\n".join(lines)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(textwrap.indent(f"{fence}sh\n{text}\n{fence}", "   "))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _pages() -> Environment:
    """The templates. All that they print is escaped by `finalize`, before Jinja would for HTML."""
    pages = Environment(
        loader=PackageLoader("tasks.reporting"),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"code": _code, "moment": _moment, "seconds": wording.seconds}
    pages.globals |= {"against": wording.against}
    return pages


_PAGES = _pages()
