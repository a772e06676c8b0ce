"""Backup sets in a store: written in the source, copied across, read in the recovery domain.

sets/PLAN/SET_ID/manifest.json      signed; a set without one is unfinished
sets/PLAN/SET_ID/header.json        signed; the manifest in short, for lists
sets/PLAN/SET_ID/log.json           signed; what of the log has been stored so far
sets/PLAN/SET_ID/base.tar.zst.age.000, ...
sets/PLAN/SET_ID/wal/...
"""

import importlib.metadata
import random
import re
import secrets
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from pydantic import SecretStr

from blocks.agent import stamp
from blocks.agent.protocol import (
    ClaimJob,
    CopyJob,
    OpenItem,
    OpenJob,
    OpenResult,
    SealJob,
    SealResult,
    Source,
    Stored,
    WalJob,
)
from blocks.artifact.manifest import (
    LogIndex,
    Manifest,
    ManifestForged,
    ManifestMalformed,
    SealedObject,
    SetHeader,
    header_of,
    sign,
)
from blocks.domain import FailureDomain
from blocks.errors import FarsideError, PermanentError
from blocks.hosts.host import Host
from blocks.remote import CopyLeases, HelperRun, StoreLeases, claim, run_job
from blocks.remote.following import Follower
from blocks.repositories.farside.binding import Binding, Document, ForeignSet
from blocks.stores.s3 import S3Store
from blocks.stores.store import ObjectMissing, ObjectStore
from blocks.workers import Workers

ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""S3 storage classes whose objects are retrieved in hours, before they can be read."""
MANIFEST, LOG, HEADER = "manifest.json", "log.json", "header.json"
_SET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_AT_ONCE = 8

Moved = Callable[[int, str], None]
"""Told how many bytes of which object have moved so far."""


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


class NoSuchSet(PermanentError):
    """The recovery store retains no such set."""

    finding = "copy-behind"


class CapturedLike(Protocol):
    """What an engine learned while capturing (see `blocks.engines.engine.Captured`)."""

    @property
    def taken_at(self) -> datetime: ...
    @property
    def completed_at(self) -> datetime: ...
    @property
    def facts(self) -> Any: ...


def _stem(name: str) -> str:
    """The log segment that an object holds a state of."""
    return name.partition(".partial-")[0].removesuffix(".zst.age")


def _prefix(plan: str, set_id: str) -> str:
    return f"sets/{plan}/{set_id}/"


class SetWriter:
    """A new set in the source's store. Follows the log until it is abandoned or the host dies."""

    def __init__(
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
        self._prefix = _prefix(plan, rehearsal_id)
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
        """Begin, or begin anew after a failure: what an earlier attempt stored is written over."""
        self.abandon()
        self._objects.clear()
        self._followed.clear()
        self._moved = moved

    def work(self, host: Host) -> str:
        """This rehearsal's directory on `host`."""
        return f"{host.work_root}/{self.rehearsal_id}"

    def seal(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        secret: SecretStr,
        sources: Sequence[Source],
        begun: Callable[[], None] = lambda: None,
    ) -> int:
        """Run `argv` on `host` and store its streams, sealed; returns the bytes stored.

        `begun` is called once something comes, and again as more does.
        """
        job = SealJob(
            argv=tuple(argv),
            sources=tuple(sources),
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
            HelperRun(host, self.rehearsal_id, job, leases, moving) as run,
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

    def follow(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        secret: SecretStr,
        directory: str,
        interval: float,
        prepare: Callable[[], None],
        release_argv: Sequence[str],
        check: Callable[[], None],
        released: Callable[[], None],
    ) -> None:
        """Run `argv`, which receives the log into `directory`, and store it as it comes.

        `release_argv` gives back what the server keeps for it; the host runs it however this ends.
        That is made by `prepare`, on another thread, once the host is ready to give it back.
        `check` and `released` are Follower's.
        """
        job = WalJob(
            argv=tuple(argv),
            directory=directory,
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
            engine_facts=captured.facts,
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
            newest = {_stem(item.name): item for item, _ in self._followed}
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
        """Stop following the log, whatever state its host is in. Works a second time."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.release()
            follower.abandon()


class SetCopier:
    """Carries a set from the source's store to the recovery domain's, and resumes."""

    def __init__(
        self,
        source: FailureDomain,
        recovery: FailureDomain,
        host: Host,
        plan: str,
        set_id: str,
        rate: int | None,
    ) -> None:
        self.target = recovery.store
        self._source = source.store
        self._host = host
        self._set_id = set_id
        self._prefix = _prefix(plan, set_id)
        self._rate = rate
        self._leases = CopyLeases(self._source, self.target, self._prefix)
        self._done: set[str] = set()
        self._moved: Moved = lambda _count, _of: None

    def begin(self, moved: Moved) -> None:
        """Report to `moved` from here on."""
        self._moved = moved

    def copy(self, objects: Sequence[SealedObject], writer: SetWriter | None = None) -> int:
        """Copy those of `objects` that were not copied yet; returns their bytes.

        Ends at once, and raises why, when `writer` cannot follow the log any more.
        """
        wanted = tuple(item for item in objects if item.name not in self._done)
        if not wanted:
            return 0
        job = CopyJob(
            objects=wanted,
            landed=self._leases.landed,
            rate=self._rate,
            ca_source=self._source.ca_pem,
            ca_target=self.target.ca_pem,
        )
        run = HelperRun(self._host, self._set_id, job, self._leases, self._moved)
        with run, nullcontext() if writer is None else writer.guarding(run.kill):
            run.run()
        self._done.update(item.name for item in wanted)
        return sum(item.sealed_bytes for item in wanted)

    def finish(self, manifest: Manifest) -> None:
        """Bring the signed manifest across, last: with it the set is complete there."""
        if MANIFEST not in self._done and {o.name for o in manifest.objects} <= self._done:
            for name in (HEADER, MANIFEST):
                self.target.put(self._prefix + name, self._source.get(self._prefix + name))
            self._done.add(MANIFEST)

    def abandon(self) -> None:
        """Throw away uploads that were not finished. Works a second time."""
        self._leases.abort()


@dataclass(frozen=True, slots=True)
class Defect:
    """An object that a restore could not read: `finding` is the broken assumption's id."""

    finding: str
    key: str
    text: str


class SetReader:
    """A set in the recovery store, and what it takes to open it on a host."""

    def __init__(
        self, recovery: FailureDomain, binding: Binding, set_id: str, rehearsal_id: str
    ) -> None:
        self.set_id = set_id
        self.marked = False
        self._token = secrets.token_hex(16)
        self._recovery = recovery
        self._binding = binding
        self._rehearsal_id = rehearsal_id
        self._prefix = _prefix(binding.plan, set_id)
        self._moved: Moved = lambda _count, _of: None

    def begin(self, moved: Moved) -> None:
        """Report to `moved` from here on."""
        self._moved = moved

    def manifest(self) -> Manifest:
        """The manifest. Raises ManifestForged, ManifestMalformed, ForeignSet."""
        return self._signed(Manifest, MANIFEST)

    def log(self) -> LogIndex:
        """The index of the log. Raises as `manifest`."""
        return self._signed(LogIndex, LOG)

    def _signed(self, kind: type[Document], name: str) -> Document:
        return _signed(self._recovery.store, self._binding, kind, self.set_id, name)

    def defects(self, objects: Iterable[SealedObject]) -> Iterator[Defect]:
        """What the recovery store lists of `objects`, other than whole and readable at once."""
        listed = {info.key: info for info in self._recovery.store.objects(self._prefix)}
        for item in objects:
            for volume in item.volumes:
                info = listed.get(self._prefix + volume.key)
                if info is None:
                    yield Defect(
                        "object-missing", volume.key, "the recovery store has no such object"
                    )
                elif info.size != volume.bytes:
                    text = f"{info.size:,} bytes are stored, the manifest says {volume.bytes:,}"
                    yield Defect("object-corrupt", volume.key, text)
                elif info.storage_class in ARCHIVE_CLASSES:
                    text = f"its storage class is {info.storage_class}: it must be retrieved first"
                    yield Defect("copy-is-cold", volume.key, text)

    def claim(
        self, host: Host, directories: Sequence[str], ports: Sequence[tuple[str, int]] = ()
    ) -> None:
        """Take directories, made or found empty, and ports on `host`. Raises TargetOccupied."""
        self.marked = True
        job = ClaimJob(
            work_dir=host.work_root,
            rehearsal_id=self._rehearsal_id,
            token=self._token,
            directories=tuple(directories),
            ports=tuple(ports),
        )
        claim(host, job)

    def stamped(self, argv: Sequence[str]) -> list[str]:
        """`argv` with this rehearsal's stamp in its environment: a sweep knows it by that."""
        mark = stamp.text(self._rehearsal_id, self._token)
        return ["env", f"{stamp.VARIABLE}={mark}", *argv]

    def open(self, host: Host, items: Sequence[OpenItem], identity: SecretStr) -> int:
        """Fetch, verify, decrypt and unpack on `host`; returns the bytes read from the store."""
        job = OpenJob(
            items=tuple(items),
            identity=identity.get_secret_value(),
            ca_pem=self._recovery.store.ca_pem,
            marker=f"{host.work_root}/{self._rehearsal_id}",
        )
        leases = StoreLeases(self._recovery.store, self._prefix)
        # Several hosts may fetch the same objects at once.
        moved = self._moved
        done = run_job(
            host,
            self._rehearsal_id,
            job,
            leases,
            lambda count, of: moved(count, f"{host.name}: {of}"),
        )
        assert isinstance(done, OpenResult)
        return done.sealed_bytes


def _signed(
    store: ObjectStore, binding: Binding, kind: type[Document], set_id: str, name: str
) -> Document:
    key = _prefix(binding.plan, set_id) + name
    try:
        return binding.document(kind, set_id, store.get(key))
    except (ManifestForged, ManifestMalformed, ForeignSet) as error:
        raise type(error)(
            f"{key}: {error.message}",
            operation="verify manifest",
            domain=store.domain,
            hint=error.hint or "do not restore this set; find out who wrote to the store",
            subject=f"set {set_id}",
        ) from None


def _refuse_mistakes(item: SealedObject, host: Host) -> None:
    if wrong := item.mistake():
        raise PermanentError(
            f"it says that it stored {item.name[:100]!r}: {wrong}",
            operation="seal",
            domain=host.domain,
            host=host.name,
            hint="do not trust this host until you know why",
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The set that a selection led to, and how."""

    set_id: str
    how: str
    passed_over: tuple[FarsideError, ...] = ()
    """What is wrong with sets that came before it, and are none of this plan's."""


def set_ids(store: ObjectStore, plan: str) -> list[str]:
    """Ids of what may be complete sets of a plan in a store, oldest first: names, unproven."""
    return [id for id, _ in _complete(store, plan)]


def _complete(store: ObjectStore, plan: str) -> list[tuple[str, int]]:
    """The same, each with the size of its manifest."""
    prefix, found = f"sets/{plan}/", list[tuple[str, int]]()
    for info in store.objects(prefix):
        id, slash, name = info.key.removeprefix(prefix).partition("/")
        if slash and name == MANIFEST and _SET_ID.fullmatch(id):
            found.append((id, info.size))
    return sorted(found)


def headers(store: ObjectStore, binding: Binding) -> Iterator[tuple[str, SetHeader | FarsideError]]:
    """Each complete set's id and header, or why it has none that holds; oldest first.

    Read side by side, and small: hundreds of sets take seconds.
    """

    def read(place: tuple[str, int]) -> tuple[str, SetHeader | FarsideError]:
        id, size = place
        try:
            try:
                header = _signed(store, binding, SetHeader, id, HEADER)
            except ObjectMissing:  # of a set from before there were headers
                return id, header_of(_signed(store, binding, Manifest, id, MANIFEST), size)
            if header.manifest_bytes == size:
                return id, header
            text = f"its manifest has {size} bytes, its header says {header.manifest_bytes}"
            return id, ManifestForged(text, domain=store.domain)
        except (ManifestForged, ManifestMalformed, ForeignSet, ObjectMissing) as error:
            return id, error

    with Workers(_AT_ONCE, "headers") as pool:
        yield from pool.map(read, _complete(store, binding.plan))


def choose(store: ObjectStore, binding: Binding, select: str) -> Chosen:
    """The set that `latest`, `oldest`, `random` or an id stands for: a proven one.

    Anyone who may write to the store can add a name: what is not signed, or is another plan's, is
    passed over. Raises NoSuchSet, and what is wrong with the only ones that there are.
    """
    ids, how = set_ids(store, binding.plan), select
    if select == "random":
        seed = secrets.randbelow(10**6)
        wanted, how = random.Random(seed).sample(ids, len(ids)), f"random, seed {seed}"
    else:
        wanted = {"latest": ids[::-1], "oldest": ids}.get(select, [select] if select in ids else [])
    refused: list[FarsideError] = []
    for id in wanted:
        try:
            _signed(store, binding, Manifest, id, MANIFEST)
        except (ManifestForged, ManifestMalformed, ForeignSet) as error:
            refused.append(error)
        else:
            return Chosen(id, how, tuple(refused))
    if refused:
        raise refused[0]
    raise NoSuchSet(
        f"no set {select!r} of plan {binding.plan}; retained: {', '.join(ids) or 'none'}",
        operation="select",
        domain=store.domain,
        hint="rehearse with --select fresh once, or choose a set that is there",
    )


def unfinished(store: ObjectStore, plan: str) -> list[str]:
    """Ids of sets that have objects but no manifest: a rehearsal writes them now, or died."""
    prefix = f"sets/{plan}/"
    ids = {info.key.removeprefix(prefix).partition("/")[0] for info in store.objects(prefix)}
    return sorted(ids - set(set_ids(store, plan)))


def discard_unfinished(store: ObjectStore, plan: str, set_id: str) -> list[str]:
    """Remove a set that never got its manifest, and unfinished uploads; returns the keys."""
    prefix = _prefix(plan, set_id)
    for upload in store.uploads(prefix):
        store.abort_upload(upload.key, upload.upload_id)
    if store.head(prefix + MANIFEST) is not None:
        return []
    keys = [info.key for info in store.objects(prefix)]
    store.remove(keys)
    return keys


def retract(store: ObjectStore, plan: str, set_ids: Iterable[str]) -> None:
    """Make unfinished sets of complete ones, all at once: from here on nothing restores them.

    Their other objects are `discard_unfinished`'s, also where this process does not come to it.
    """
    store.remove([_prefix(plan, id) + MANIFEST for id in set_ids])


def fetch_commands(store: S3Store, plan: str, set_id: str) -> tuple[str, ...]:
    """Shell functions for the runbook: `fetch KEY...` prints objects, `unseal` opens a stream."""
    base = f"{store.endpoint or f'https://s3.{store.region}.amazonaws.com'}/{store.bucket}"
    prefix = f"{store.prefix.strip('/')}/" if store.prefix.strip("/") else ""
    trust = ' --cacert "$STORE_CA"' if store.ca_pem else ""
    return (
        '# STORE_LOGIN: a file of one line:  user = "ACCESS_KEY_ID:SECRET_ACCESS_KEY"',
        "# IDENTITY: a file with the age identity from the recovery vault",
        ': "${STORE_LOGIN:?}" "${IDENTITY:?}"',
        *(
            [f'STORE_CA=$(mktemp); printf %s {shlex.quote(store.ca_pem)} > "$STORE_CA"']
            if store.ca_pem
            else []
        ),
        'fetch() { for key in "$@"; do curl -gfsS --config "$STORE_LOGIN"'
        f" --aws-sigv4 {shlex.quote(f'aws:amz:{store.region}:s3')}{trust}"
        f' {shlex.quote(f"{base}/{prefix}{_prefix(plan, set_id)}")}"$key" || return; done; }}',
        'unseal() { age -d -i "$IDENTITY" | zstd -q -d; }',
    )
