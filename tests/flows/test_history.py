"""The history of findings, from the results folder."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.evidence.findings import finding
from blocks.evidence.history import history
from blocks.evidence.record import PlanSummary, Record, RecordMalformed, Verdict
from flows.rehearse import lifecycle_of

FIRST = Record(
    rehearsal_id="r1",
    plan=PlanSummary("shop", "", "postgres", "east", "west"),
    verdict=Verdict.FAILED,
    started_at=datetime(2026, 7, 1, 12, tzinfo=UTC),
    ended_at=None,
    findings=(finding("clock-skew", "west/db1", "9 s", "preflight"),),
)
SECOND = replace(FIRST, rehearsal_id="r2", started_at=FIRST.started_at + timedelta(days=1))


def test_history_is_of_this_plan_and_up_to_this_record(tmp_path: Path) -> None:
    other = replace(FIRST, rehearsal_id="r0", plan=replace(FIRST.plan, name="bank"))
    for record in (other, FIRST, SECOND):
        record.save(tmp_path)
    known = history(tmp_path, "shop", None)
    assert lifecycle_of(FIRST, known) is None
    found = lifecycle_of(SECOND, known)
    assert found is not None
    assert found[["plan", "state"]].to_numpy().tolist() == [["shop", "recurring"]]


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    FIRST.save(tmp_path)
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(RecordMalformed, match=r"torn\.json"):
        history(tmp_path, "shop", None)
