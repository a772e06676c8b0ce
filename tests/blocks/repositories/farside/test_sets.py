"""What pruning leaves of a set, in a real store: all that it is read by, and no more."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from blocks.agent.protocol.events import Stored
from blocks.agent.protocol.parts import Source
from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.artifact.manifest import generate_signing_key, public_key_of
from blocks.artifact.objects import Part, SealedObject, Volume
from blocks.domain import FailureDomain
from blocks.engines.command.facts import CommandFacts
from blocks.engines.engine import Captured
from blocks.hosts.local import LocalHost
from blocks.repositories.farside.binding import Binding
from blocks.repositories.farside.reader import SetReader
from blocks.repositories.farside.writer import SetWriter
from blocks.stores.s3 import S3Store
from tests.conftest import S3

KEY = generate_signing_key()
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SEGMENT = "wal/000000010000000000000007"


@dataclass(frozen=True)
class Writing:
    """A set that is being written, in a store that keeps its objects as files of `folder`."""

    writer: SetWriter
    domain: FailureDomain
    host: LocalHost
    folder: Path

    def seal(self, name: str) -> None:
        self.writer.seal(
            self.host,
            ["echo", "rows"],
            secret=SecretStr(""),
            sources=[Source(name=name, kind="stdout")],
        )

    def follow(self, *names: str) -> None:
        """What the follower stores, and tells."""
        for name in names:
            self.domain.store.put(f"sets/shop/r1/{name}", name.encode())
        self.tell(*names)

    def tell(self, *names: str) -> None:
        for name in names:
            size = len(name)
            volume = Volume(name, size, (Part(size, "0" * 64),))
            sealed = SealedObject(name, 1, size, (volume,))
            self.writer._stored(self.host, Stored(object=sealed, segment_time=0.0))

    def finish(self) -> None:
        self.writer.finish(Captured(NOW, NOW, CommandFacts("7.0", 1)), SecretStr(KEY))

    def names(self) -> set[str]:
        """Every object of the set."""
        listed = self.domain.store.objects("sets/shop/r1/")
        return {info.key.removeprefix("sets/shop/r1/") for info in listed}

    def defects(self) -> list[Any]:
        """What its own manifest and index name and the store does not hold."""
        binding = Binding("shop", "postgres", "east", (public_key_of(KEY),))
        reader = SetReader(self.domain, binding, "r1", "r2")
        return list(reader.defects((*reader.manifest().objects, *reader.log().objects)))


@pytest.fixture
def writing(s3: S3, tmp_path: Path) -> Iterator[Writing]:
    prefix = uuid4().hex
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[default]\naws_access_key_id={s3.access_key}\naws_secret_access_key={s3.secret_key}\n"
    )
    host = LocalHost(name="db1", work_dir=str(tmp_path / "work"))
    store = S3Store(
        endpoint=s3.endpoint,
        bucket=s3.bucket,
        prefix=prefix,
        ca_file=s3.ca_file,
        credentials_file=credentials,
    )
    domain = FailureDomain(name="east", hosts=[host], store=store)
    recipients = [recipient_of(generate_identity())]
    writer = SetWriter(domain, "shop", "r1", recipients, "postgres")
    yield Writing(writer, domain, host, s3.directory / prefix / "sets/shop/r1")
    domain.close()


def state(number: int) -> str:
    return f"{SEGMENT}.partial-{number:06}.zst.age"


def test_what_an_attempt_before_stored_goes(writing: Writing) -> None:
    writer = writing.writer
    writer.begin(lambda _count, _of: None)
    writing.seal("base.of-a-primary.age")
    writing.follow(state(1), state(2))
    writer.begin(lambda _count, _of: None)
    writing.seal("base.age")
    writing.follow(state(1))
    writing.finish()
    assert {"base.of-a-primary.age.000", state(2)} <= writing.names()
    writer.prune(writing.domain.store)
    assert writing.names() == {"base.age.000", state(1), "header.json", "log.json", "manifest.json"}
    assert writing.defects() == []


def test_what_the_stores_own_index_names_stays(writing: Writing) -> None:
    """Also where the writer knows of newer states: the index is what the set is read by."""
    writing.seal("base.age")
    writing.follow(state(1), state(2))
    writing.finish()
    writing.follow(state(3), f"{SEGMENT}.zst.age")
    writing.writer.prune(writing.domain.store)
    assert state(2) in writing.names()
    assert state(1) not in writing.names()
    assert writing.defects() == []
    writing.follow(f"{SEGMENT}.zst.age")
    writing.writer.publish(writing.writer.log(), writing.domain.store)
    writing.writer.prune(writing.domain.store)
    assert {name for name in writing.names() if name.startswith("wal/")} == {f"{SEGMENT}.zst.age"}
    assert writing.defects() == []


def test_a_set_that_is_not_finished_is_not_pruned(writing: Writing) -> None:
    writing.seal("base.age")
    writing.follow(state(1), state(2))
    writing.writer.prune(writing.domain.store)
    assert writing.names() == {"base.age.000", state(1), state(2)}


def test_an_hour_of_states_goes_in_a_few_requests(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that stays open has a state a second."""
    states = [state(number) for number in range(1, 2502)]
    (writing.folder / "wal").mkdir(parents=True)
    for name in states:
        (writing.folder / name).write_text(name)
    writing.tell(*states)
    writing.finish()
    requests: list[str] = []
    real = S3Store._call

    def call(store: S3Store, operation: str, key: str) -> Any:
        requests.append(operation)
        return real(store, operation, key)

    monkeypatch.setattr(S3Store, "_call", call)
    writing.writer.prune(writing.domain.store)
    assert requests == ["list", "remove", "remove", "remove"]
    requests.clear()
    writing.writer.prune(writing.domain.store)
    assert requests == ["list"]
    assert {name for name in writing.names() if name.startswith("wal/")} == {states[-1]}
