"""The record: what is written is what is read, and the verdict never flatters."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import PermanentError
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Acceptance, Finding, finding
from blocks.evidence.record import (
    SCHEMA_VERSION,
    STAGES,
    BackupSetSummary,
    Check,
    CheckStatus,
    Counterpart,
    Node,
    PlanSummary,
    Record,
    RecordMalformed,
    RecordTooNew,
    SourceNode,
    Stage,
    StageState,
    Topology,
    Verdict,
    json_schema,
    load,
    load_all,
)
from blocks.evidence.verdict import exit_code, verdict_of

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
PLAN = PlanSummary("shop", "ab" * 32, "postgres", "east", "west")


def record(**fields: object) -> Record:
    """A record with nothing known but what is given."""
    basis: dict[str, object] = {
        "rehearsal_id": "r1",
        "plan": PLAN,
        "verdict": Verdict.VERIFIED,
        "started_at": NOON,
        "ended_at": None,
    }
    return Record(**{**basis, **fields})  # type: ignore[arg-type]


# What a record can hold: finite numbers, times with any zone.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(
    datetime,
    st.datetimes(
        timezones=st.builds(timezone, st.integers(-720, 720).map(lambda m: timedelta(minutes=m))),
        min_value=datetime(1990, 1, 1),
        max_value=datetime(2200, 1, 1),
    ),
)


@given(st.builds(Record, schema_version=st.just(SCHEMA_VERSION)))
@settings(max_examples=60, deadline=None)
def test_any_record_survives_its_file(original: Record) -> None:
    text = original.to_json()
    again = Record.from_json(text)
    assert again == original
    assert again.to_json() == text
    jsonschema.validate(json.loads(text), json_schema())


def test_document_has_the_promised_fields_and_null_for_what_is_unknown() -> None:
    document = json.loads(
        record(
            backup_set=BackupSetSummary("s1", None, None, "latest"),
            stages=(Stage("verify", StageState.SKIPPED),),
        ).to_json()
    )
    assert next(iter(document)) == "schema_version"
    assert set(document) >= {
        *("schema_version", "rehearsal_id", "plan", "verdict", "declared_at", "usable_at"),
        *("rta_seconds", "rto_seconds", "rpa_seconds", "rpo_seconds", "transactions_lost"),
        *("backup_set", "stages", "checks", "findings", "uses", "topology", "not_verified"),
        *("runbook", "versions", "trigger"),
    }
    for unknown in ("declared_at", "rta_seconds", "rpa_seconds", "transactions_lost"):
        assert document[unknown] is None
    assert document["backup_set"]["bytes"] is None
    assert document["stages"][0]["seconds"] is None
    assert set(document["topology"]) == {
        *("predicted", "observed", "difference", "source", "mapping")
    }
    assert set(document["topology"].values()) == {None}


def test_the_record_has_the_difference_and_an_older_one_is_read() -> None:
    a, b = Node("a", "member", "10.2.0.1", 2379), Node("b", "member", "10.2.0.2", 2379)
    shape = Topology(
        (a, b), (a,), (SourceNode("a", "member"),), (Counterpart("a", "a"), Counterpart(None, "b"))
    )
    original = record(topology=shape)
    document = json.loads(original.to_json())
    assert document["topology"]["difference"] == [
        {"host": "b", "predicted": document["topology"]["predicted"][1], "observed": None}
    ]
    assert Record.from_json(original.to_json()) == original
    for later in ("difference", "source", "mapping"):
        del document["topology"][later]
    older = Record.from_json(json.dumps(document)).topology
    assert older == Topology((a, b), (a,))
    assert older.as_predicted is False


def test_times_are_utc_with_z_and_a_time_without_zone_is_refused() -> None:
    local = NOON.astimezone(timezone(timedelta(hours=2)))
    assert json.loads(record(started_at=local).to_json())["started_at"] == "2026-07-01T12:00:00Z"
    with pytest.raises(Exception, match="without an offset"):
        record(started_at=datetime(2026, 7, 1)).to_json()


def test_fields_of_a_later_farside_are_no_obstacle_but_a_later_schema_is() -> None:
    document = json.loads(record().to_json())
    assert Record.from_json(json.dumps({**document, "mood": "good"})) == record()
    with pytest.raises(RecordTooNew, match=r"schema 2; this farside reads up to 1.*newer farside"):
        Record.from_json(json.dumps({**document, "schema_version": 2}), origin="r1.json")


def test_a_record_from_before_there_were_accepted_risks_is_read() -> None:
    document = json.loads(record(findings=(MAJOR,)).to_json())
    assert document["findings"][0].pop("accepted") is None
    assert Record.from_json(json.dumps(document)).findings[0].accepted is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON document"),
        ('{"schema_version": 1', "not a JSON document"),
        ("[]", "no schema_version"),
        ('{"schema_version": "1"}', "no schema_version"),
        ('{"schema_version": 1}', "rehearsal_id: Field required"),
    ],
)
def test_what_is_no_record_is_named_with_file_and_place(text: str, message: str) -> None:
    with pytest.raises(RecordMalformed, match=rf"r9\.json.*{message}"):
        Record.from_json(text, origin="r9.json")


def test_records_are_saved_whole_and_loaded_oldest_first(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "rehearsals"
    assert load_all(folder) == []
    late = record(rehearsal_id="a", started_at=NOON + timedelta(hours=1))
    early = record(rehearsal_id="b")
    paths = [item.save(folder) for item in (late, early, early)]
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json"]
    assert load_all(folder) == [early, late]
    assert load(paths[0]) == late


def test_a_broken_file_is_never_skipped(tmp_path: Path) -> None:
    record().save(tmp_path)
    (tmp_path / "torn.json").write_text('{"schema_version": 1, "rehearsal')
    with pytest.raises(RecordMalformed, match=r"torn\.json"):
        load_all(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match=r"file/r1\.json.*next: name a folder"):
        record().save(tmp_path / "file")
    with pytest.raises(PermanentError, match="cannot name a file"):
        record(rehearsal_id="../r1").save(tmp_path)
    with pytest.raises(PermanentError, match=r"none\.json"):
        load(tmp_path / "none.json")


def test_breakdown_of_the_rta_covers_it_and_nothing_else() -> None:
    def stage(name: str, start: float, end: float) -> Stage:
        began, ended = NOON + timedelta(seconds=start), NOON + timedelta(seconds=end)
        return Stage(name, StageState.COMPLETED, began, ended, end - start, 1)

    stages = (
        stage("transfer", 0, 5),
        stage("declare", 5, 8),
        stage("restore", 8, 20),
        stage("verify", 20, 25),
        stage("teardown", 25, 30),
    )
    usable = record(
        declared_at=NOON + timedelta(seconds=6),
        usable_at=NOON + timedelta(seconds=24.5),
        stages=stages,
    )
    assert usable.rta_breakdown() == {"declare": 2.0, "restore": 12.0, "verify": 4.5}
    never = record(declared_at=NOON + timedelta(seconds=6), stages=stages)
    assert never.rta_breakdown() == {"declare": 2.0, "restore": 12.0, "verify": 5.0}
    assert record(stages=stages).rta_breakdown() == {}


DONE, BROKEN, LEFT_OUT, STOPPED = StageState


def ran(**states: StageState) -> tuple[Stage, ...]:
    """All stages completed, but for those given."""
    named = {name.replace("_", " "): state for name, state in states.items()}
    return tuple(Stage(name, named.get(name, DONE)) for name in STAGES)


def asked(*statuses: str) -> tuple[Check, ...]:
    """Checks that ended so."""
    return tuple(Check(f"c{n}", CheckStatus(status)) for n, status in enumerate(statuses))


NEVER_DECLARED = dict.fromkeys(("declare", "key_fetch", "restore", "verify"), LEFT_OUT)
CRITICAL = finding("tool-missing", "zstd", "not found", "preflight")
MAJOR = finding("rto-missed", "shop", "75 s", "verify")
LEANING = finding("address-hard-coded", "shop: notify()", "10.1.0.5", "verify")
MINOR = finding("leftovers", "west/db1", "of r1", "preflight")


def lived_with(item: Finding) -> Finding:
    """That finding, accepted."""
    return replace(item, accepted=Acceptance("moved in Q1", date(2027, 3, 31)))


@pytest.mark.parametrize(
    ("stages", "checks", "findings", "verdict"),
    [
        (ran(), asked("passed", "passed"), (), "verified"),
        (ran(teardown=LEFT_OUT), asked("passed"), (MAJOR,), "verified"),
        (ran(), asked("passed", "unknown"), (), "partial"),
        (ran(teardown=BROKEN), asked("passed"), (), "partial"),
        (ran(), asked("unknown"), (), "could-not-verify"),
        (ran(), (), (), "could-not-verify"),
        (ran(verify=STOPPED), asked("passed"), (), "could-not-verify"),
        (ran(verify=LEFT_OUT), asked("passed"), (), "could-not-verify"),
        (ran(transfer=BROKEN, **NEVER_DECLARED), (), (), "could-not-verify"),
        (ran(transfer=BROKEN, **NEVER_DECLARED), (), (CRITICAL,), "failed"),
        (ran(restore=BROKEN, verify=LEFT_OUT), (), (), "failed"),
        (ran(), asked("passed", "unknown", "failed"), (), "failed"),
        (ran(verify=STOPPED), asked("failed"), (), "failed"),
        (ran(), asked("passed"), (CRITICAL,), "failed"),
        (ran(), asked("passed"), (LEANING,), "failed"),
        (ran(), asked("passed"), (MINOR,), "verified"),
        (ran(), asked("passed"), (lived_with(CRITICAL), lived_with(LEANING)), "verified"),
        (ran(), asked("passed"), (lived_with(CRITICAL), LEANING), "failed"),
        (ran(), asked("failed"), (lived_with(CRITICAL),), "failed"),
        ((), (), (), "could-not-verify"),
    ],
)
def test_verdict_is_the_worst_that_the_evidence_shows(
    stages: tuple[Stage, ...],
    checks: tuple[Check, ...],
    findings: tuple[Finding, ...],
    verdict: str,
) -> None:
    assert verdict_of(stages, checks, findings) == verdict


@pytest.mark.parametrize(
    ("verdict", "rta", "rpa", "code"),
    [
        ("verified", 60.0, 0.0, 0),
        ("verified", 60.1, 1.0, 1),
        ("verified", 10.0, 11.0, 1),
        ("verified", 10.0, None, 2),
        ("partial", 10.0, 1.0, 2),
        ("partial", 61.0, 1.0, 1),
        ("could-not-verify", None, None, 2),
        ("failed", None, None, 1),
    ],
)
def test_exit_code(verdict: str, rta: float | None, rpa: float | None, code: int) -> None:
    outcome = record(
        verdict=Verdict(verdict),
        rta_seconds=rta,
        rto_seconds=60.0,
        rpa_seconds=rpa,
        rpo_seconds=10.0,
    )
    assert exit_code(outcome) == code


@pytest.mark.parametrize(
    ("findings", "rta", "code"),
    [
        ((MINOR,), 10.0, 0),
        ((LEANING,), 10.0, 1),
        ((lived_with(LEANING),), 10.0, 0),
        ((MAJOR,), 75.0, 1),
        ((lived_with(MAJOR),), 75.0, 0),
        ((lived_with(MAJOR), LEANING), 75.0, 1),
        ((lived_with(LEANING),), 75.0, 1),
    ],
)
def test_exit_code_counts_what_is_grave_and_not_accepted(
    findings: tuple[Finding, ...], rta: float, code: int
) -> None:
    assert exit_code(record(findings=findings, rta_seconds=rta, rto_seconds=60.0)) == code


def test_without_objectives_a_verified_rehearsal_is_a_success() -> None:
    assert exit_code(record(rta_seconds=5.0)) == 0
    assert record(rta_seconds=5.0).rto_met is None


def test_severities_are_ordered_from_the_worst() -> None:
    assert sorted(Severity, key=lambda severity: severity.rank)[0] is Severity.CRITICAL
