"""Writes a backup set into the source's store."""

import importlib.metadata
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from pydantic import SecretStr

from blocks.agent.protocol.events import Stored
from blocks.agent.protocol.jobs import FollowJob, SealJob
from blocks.agent.protocol.parts import LogFiles, Source
from blocks.agent.protocol.results import SealResult
from blocks.artifact.manifest import LogIndex, Manifest, SealedObject, header_of, sign
from blocks.domain import FailureDomain
from blocks.errors import PermanentError
from blocks.hosts.host import Host
from blocks.remote.following import Follower
from blocks.remote.leases import StoreLeases
from blocks.remote.run import AgentRun
from blocks.repositories.farside.layout import HEADER, LOG, MANIFEST, Moved, prefix_of, stem
from blocks.stores.store import ObjectStore

READ_RATE = 200 * 10**6
"""Bytes a second at which a source is read, of whatever engine, where the plan says no other."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a capture may cost the source: bytes a second and bytes; None is no limit."""

    rate: int = READ_RATE
    """At which the base backup is read."""
    fast_checkpoint: bool = False
    """Whether it begins with an immediate checkpoint, or waits for one that is spread."""
    spool: int | None = None
    """Log that waits on the backup's host for the store."""
    retained: int | None = None
    """Log that the server keeps because the receiver is behind."""


class FactsLike(Protocol):
    """What an engine knows of a source (see `blocks.engines.facts.Facts`)."""

    def to_json(self) -> Mapping[str, Any]:
        """As it stands in the manifest."""


class CapturedLike(Protocol):
    """What an engine learned while capturing (see `blocks.engines.engine.Captured`)."""

    @property
    def taken_at(self) -> datetime:
        """The moment that the backup is of."""

    @property
    def completed_at(self) -> datetime:
        """When the backup was complete."""

    @property
    def facts(self) -> FactsLike:
        """What was learned about the source meanwhile."""


class SetWriter:
    """A new set in the source's store. Follows the log until it is abandoned or the host dies."""

    def __init__(  # noqa: PLR0913 (each is a value of the set)
        self,
        domain: FailureDomain,
        plan: str,
        rehearsal_id: str,
        recipients: Sequence[str],
        engine: str,
        load: Load | None = None,
    ) -> None:
        self.rehearsal_id = rehearsal_id
        self.store = domain.store
        self.load = load or Load()
        self._domain = domain
        self._plan = plan
        self._recipients = tuple(recipients)
        self._engine = engine
        self._prefix = prefix_of(plan, rehearsal_id)
        self._objects: list[SealedObject] = []
        self._followed: list[tuple[SealedObject, datetime]] = []
        self._follower: Follower | None = None
        self._leases: StoreLeases | None = None
        self._manifest: Manifest | None = None
        self._published: dict[str, LogIndex] = {}
        self._signing_key: SecretStr | None = None
        self._sequence = 0
        self._lock = threading.Lock()
        self._moved: Moved = lambda _count, _of: None

    def begin(self, moved: Moved) -> None:
        """Begin, or begin again after a failure: what an earlier attempt stored is written over."""
        self.abandon()
        self._objects.clear()
        self._followed.clear()
        self._moved = moved

    def work(self, host: Host) -> str:
        """This rehearsal's directory on `host`."""
        return f"{host.work_root}/{self.rehearsal_id}"

    def seal(  # noqa: PLR0913 (each is an option of the job, by name)
        self,
        host: Host,
        argv: Sequence[str],
        *,
        secret: SecretStr,
        sources: Sequence[Source],
        hint: str = "",
        begun: Callable[[], None] = lambda: None,
    ) -> int:
        """Run `argv` on `host` and store its streams, sealed; returns the bytes stored.

        `hint` tells what to do where there are other streams than `sources`. `begun` is called once
        something comes, and again as more does.
        """
        job = SealJob(
            argv=tuple(argv),
            sources=tuple(sources),
            hint=hint,
            recipients=self._recipients,
            secret=secret.get_secret_value(),
            ca_pem=self._domain.store.ca_pem,
            marker=self.work(host),
        )
        leases = StoreLeases(self._domain.store, self._prefix)
        moved = self._moved

        def moving(count: int, of: str) -> None:
            begun()
            moved(count, of)

        with (
            AgentRun(host, self.rehearsal_id, job, leases, moving) as run,
            self.guarding(run.kill),
        ):
            done = run.run().result
        assert isinstance(done, SealResult)
        for item in done.objects:
            _refuse_mistakes(item, host)
        self._objects += done.objects
        return sum(item.sealed_bytes for item in done.objects)

    def guarding(self, end: Callable[[], None]) -> AbstractContextManager[None]:
        """What needs the log: `end` is called once it is not followed any more. See Follower."""
        return nullcontext() if self._follower is None else self._follower.guarding(end)

    def follow(  # noqa: PLR0913 (each is an option of the job, by name)
        self,
        host: Host,
        argv: Sequence[str],
        *,
        secret: SecretStr,
        directory: str,
        files: LogFiles,
        interval: float,
        prepare: Callable[[], None],
        release_argv: Sequence[str],
        check: Callable[[], None],
        released: Callable[[], None],
    ) -> None:
        """Run `argv`, which receives the log into `directory`, and store its `files` as they come.

        `release_argv` gives back what the server keeps for it; the host runs it however this ends.
        That is made by `prepare`, on another thread, once the host is ready to give it back.
        `check` and `released` are Follower's.
        """
        job = FollowJob(
            argv=tuple(argv),
            directory=directory,
            files=files,
            release_argv=tuple(release_argv),
            spool_bytes=self.load.spool,
            recipients=self._recipients,
            interval_seconds=interval,
            secret=secret.get_secret_value(),
            ca_pem=self._domain.store.ca_pem,
            marker=self.work(host),
        )
        self._leases = StoreLeases(
            self._domain.store, self._prefix, partial(self._stored, host), prepare
        )
        self._follower = Follower(host, self.rehearsal_id, job, self._leases, check, released)

    def _stored(self, host: Host, event: Stored) -> None:
        _refuse_mistakes(event.object, host)
        with self._lock:
            self._followed.append((event.object, datetime.now(UTC)))

    def check_follower(self) -> None:
        """Raise what ended the following of the log, if it ended."""
        if self._follower is not None:
            self._follower.check()

    def followed(self, enough: Callable[[SealedObject, datetime], bool]) -> bool:
        """Whether some stored log object, with the time at which it was stored, is `enough`."""
        with self._lock:
            return any(enough(item, at) for item, at in self._followed)

    def finish(self, captured: CapturedLike, signing_key: SecretStr) -> Manifest:
        """Sign and store the manifest: from here on the set is one."""
        manifest = Manifest(
            set_id=self.rehearsal_id,
            rehearsal_id=self.rehearsal_id,
            plan=self._plan,
            engine=self._engine,
            source=self._domain.name,
            taken_at=captured.taken_at,
            completed_at=captured.completed_at,
            recipients=self._recipients,
            objects=tuple(self._objects),
            engine_facts=captured.facts.to_json(),
            farside_version=importlib.metadata.version("farside"),
        )
        self._signing_key = signing_key
        self.publish(self.log(), self._domain.store)
        envelope = sign(manifest, signing_key.get_secret_value())
        header = sign(header_of(manifest, len(envelope)), signing_key.get_secret_value())
        self._domain.store.put(self._prefix + HEADER, header)
        self._domain.store.put(self._prefix + MANIFEST, envelope)
        self._manifest = manifest
        return manifest

    def log(self) -> LogIndex:
        """What of the log is stored now: of each segment the newest object."""
        with self._lock:
            self._sequence += 1
            newest = {stem(item.name): item for item, _ in self._followed}
            objects = tuple(newest.values())
            return LogIndex(
                set_id=self.rehearsal_id,
                sequence=self._sequence,
                updated_at=datetime.now(UTC),
                objects=objects,
            )

    def publish(self, index: LogIndex, store: ObjectStore) -> None:
        """Sign the index of the log and put it into `store`, after the objects that it lists."""
        if self._signing_key is None:
            raise PermanentError("the set is not finished", operation="publish log")
        store.put(self._prefix + LOG, sign(index, self._signing_key.get_secret_value()))
        self._published[store.domain] = index

    def prune(self, store: ObjectStore) -> None:
        """Remove from a complete set what neither its manifest nor its published index names.

        Those are states of unfinished segments, and what an attempt before the last one stored.
        """
        index = self._published.get(store.domain)
        if self._manifest is None or index is None:
            return
        named = (*self._manifest.objects, *index.objects)
        needed = {self._prefix + volume.key for item in named for volume in item.volumes}
        needed |= {self._prefix + name for name in (MANIFEST, HEADER, LOG)}
        listed = (info.key for info in store.objects(self._prefix))
        store.remove([key for key in listed if key not in needed])

    def lose(self) -> None:
        """The source is about to be lost: its store is not called any more."""
        if self._leases is not None:
            self._leases.lose()

    def release(self) -> bool:
        """Stop following the log; whether the source's server keeps nothing for it any more.

        Raises what ended it earlier.
        """
        if self._follower is None:
            return True
        self._follower.check()
        return self._follower.release()

    def abandon(self) -> None:
        """Stop following the log, whatever state its host is in. Idempotent."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.release()
            follower.abandon()


def _refuse_mistakes(item: SealedObject, host: Host) -> None:
    if wrong := item.mistake():
        raise PermanentError(
            f"it says that it stored {item.name[:100]!r}: {wrong}",
            operation="seal",
            domain=host.domain,
            host=host.name,
            hint="do not trust this host until you know why",
        )
