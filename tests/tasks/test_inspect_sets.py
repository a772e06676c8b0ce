"""What preflight tells of earlier records, and of the key that signs them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.artifact.signing import generate_signing_key, public_key_of
from blocks.binding import KnownState
from blocks.errors import PermanentError
from blocks.evidence.findings import Severity
from blocks.evidence.record import BackupSetSummary, Record
from blocks.evidence.signature import sign
from tasks.inspect_sets import known_state, record_signer
from tasks.inspection import Inspection
from tests.tasks.sites import NOW, RECORD_KEY

SIGNER = public_key_of(RECORD_KEY)


@pytest.fixture
def rehearsal(tmp_path: Path) -> Any:
    """A rehearsal of a plan with a vault; what that holds is `secret`."""
    made = SimpleNamespace(secret=RECORD_KEY, options=SimpleNamespace(results=tmp_path))
    keys = SimpleNamespace(record_key="record-key", record_signer=SIGNER)
    made.plan = SimpleNamespace(name="shop", keys=keys)
    made.recovery = SimpleNamespace(secret=lambda _: SecretStr(made.secret))
    return made


def saved(rehearsal: Any, record: Record, number: int, key: str | None = RECORD_KEY) -> None:
    told = BackupSetSummary("r9", NOW, 1, "latest", log_sequence=number)
    plan = replace(record.plan, name="shop")
    made = replace(record, rehearsal_id=f"of-{number}", plan=plan, backup_set=told)
    path = made.save(rehearsal.options.results)
    if key is not None:
        sign(path, SecretStr(key))


def test_what_is_known_of_a_set(rehearsal: Any, verified: Record) -> None:
    seen = Inspection()
    assert known_state(rehearsal, "r9", seen) is None
    saved(rehearsal, verified, 3)
    saved(rehearsal, verified, 2)
    assert known_state(rehearsal, "r9", seen) == KnownState("r9", 3)
    assert known_state(rehearsal, "r8", seen) is None
    assert seen.unseen == []


def test_that_records_do_not_count_is_said(rehearsal: Any, verified: Record) -> None:
    saved(rehearsal, verified, 2)
    saved(rehearsal, verified, 3, None)
    (rehearsal.options.results / "x.json").mkdir()
    seen = Inspection()
    assert known_state(rehearsal, "r9", seen) == KnownState("r9", 2)
    (text,) = seen.unseen
    assert text.startswith("whether set r9 has been further than the store says: ")
    assert "of-3.json" in text
    assert "x.json" in text


def test_that_no_record_can_be_read_is_said(rehearsal: Any) -> None:
    rehearsal.plan.keys.record_signer = None
    (rehearsal.options.results / "x.json").write_text("[" * 100_000)
    seen = Inspection()
    assert known_state(rehearsal, "r9", seen) is None
    (text,) = seen.unseen
    assert "x.json" in text


def test_a_signer_that_is_not_that_of_the_key_is_found(rehearsal: Any) -> None:
    assert list(record_signer(rehearsal)) == []
    rehearsal.secret = generate_signing_key()
    (found,) = record_signer(rehearsal)
    assert (found.id, found.subject) == ("key-stale", "record-key")
    assert found.severity is Severity.MEDIUM
    assert SIGNER in found.evidence
    assert public_key_of(rehearsal.secret) in found.evidence
    assert rehearsal.secret not in found.evidence
    rehearsal.plan.keys.record_signer = None
    assert list(record_signer(rehearsal)) == []


def test_a_key_that_is_none_is_found_and_one_that_is_not_there_is_found_elsewhere(
    rehearsal: Any,
) -> None:
    rehearsal.secret = "a password"
    (found,) = record_signer(rehearsal)
    assert "a password" not in found.evidence

    def missing(_: str) -> SecretStr:
        raise PermanentError("locked")

    rehearsal.recovery.secret = missing
    assert list(record_signer(rehearsal)) == []
