"""A record for people: the summary on the terminal."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, CheckStatus, Record, StageState, Verdict
from tasks.reporting.progress import MARKS
from tasks.reporting.units import duration, printable, rate, size
from tasks.reporting.wording import (
    Histories,
    against,
    by_acceptance,
    errors,
    histories_of,
    lost,
    nodes_shown,
    seconds,
    verdict,
)

_VERDICT_STYLES = {
    Verdict.VERIFIED: "bold green",
    Verdict.PARTIAL: "bold yellow",
    Verdict.COULD_NOT_VERIFY: "bold yellow",
    Verdict.FAILED: "bold red",
}
_SEVERITY_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "yellow",
    Severity.MEDIUM: "cyan",
    Severity.INFO: "dim",
}
_AGAINST_STYLES = {True: "green", False: "bold red", None: "yellow"}
_FINDINGS_SHOWN = 5
_CHECKS_SHOWN = 5
_NOT_VERIFIED_SHOWN = 3
_WAITED_SHOWN = 2.0


def summary(
    record: Record,
    path: Path | None = None,
    *,
    note: str = "",
    lifecycle: pd.DataFrame | None = None,
) -> RenderableType:
    """The rehearsal in ten seconds of reading.

    `path` is where the record was written; `note` a last line, such as how to reach a service
    that was kept; `lifecycle` (see `tasks.frames`) tells how long each finding has been known.
    """
    accepted, counted = by_acceptance(record)
    parts: list[RenderableType] = [_headline(record), _objectives(record), _bars(record)]
    parts += _trouble(record)
    parts.append(_checks(record))
    if counted:
        parts.append(_findings(counted, histories_of(record, lifecycle)))
    if accepted:
        parts.append(_accepted(accepted))
    parts.append(_closing(record, path, note))
    return Padding(Group(*(Padding(part, (0, 0, 1, 0)) for part in parts[:-1]), parts[-1]), (1, 1))


@dataclass(frozen=True, slots=True)
class _Bar:
    """A bar as long as its share of the widest: first the part before the declaration, then the
    part on the RTA clock, which is darker.
    """

    before: float
    on_the_clock: float
    widest: float
    style: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        light, dark = ("-", "#") if options.ascii_only else ("░", "█")
        scale = options.max_width / self.widest if self.widest else 0
        total = self.before + self.on_the_clock
        length = max(1, round(total * scale)) if total else 0
        counted = length if not self.before else round(length * self.on_the_clock / (total or 1))
        yield Segment(light * (length - counted), Style.parse("blue"))
        yield Segment(dark * counted, Style.parse(self.style))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(8, options.max_width)


def _headline(record: Record) -> RenderableType:
    text = verdict(record)
    style = _VERDICT_STYLES[record.verdict]
    if "," in text and record.verdict is Verdict.VERIFIED:
        style = "bold yellow"
    plan = record.plan
    return Text.assemble(
        (text, style),
        f"  {plan.name}: {plan.engine}, {plan.source} to {plan.recovery}",
        (f"  {record.rehearsal_id}", "dim"),
    )


def _objectives(record: Record) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row(
        Text("RTA", "bold"),
        seconds(record.rta_seconds),
        _against(record.rto_met, record.rto_seconds, "RTO"),
        f"declared disaster to verified service{_waited(record)}",
    )
    table.add_row(
        Text("RPA", "bold"),
        seconds(record.rpa_seconds),
        _against(record.rpo_met, record.rpo_seconds, "RPO"),
        lost(record),
    )
    return table


def _against(met: bool | None, objective: float | None, name: str) -> Text:
    style = "dim" if objective is None else _AGAINST_STYLES[met]
    return Text(against(met, objective, name), style)


def _waited(record: Record) -> str:
    """The time lost to the orchestrator, where it is worth a word."""
    if record.waited_seconds is None or record.waited_seconds < _WAITED_SHOWN:
        return ""
    return f", and {duration(record.waited_seconds)} of waiting for Prefect"


def _bars(record: Record) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    widest = max((stage.seconds or 0 for stage in record.stages), default=0)
    breakdown = record.rta_breakdown()
    for stage in record.stages:
        counted = min(breakdown.get(stage.name, 0), stage.seconds or 0)
        attempts = f" x{stage.attempts}" if stage.attempts > 1 else ""
        style = "bold red" if stage.state is StageState.FAILED else ""
        table.add_row(
            _Mark(stage.state),
            Text(stage.name + attempts, style),
            stage.state.value if stage.seconds is None else duration(stage.seconds),
            _Bar((stage.seconds or 0) - counted, counted, widest, "magenta"),
            "" if stage.bytes is None else size(stage.bytes),
            rate(stage.bytes, stage.seconds),
        )
    return Group(table, _Legend()) if breakdown else table


@dataclass(frozen=True, slots=True)
class _Mark:
    """The mark of a stage's state."""

    state: StageState

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        mark, plain, style = MARKS[self.state]
        yield Text(plain if options.ascii_only else mark, style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, 1)


@dataclass(frozen=True, slots=True)
class _Legend:
    """What the bars mean."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        light, dark = ("-", "#") if options.ascii_only else ("░", "█")
        yield Text.assemble(
            "   ",
            (dark, "magenta"),
            (" on the RTA clock  ", "dim"),
            (light, "blue"),
            (" off it", "dim"),
        )


def _trouble(record: Record) -> list[RenderableType]:
    lines = [
        Text.assemble((f"{name} ", "bold red"), _shorten(what, 400))
        for name, what in errors(record)
    ]
    return [Group(*lines)] if lines else []


def _checks(record: Record) -> RenderableType:
    if not record.checks:
        return Text("Checks  none ran", "yellow")
    count = Counter(check.status for check in record.checks)
    parts = [
        (f"{count[CheckStatus.PASSED]} passed", "green"),
        (f"{count[CheckStatus.FAILED]} failed", "bold red"),
        (f"{count[CheckStatus.UNKNOWN]} could not run", "yellow"),
    ]
    shown = [(text, style) for text, style in parts if not text.startswith("0 ")]
    head = Text("Checks  ", "bold")
    head.append(Text(", ").join(Text(text, style) for text, style in shown))
    bad = sorted(
        (check for check in record.checks if check.status is not CheckStatus.PASSED),
        key=lambda check: check.status is CheckStatus.UNKNOWN,
    )
    lines: list[RenderableType] = [Padding(_bad_check(check), (0, 0, 0, 2)) for check in bad]
    return Group(head, *_at_most(lines, _CHECKS_SHOWN))


def _bad_check(check: Check) -> Text:
    failed = check.status is CheckStatus.FAILED
    text = Text(_shorten(check.name, 80), "bold red" if failed else "yellow")
    if failed:
        text.append(f"  expected {_value(check.expected)}, got {_value(check.actual)}")
    if check.detail:
        text.append(f"  {_shorten(check.detail, 200)}")
    return text


def _value(value: str | None) -> str:
    return "nothing" if value is None else _shorten(value, 80)


def _findings(findings: Sequence[Finding], histories: Histories) -> RenderableType:
    lines: list[RenderableType] = []
    for item in findings:
        head = Text.assemble(
            (item.severity.value, _SEVERITY_STYLES[item.severity]),
            "  ",
            (item.id, "bold"),
            f"  {_shorten(item.subject, 200)}",
            (f"  {histories.get((item.id, item.subject), '')}".rstrip(), "italic"),
        )
        body = Table.grid(padding=(0, 1, 0, 0))
        body.add_row(Text("seen", "dim"), Text(_shorten(item.evidence, 300)))
        body.add_row(Text("do", "dim"), Text(item.remedy, "bold"))
        lines.append(Padding(Group(head, Padding(body, (0, 0, 0, 2))), (0, 0, 0, 2)))
    return Group(Text("Findings", "bold"), *_at_most(lines, _FINDINGS_SHOWN))


def _accepted(findings: Sequence[Finding]) -> RenderableType:
    lines = [
        Padding(
            Text(
                f"{item.id}  {_shorten(item.subject, 200)}"
                f"  until {item.accepted.until}: {_shorten(item.accepted.reason, 200)}",
                "dim",
            ),
            (0, 0, 0, 2),
        )
        for item in findings
        if item.accepted
    ]
    return Group(Text("Accepted risks", "dim bold"), *_at_most(lines, _FINDINGS_SHOWN))


def _at_most(lines: Sequence[RenderableType], most: int) -> Iterable[RenderableType]:
    rest = len(lines) - most
    return [*lines[:most], *([Text(f"  and {rest} more in the record", "dim")] if rest > 0 else [])]


def _closing(record: Record, path: Path | None, note: str) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if chosen := record.backup_set:
        amounts = [
            f"{size(amount)} {word}"
            for amount, word in ((chosen.bytes, "stored"), (chosen.raw_bytes, "restored"))
            if amount is not None
        ]
        table.add_row(
            Text("Set", "bold"), Text(", ".join([f"{chosen.id} ({chosen.selection})", *amounts]))
        )
    if nodes := nodes_shown(record):
        table.add_row(Text("Nodes", "bold"), Text(_shorten(nodes, 300)))
    if record.not_verified:
        items = list(record.not_verified[:_NOT_VERIFIED_SHOWN])
        if (rest := len(record.not_verified) - len(items)) > 0:
            items.append(f"and {rest} more")
        shown = "; ".join(_shorten(item, 200) for item in items)
        table.add_row(Text("Not verified", "bold"), Text(shown))
    table.add_row(
        Text("Record", "bold"), Text(str(path)) if path else Text("was not written", "bold red")
    )
    if note:
        table.add_row(Text("Note", "bold"), Text(note))
    return table


def _shorten(text: str, width: int) -> str:
    line = printable(text)
    return line if len(line) <= width else f"{line[: width - 4]} ..."
