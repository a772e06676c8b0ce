"""The signature of a record."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.artifact.signing import SignatureRefused, generate_signing_key, public_key_of
from blocks.errors import PermanentError
from blocks.evidence.record import PlanSummary, Record, Verdict
from blocks.evidence.signature import RecordUnsigned, load_signed, sign

RECORD = Record(
    rehearsal_id="r1",
    plan=PlanSummary("shop", "ab", "postgres", "east", "west"),
    verdict=Verdict.FAILED,
    started_at=datetime(2026, 7, 1, tzinfo=UTC),
    ended_at=None,
)


def test_a_signed_record_is_accepted_and_a_better_verdict_is_not(tmp_path: Path) -> None:
    key = generate_signing_key()
    path = RECORD.save(tmp_path)
    with pytest.raises(RecordUnsigned, match=r"r1\.json\.sig"):
        load_signed(path, public_key_of(key))
    signed = sign(path, SecretStr(key))
    assert signed == tmp_path / "r1.json.sig"
    assert load_signed(path, public_key_of(key)) == RECORD
    with pytest.raises(SignatureRefused):
        load_signed(path, public_key_of(generate_signing_key()))
    path.write_text(path.read_text().replace('"failed"', '"verified"'))
    with pytest.raises(SignatureRefused):
        load_signed(path, public_key_of(key))


def test_what_cannot_be_signed_says_why_without_the_key(tmp_path: Path) -> None:
    path = RECORD.save(tmp_path)
    with pytest.raises(PermanentError) as error:
        sign(path, SecretStr("ed25519-secret:c2VjcmV0"))
    assert "c2VjcmV0" not in str(error.value)
    with pytest.raises(PermanentError, match=r"none\.json"):
        sign(tmp_path / "none.json", SecretStr(generate_signing_key()))
