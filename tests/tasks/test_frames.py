"""Records as pandas frames."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Acceptance, finding
from blocks.evidence.record import STAGES, PlanSummary, Record, Stage, StageState, Verdict
from tasks.frames import Frames, frames, lifecycle


def dtypes(of: Frames) -> dict[str, dict[str, str]]:
    """Columns and dtypes of every frame."""
    return {
        field.name: getattr(of, field.name).dtypes.astype(str).to_dict() for field in fields(of)
    }


def test_dtypes_are_the_same_for_none_for_one_and_for_records_that_know_nothing(
    verified: Record, failed: Record, cancelled: Record
) -> None:
    bare = replace(cancelled, stages=(), uses=())
    assert (
        dtypes(frames([]))
        == dtypes(frames([bare]))
        == dtypes(frames([verified]))
        == dtypes(frames([verified, failed, cancelled]))
    )
    kinds = dtypes(frames([]))["rehearsals"]
    assert kinds["declared_at"] == "datetime64[us, UTC]"
    assert kinds["rta"] == "timedelta64[us]"
    assert kinds["verdict"] == "category"
    assert kinds["transactions_lost"] == "Int64"
    assert kinds["rto_met"] == "boolean"
    assert all(
        kind.startswith(("datetime64[", "timedelta64["))
        or kind in ("category", "string", "Int64", "Float64", "boolean")
        for columns in dtypes(frames([])).values()
        for kind in columns.values()
    )


def test_columns_and_dtypes_of_empty_frames_are_those_that_tools_rely_on() -> None:
    wanted = json.loads(Path(__file__).with_name("dtypes.json").read_text())
    empty = frames([])
    assert {
        field.name: {
            name: f"{'ordered ' if getattr(dtype, 'ordered', False) else ''}{dtype}"
            for name, dtype in getattr(empty, field.name).dtypes.items()
        }
        for field in fields(empty)
    } == wanted
    assert {name: list(columns) for name, columns in dtypes(empty).items()} == {
        name: list(columns) for name, columns in wanted.items()
    }
    assert list(empty.stages["stage"].cat.categories) == list(STAGES)
    assert list(empty.rehearsals["verdict"].cat.categories) == [item.value for item in Verdict]
    assert all(len(getattr(empty, field.name)) == 0 for field in fields(empty))


def test_one_row_for_each_thing(verified: Record, failed: Record, cancelled: Record) -> None:
    all_of = frames(iter([verified, failed, cancelled]))
    lengths = {field.name: len(getattr(all_of, field.name)) for field in fields(all_of)}
    assert lengths == {
        "rehearsals": 3,
        "stages": 24,
        "steps": 2,
        "checks": 4,
        "findings": 2,
        "uses": 9,
        "lifecycle": 2,
    }


def test_values_and_what_is_not_known_is_missing(verified: Record, cancelled: Record) -> None:
    table = frames([verified, cancelled]).rehearsals.set_index("rehearsal_id")
    good, unknown = table.iloc[0], table.iloc[1]
    assert good["rta"] == pd.Timedelta(seconds=12)
    assert good["rpa"] == pd.Timedelta(milliseconds=500)
    assert good["declared_at"] == pd.Timestamp("2026-07-01T12:00:18Z")
    assert good["duration"] == pd.Timedelta(seconds=31.2)
    assert (good["exit_code"], unknown["exit_code"]) == (0, 2)
    for name in ("declared_at", "rta", "rto_met", "transactions_lost", "backup_bytes", "duration"):
        assert pd.isna(unknown[name]), name
    assert unknown["rto"] == pd.Timedelta(seconds=60)


def test_questions_that_frames_are_for(verified: Record, failed: Record) -> None:
    all_of = frames([verified, failed])
    stages = all_of.stages[all_of.stages["rehearsal_id"] == verified.rehearsal_id]
    assert stages["rta"].sum() == pd.Timedelta(seconds=11.9)
    assert stages["stage"].iloc[stages["rta"].argmax()] == "restore"
    restore = stages[stages["stage"] == "restore"].iloc[0]
    assert restore["bytes_per_second"] == 171_000_000 / 6.5
    assert list(stages.sort_values("stage")["stage"][:3]) == ["preflight", "snapshot", "transfer"]
    late = all_of.uses[all_of.uses["after_declaration"]]
    assert not (late["role"] == "source").any()
    assert late["domain"].isna().sum() == 2
    worst = all_of.findings.sort_values("severity").iloc[0]
    assert (worst["id"], worst["stage"]) == ("object-corrupt", "restore")
    joined = all_of.checks.merge(all_of.rehearsals, on="rehearsal_id")
    assert (joined.loc[joined["verdict"] == "verified", "status"] == "passed").all()


def test_any_number(many: Callable[[int], list[Record]]) -> None:
    all_of = frames(many(2000))
    assert len(all_of.stages) == 16_000
    per_stage = all_of.stages.groupby("stage", observed=True)["duration"].median()
    assert per_stage["restore"] == pd.Timedelta(seconds=6.5)


# -- lifecycle ------------------------------------------------------------------------------------

CAUSES = ("tool-missing", "clock-skew")
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Night:
    """A rehearsal: how many stages it completed, before one failed, and what it met in which."""

    plan: str
    completed: int
    met: dict[str, str]

    def record(self, day: int) -> Record:
        states = [StageState.COMPLETED] * self.completed + [StageState.FAILED]
        states += [StageState.SKIPPED] * len(STAGES)
        return Record(
            rehearsal_id=f"r{day}",
            plan=PlanSummary(self.plan, "", "postgres", "east", "west"),
            verdict=Verdict.FAILED,
            started_at=NOON + timedelta(days=day),
            ended_at=None,
            stages=tuple(map(Stage, STAGES, states)),
            findings=tuple(
                finding(finding_id, "db1", "seen", stage) for finding_id, stage in self.met.items()
            ),
        )


def expected(nights: list[Night], cause: str) -> tuple[str, int] | None:
    """State and number of rehearsals of one cause, read off a string: m for met, - for looked."""
    story, where = "", ""
    for night in nights:
        if cause in night.met:
            where = night.met[cause]
            story += "m"
        elif story and where in STAGES[: night.completed]:
            story += "-"
    if not story:
        return None
    endings = {"-": "fixed", "-m": "regressed", "mm": "recurring"}
    state = next((state for end, state in endings.items() if story.endswith(end)), "new")
    return state, story.count("m")


@given(
    st.lists(
        st.builds(
            Night,
            plan=st.sampled_from(["shop", "bank"]),
            completed=st.integers(0, len(STAGES)),
            met=st.dictionaries(st.sampled_from(CAUSES), st.sampled_from(STAGES)),
        ),
        max_size=12,
    ),
    st.randoms(),
)
@settings(deadline=None)
def test_lifecycle_is_what_the_history_shows_in_whatever_order_it_is_read(
    nights: list[Night], random: Random
) -> None:
    records = [night.record(day) for day, night in enumerate(nights)]
    random.shuffle(records)
    table = lifecycle(records)
    found = {(row.plan, row.id): (row.state, row.rehearsals) for row in table.itertuples()}
    stories = {
        (plan, cause): expected([night for night in nights if night.plan == plan], cause)
        for plan in ("shop", "bank")
        for cause in CAUSES
    }
    assert found == {key: story for key, story in stories.items() if story}


def test_lifecycle_tells_of_the_newest_meeting() -> None:
    first = Night("shop", 8, {"clock-skew": "preflight"}).record(0)
    (item,) = first.findings
    accepted = replace(
        item, severity=Severity.MEDIUM, accepted=Acceptance("old", date(2027, 3, 31))
    )
    second = replace(first, started_at=NOON + timedelta(days=1), findings=(accepted,))
    (row,) = lifecycle([second, first]).to_dict("records")
    assert (row["first_seen"], row["last_seen"]) == (NOON, NOON + timedelta(days=1))
    assert (row["state"], row["severity"]) == ("recurring", "medium")
    assert row["accepted_until"] == pd.Timestamp("2027-03-31")
    assert row["remedy"] == item.remedy


@pytest.mark.parametrize(("rta", "state"), [(None, "new"), (5.0, "fixed")])
def test_an_objective_is_kept_again_only_if_the_actual_is_known(
    rta: float | None, state: str
) -> None:
    late = Night("shop", 8, {"rto-missed": "verify"}).record(0)
    later = replace(Night("shop", 8, {}).record(1), rta_seconds=rta, rto_seconds=60.0)
    assert list(lifecycle([late, later])["state"]) == [state]
