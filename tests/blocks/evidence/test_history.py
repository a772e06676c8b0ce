"""History: with a pinned signer only what it signed counts, and what is left out is said."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.artifact.signing import (
    KeyMalformed,
    SignatureRefused,
    generate_signing_key,
    public_key_of,
)
from blocks.evidence.history import history
from blocks.evidence.record import PlanSummary, Record, Verdict
from blocks.evidence.signature import load_signed, sign, signature_path

KEY = generate_signing_key()
SIGNER = public_key_of(KEY)
FIRST = Record(
    rehearsal_id="r1",
    plan=PlanSummary("shop", "", "postgres", "east", "west"),
    verdict=Verdict.VERIFIED,
    started_at=datetime(2026, 7, 1, 12, tzinfo=UTC),
    ended_at=None,
)


def saved(folder: Path, record: Record, key: str | None = KEY) -> Path:
    path = record.save(folder)
    if key is not None:
        sign(path, SecretStr(key))
    return path


def test_only_signed_records_of_the_plan_count(tmp_path: Path) -> None:
    later = replace(FIRST, rehearsal_id="r2", started_at=FIRST.started_at + timedelta(days=1))
    saved(tmp_path, later)
    saved(tmp_path, FIRST)
    saved(tmp_path, replace(FIRST, rehearsal_id="r3"), None)
    saved(tmp_path, replace(FIRST, rehearsal_id="r4"), generate_signing_key())
    changed = saved(tmp_path, replace(FIRST, rehearsal_id="r5"))
    changed.write_text(changed.read_text().replace("verified", "failed"))
    bank = replace(FIRST, rehearsal_id="r6", plan=replace(FIRST.plan, name="bank"))
    saved(tmp_path, bank, None)
    (tmp_path / "torn.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "folder.json").mkdir()
    signature_path(saved(tmp_path, replace(FIRST, rehearsal_id="r7"), None)).mkdir()
    found = history(tmp_path, "shop", SIGNER)
    assert [item.rehearsal_id for item in found.records] == ["r1", "r2"]
    assert [text.partition(":")[0] for text in found.left_out] == [
        "deep.json",
        "folder.json",
        "r3.json",
        "r4.json",
        "r5.json",
        "r7.json",
        "torn.json",
    ]


def test_nothing_is_parsed_that_is_not_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, FIRST)
    changed = saved(tmp_path, replace(FIRST, rehearsal_id="r2"))
    changed.write_text("changed")
    read = list[str]()
    parse = Record.from_json

    def from_json(text: str | bytes, origin: str = "") -> Record:
        read.append(Path(origin).name)
        return parse(text, origin)

    monkeypatch.setattr(Record, "from_json", from_json)
    with pytest.raises(SignatureRefused):
        load_signed(changed, SIGNER)
    assert read == []
    with pytest.raises(KeyMalformed):
        history(tmp_path, "shop", "no key")


def test_without_a_pinned_signer_all_count(tmp_path: Path) -> None:
    saved(tmp_path, FIRST, None)
    assert history(tmp_path, "shop", None).records == (FIRST,)
    assert history(tmp_path / "none", "shop", SIGNER).records == ()
