"""Records as pandas frames."""

from collections.abc import Callable
from dataclasses import fields, replace

import pandas as pd

from blocks.evidence.record import Record
from tasks.frames import Frames, frames


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
    assert stages.loc[stages["rta"].idxmax(), "stage"] == "restore"
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
