"""What preflight tells of earlier records, and of the key that signs them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.artifact.signing import generate_signing_key, public_key_of, sign_bytes
from blocks.errors import PermanentError
from blocks.evidence.catalogue import Severity
from blocks.evidence.record import BackupSetSummary, Record
from blocks.evidence.signature import sign
from blocks.hosts.local import LocalHost
from blocks.repositories.farside.binding import ForeignSet, KnownState
from blocks.stores.store import ObjectInfo, StoreUnavailable
from blocks.vaults.host import HostVault
from tasks.inspect.inspection import Inspection
from tasks.inspect.sets import known_state, locked_keys, locked_secrets, record_signer
from tests.tasks.sites import NOW, OTHER, RECORD_KEY

SIGNER = public_key_of(RECORD_KEY)


MADE = "r20260701-120000-aaaaaa"


class Store:
    """A store of a few objects; `lost` is raised by all of it, and `read` is what was read."""

    domain = "west"

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.read: list[str] = []
        self.lost: Exception | None = None

    def objects(self, prefix: str) -> list[ObjectInfo]:
        if self.lost:
            raise self.lost
        return [ObjectInfo(key, 1, NOW, "STANDARD") for key in self.held if key.startswith(prefix)]

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return self.held[key]


@pytest.fixture
def rehearsal(tmp_path: Path) -> Any:
    """A rehearsal of a plan with a vault; what that holds is `secret`."""
    made = SimpleNamespace(secret=RECORD_KEY, options=SimpleNamespace(results=tmp_path))
    keys = SimpleNamespace(record_key="record-key", record_signer=SIGNER)
    made.recovery = SimpleNamespace(
        name="west", store=Store(), secret=lambda _: SecretStr(made.secret)
    )
    made.plan = SimpleNamespace(name="shop", keys=keys, recovery=made.recovery)
    return made


def telling(record: Record, rehearsal_id: str, of: str, number: int | None) -> Record:
    """The record of a rehearsal that saw a set at an index of its log."""
    plan = replace(record.plan, name="shop")
    told = BackupSetSummary(of, NOW, 1, "latest", log_sequence=number)
    return replace(record, rehearsal_id=rehearsal_id, plan=plan, backup_set=told)


def saved(rehearsal: Any, record: Record, number: int | None, key: str | None = RECORD_KEY) -> None:
    path = telling(record, f"of-{number}", "r9", number).save(rehearsal.options.results)
    if key is not None:
        sign(path, SecretStr(key))


def stored(rehearsal: Any, record: Record, key: str = RECORD_KEY) -> None:
    """Put it into the recovery store."""
    document, name = record.to_json().encode(), f"records/shop/{record.rehearsal_id}.json"
    rehearsal.recovery.store.held |= {name: document, f"{name}.sig": sign_bytes(document, key)}


def test_what_is_known_of_a_set(rehearsal: Any, verified: Record) -> None:
    saved(rehearsal, verified, 3)
    saved(rehearsal, verified, 2)
    seen = Inspection()
    assert known_state(rehearsal, "r9", seen) == KnownState("r9", 3)
    assert seen.unseen == []


@pytest.mark.parametrize("number", [None, 3])
def test_that_no_record_tells_of_a_set_is_said(
    rehearsal: Any, verified: Record, number: int | None
) -> None:
    """Also where a rehearsal of it did not come to its log."""
    saved(rehearsal, verified, number)
    set_id = "r9" if number is None else "r8"
    seen = Inspection()
    assert known_state(rehearsal, set_id, seen) is None
    assert seen.unseen == [
        f"whether set {set_id} has been further than the store says: no earlier record tells of it"
    ]


def test_a_set_that_was_rolled_back_is_noticed_by_a_worker_whose_folder_is_new(
    rehearsal: Any, verified: Record
) -> None:
    """The recovery store holds the records as well; those from before the set are not read."""
    before, after = "r20260701-115959-ffffff", "r20260702-120000-000000"
    stored(rehearsal, telling(verified, before, "other", 9))
    stored(rehearsal, telling(verified, MADE, MADE, 4))
    stored(rehearsal, telling(verified, after, MADE, 7))
    seen = Inspection()
    known = known_state(rehearsal, MADE, seen)
    assert known == KnownState(MADE, 7)
    with pytest.raises(ForeignSet, match="the index of its log is number 6; number 7"):
        known.compare("x", 6)
    assert seen.unseen == []
    read = {key.split("/")[2].split(".")[0] for key in rehearsal.recovery.store.read}
    assert read == {MADE, after}


def test_the_store_s_records_are_read_within_bounds(
    rehearsal: Any, verified: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.evidence.MOST_STORED", 2)
    for day in range(1, 6):
        stored(rehearsal, telling(verified, f"r2026070{day}-130000-000000", MADE, day))
    seen = Inspection()
    assert known_state(rehearsal, MADE, seen) == KnownState(MADE, 5)
    assert len(rehearsal.recovery.store.read) == 4
    (text,) = seen.unseen
    assert "west store: 3 older ones, which were not read" in text


def test_a_store_that_shows_no_record_is_said_and_the_folder_counts(
    rehearsal: Any, verified: Record
) -> None:
    saved(rehearsal, verified, 2)
    rehearsal.recovery.store.lost = StoreUnavailable("it hangs up", domain="west")
    seen = Inspection()
    assert known_state(rehearsal, "r9", seen) == KnownState("r9", 2)
    (text,) = seen.unseen
    assert text.endswith("no record in the west store could be asked: west: it hangs up")


def test_that_records_do_not_count_is_said(rehearsal: Any, verified: Record) -> None:
    saved(rehearsal, verified, 2)
    saved(rehearsal, verified, 3, None)
    stored(rehearsal, telling(verified, "of-4", "r9", 4), OTHER)
    (rehearsal.options.results / "x.json").mkdir()
    seen = Inspection()
    assert known_state(rehearsal, "r9", seen) == KnownState("r9", 2)
    (text,) = seen.unseen
    assert text.startswith("whether set r9 has been further than the store says: ")
    assert "of-3.json" in text
    assert "x.json" in text
    assert "west store, records/shop/of-4.json: the signature is" in text


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


def test_every_secret_that_the_plan_uses_may_be_locked(tmp_path: Path) -> None:
    """Keys stand in the way of a restore; whether another secret is of use shows later."""
    beginnings = {
        "identity": "age-encryption.org/v1\n",
        "record-key": "$ANSIBLE_VAULT;1.1;AES256\n",
        "shop-password": "vault:v1:8SDd3WHDOjf7mq69CyCq\n",
        "card-key": '{"data": "ENC[AES256_GCM,data:p673w==]"}',
        "unused": "-----BEGIN PGP MESSAGE-----\n",
        "root-password": "a password",
    }
    for name, text in beginnings.items():
        (tmp_path / name).write_text(text)
    plan = SimpleNamespace(
        keys=SimpleNamespace(identity="identity", record_key="record-key"),
        engine=SimpleNamespace(passwords=("shop-password", "root-password", "no-such")),
        secrets=[SimpleNamespace(secret="card-key"), SimpleNamespace(secret="identity")],
    )
    vault = HostVault(host=LocalHost(), directory=str(tmp_path))
    made: Any = SimpleNamespace(plan=plan, recovery=SimpleNamespace(vault=vault))
    for look, severity, names in (
        (locked_keys, Severity.CRITICAL, ["identity", "record-key"]),
        (locked_secrets, Severity.MEDIUM, ["shop-password", "card-key"]),
    ):
        found = list(look(made))
        assert [item.subject for item in found] == names
        assert {(item.id, item.severity) for item in found} == {("key-chain-in-source", severity)}
    assert "by SOPS" in found[-1].evidence
    made.recovery.vault = None
    assert [*locked_keys(made), *locked_secrets(made)] == []
