"""The report: what a person must see is there, and nothing from a database breaks it."""

import io
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.artifacts import Artifact
from prefect.client.schemas.objects import Artifact as ArtifactResponse
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from rich.console import Console

from blocks.evidence.findings import Acceptance, finding
from blocks.evidence.record import Check, CheckStatus, Counterpart, Record, RunbookStep
from tasks.frames import lifecycle
from tasks.reporting.markdown import markdown, publish
from tasks.reporting.terminal import summary
from tests.servers import PrefectServer

PATH = Path("rehearsals/r20260701-120000-1a2b3c.json")


def shown(record: Record, width: int = 100, encoding: str = "utf-8", **more: Any) -> str:
    """The summary as plain text."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width).print(summary(record, PATH, **more))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_good_rehearsal_fits_on_one_screen(verified: Record, width: int) -> None:
    text = shown(verified, width)
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= width
    for fact in (
        *("VERIFIED", "Shop DB: postgres, east to west", "12.0 s  within RTO 60 s"),
        *("0.50 s  within RPO 10 s", "3 acknowledged transactions lost", "26.3 MB/s"),
        *("transfer x2", "2 passed", "s-99aa (fresh), 48.2 MB stored, 171 MB restored"),
        *("tables that are unlogged", str(PATH)),
    ):
        assert fact in text, fact


def test_bars_are_proportional_and_show_what_the_rta_clock_counted(verified: Record) -> None:
    bars = {
        line.split()[1]: (line.count("░"), line.count("█"))
        for line in shown(verified).splitlines()
        if line.strip().startswith("✓")
    }
    longest = sum(bars["snapshot"])
    assert bars["snapshot"] == (longest, 0)
    assert bars["restore"][0] == 0
    assert bars["restore"][1] == pytest.approx(longest * 6.5 / 7.4, abs=1)
    assert bars["declare"][1] > bars["declare"][0] > 0
    assert bars["teardown"][1] == 0


def test_a_bad_rehearsal_says_why_and_what_to_do(failed: Record) -> None:
    text = " ".join(shown(failed).split())
    for fact in (
        *("FAILED", "RTA unknown against RTO 60 s", "transactions lost: unknown"),
        *("restore failed: west/db1: base.tar.zst.age", "(next: transfer again)"),
        *("1 failed, 1 could not run", "balances expected t, got f", "permission denied"),
        *("critical object-corrupt base_<b>.000", "part 3: SHA-256 61fa | 88ab"),
        *("do Copy the object again", "verify skipped"),
    ):
        assert fact in text, fact
    assert text.index("object-corrupt") < text.index("clock-skew")


def test_nodes_are_shown_where_there_are_several(verified: Record) -> None:
    assert "Nodes" not in shown(verified) + markdown(verified)
    pairs = (Counterpart("db1", "db1"), Counterpart("db2", None), Counterpart(None, "db3"))
    wider = replace(verified, topology=replace(verified.topology, mapping=pairs))
    wanted = "db1 -> west/db1, db2 -> none, new -> west/db3"
    assert f"Nodes         {wanted}" in shown(wider)
    assert f"| Nodes | {wanted.replace('>', chr(92) + '>')} |" in markdown(wider)


def test_each_finding_says_how_long_it_has_been_known(verified: Record, failed: Record) -> None:
    (skew,) = (item for item in failed.findings if item.id == "clock-skew")
    history = [
        replace(verified, findings=(skew,)),
        replace(verified, started_at=verified.started_at + timedelta(hours=9)),
        failed,
    ]
    known = lifecycle(history)
    text, page = shown(failed, lifecycle=known), markdown(failed, known)
    assert "clock-skew  db1  regressed, in 2 rehearsals since 2026-07-01" in text
    assert "object-corrupt  base_<b>.000  new" in text
    assert "- Known: regressed, in 2 rehearsals since 2026-07-01\n- Seen: 7 s" in page
    assert "- Known: new\n- Seen: part 3" in page
    known = lifecycle([history[0], failed])
    assert "recurring, in 2 rehearsals since 2026-07-01" in shown(failed, lifecycle=known)
    assert "regressed" not in shown(failed) + markdown(failed)


def test_accepted_risks_are_apart_with_reason_and_end(verified: Record) -> None:
    missed = replace(
        finding("rto-missed", "shop", "75 s", "verify"),
        accepted=Acceptance("a link is ordered", date(2027, 3, 31)),
    )
    record = replace(verified, rta_seconds=75.0, findings=(missed,))
    text = " ".join(shown(record).split())
    assert "VERIFIED Shop DB" in text
    assert "misses RTO 60 s" in text
    assert "Accepted risks rto-missed shop until 2027-03-31: a link is ordered" in text
    assert "Findings" not in text
    page = markdown(record)
    assert "## Findings\n\nNone.\n\n## Accepted risks\n\n" in page
    assert "| rto-missed | shop | high | 2027-03-31 | a link is ordered |  | 75 s |" in page


def test_nothing_known_is_nothing_claimed(cancelled: Record) -> None:
    text = shown(replace(cancelled, stages=()), note="psql -h 127.0.0.1")
    assert "COULD-NOT-VERIFY" in text
    assert "none ran" in text
    assert "passed" not in text
    assert "psql -h 127.0.0.1" in text


def test_a_missed_objective_is_in_the_first_line(verified: Record) -> None:
    missed = replace(verified, rta_seconds=75.0, rpa_seconds=11.0)
    assert "VERIFIED, RTO MISSED, RPO MISSED" in shown(missed)
    assert markdown(missed).startswith("# VERIFIED, RTO MISSED, RPO MISSED: Shop DB\n")


def test_many_findings_and_hostile_text_stay_readable_in_any_encoding(verified: Record) -> None:
    crowded = replace(
        verified,
        findings=tuple(
            finding("object-missing", f"o[{n}]", "[/red] " + "gone " * 500, "transfer")
            for n in range(50)
        ),
        checks=tuple(Check(f"c{n}", CheckStatus.FAILED, "[bold]", "x" * 9999) for n in range(50)),
    )
    crowded = replace(crowded, not_verified=("[/b] \x1b[2J",))
    text = shown(crowded, 80, "ascii", note="[::1]:5432")
    assert len(text.splitlines()) < 90
    assert "and 45 more in the record" in text
    assert "o[4]" in text
    assert "[/red]" in text
    assert "[/b]" in text
    assert "[::1]:5432" in text
    assert "\x1b" not in text


def test_markdown_has_everything_and_cells_stay_cells(verified: Record, failed: Record) -> None:
    text = markdown(failed)
    assert "| heart\\|beat | unknown | no gap |  | permission denied |" in text
    assert "### object-corrupt: base\\_\\<b\\>.000" in text
    assert "- Remedy: Copy the object again" in text
    assert "61fa \\| 88ab" in text
    table = [line for line in text.splitlines() if line.startswith("| restore")]
    assert table == ["| restore | failed | 4.5 s | 4.5 s |  |  | 1 |  |"]
    good = markdown(verified)
    assert '   curl "$URL" | age -d -i key' in good
    assert "fetch+extract 2.4 s, replay 4.0 s" in good


HOSTILE = "gone\n\n# VERIFIED: all is well\n\n![](https://evil/x.png) <img src=//evil>\n```\n| a |"


def test_no_error_of_a_stage_forges_a_page(failed: Record) -> None:
    stages = tuple(replace(stage, error=HOSTILE) for stage in failed.stages)
    page = markdown(replace(failed, stages=stages))
    assert [line for line in page.splitlines() if line.startswith("# ")] == ["# FAILED: Shop DB"]
    (said,) = [line for line in page.splitlines() if line.startswith("**restore failed:**")]
    assert "gone # VERIFIED: all is well !\\[\\](https://evil/x.png) \\<img src=//evil\\>" in said
    assert "\n```\n" not in page.partition("## Runbook")[0]


def test_no_line_of_the_runbook_ends_its_block(verified: Record) -> None:
    commands = ("cat <<E", "```", "# VERIFIED: all is well", "````", "E")
    page = markdown(replace(verified, runbook=(RunbookStep("Restore", commands, "west/db1"),)))
    lines = [line.strip() for line in page.partition("## Runbook")[2].splitlines()]
    opened = next(number for number, line in enumerate(lines) if line.startswith("```"))
    fence = lines[opened].removesuffix("sh")
    closed = next(
        number
        for number, line in enumerate(lines)
        if number > opened and set(line) == {"`"} and len(line) >= len(fence)
    )
    assert tuple(lines[opened + 1 : closed]) == commands


def test_artifacts_appear_in_prefect_and_a_server_that_refuses_them_changes_nothing(
    verified: Record, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    @flow
    def rehearse() -> str:
        publish(verified)
        return "done"

    api = PrefectServer.shared().ready()
    with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: tmp_path}):
        assert rehearse() == "done"
        page = Artifact.get("farside-shop-db")
        table = Artifact.get("farside-shop-db-stages")
        assert isinstance(page, ArtifactResponse)
        assert isinstance(table, ArtifactResponse)
        assert page.type == "markdown"
        assert page.data == markdown(verified)
        assert table.type == "table"
        assert '"restore"' in str(table.data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.reporting.markdown.create_markdown_artifact", _refuse)
        publish(verified)
    assert "were not published: the server is gone" in caplog.text


def _refuse(*_: object, **__: object) -> None:
    raise ConnectionError("the server is gone")
