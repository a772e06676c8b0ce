"""Backup sets in a store: written in the source, copied across, read in the recovery domain.

sets/PLAN/SET_ID/manifest.json      signed; a set without one is unfinished
sets/PLAN/SET_ID/log.json           signed; what of the log has been stored so far
sets/PLAN/SET_ID/base.tar.zst.age.000, ...
sets/PLAN/SET_ID/wal/...
"""

import importlib.metadata
import random
import secrets
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from pydantic import SecretStr

from blocks.artifact.job import (
    CopyJob,
    Made,
    MarkJob,
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
    sign,
    verify,
)
from blocks.domain import FailureDomain
from blocks.errors import PermanentError
from blocks.helper import CopyLeases, HelperThread, StoreLeases, mark, run_job
from blocks.hosts import Host
from blocks.stores import ObjectStore, S3Store

_Document = TypeVar("_Document", Manifest, LogIndex)

ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""S3 storage classes whose objects are retrieved in hours, before they can be read."""
MANIFEST, LOG = "manifest.json", "log.json"

Moved = Callable[[int, str], None]
"""Told how many bytes of which object have moved so far."""


class NoSuchSet(PermanentError):
    """The recovery store retains no such set."""

    finding = "copy-behind"


class CapturedLike(Protocol):
    """What an engine learned while capturing (see `blocks.engines.base.Captured`)."""

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
    ) -> None:
        self.rehearsal_id = rehearsal_id
        self.store = domain.store
        self._domain = domain
        self._plan = plan
        self._recipients = tuple(recipients)
        self._engine = engine
        self._prefix = _prefix(plan, rehearsal_id)
        self._objects: list[SealedObject] = []
        self._followed: list[tuple[SealedObject, datetime]] = []
        self._follower: HelperThread | None = None
        self._leases: StoreLeases | None = None
        self._superseded: list[str] = []
        self._signing_key: SecretStr | None = None
        self._sequence = 0
        self._lock = threading.Lock()
        self._moved: Moved = lambda _count, _of: None

    def begin(self, moved: Moved) -> None:
        """Begin, or begin anew after a failure: what an earlier attempt stored is written over."""
        self.abandon()
        self._objects.clear()
        self._followed.clear()
        self._superseded.clear()
        self._moved = moved

    def work(self, host: Host) -> str:
        """This rehearsal's directory on `host`."""
        return f"{host.work_dir}/{self.rehearsal_id}"

    def seal(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        secret: SecretStr,
        sources: Sequence[Source],
    ) -> int:
        """Run `argv` on `host` and store its streams, sealed; returns the bytes stored."""
        job = SealJob(
            argv=tuple(argv),
            sources=tuple(sources),
            recipients=self._recipients,
            secret=secret.get_secret_value(),
            ca_pem=self._domain.store.ca_pem,
            marker=self.work(host),
        )
        leases = StoreLeases(self._domain.store, self._prefix)
        done = run_job(host, self.rehearsal_id, job, leases, self._moved)
        assert isinstance(done, SealResult)
        self._objects += done.objects
        return sum(item.sealed_bytes for item in done.objects)

    def follow(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        secret: SecretStr,
        directory: str,
        interval: float,
    ) -> None:
        """Run `argv`, which receives the log into `directory`, and store it as it comes."""
        job = WalJob(
            argv=tuple(argv),
            directory=directory,
            recipients=self._recipients,
            interval_seconds=interval,
            secret=secret.get_secret_value(),
            ca_pem=self._domain.store.ca_pem,
            marker=self.work(host),
        )
        self._leases = StoreLeases(self._domain.store, self._prefix, on_stored=self._stored)
        self._follower = HelperThread(host, self.rehearsal_id, job, self._leases)

    def _stored(self, event: Stored) -> None:
        with self._lock:
            stem = _stem(event.object.name)
            self._superseded += [
                item.name for item, _ in self._followed if _stem(item.name) == stem
            ]
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
        self._domain.store.put(self._prefix + MANIFEST, envelope)
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

    def prune(self, index: LogIndex, *stores: ObjectStore) -> None:
        """Remove the states of unfinished segments that `index` no longer needs."""
        needed = {item.name for item in index.objects}
        with self._lock:
            keys = [self._prefix + name for name in self._superseded if name not in needed]
        for store in stores:
            store.remove(keys)

    def lose(self) -> None:
        """The source is about to be lost: its store is not called any more."""
        if self._leases is not None:
            self._leases.lose()

    def abandon(self) -> None:
        """Stop following the log, whatever state its host is in. Works a second time."""
        follower, self._follower = self._follower, None
        if follower is not None:
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

    def copy(self, objects: Sequence[SealedObject]) -> int:
        """Copy those of `objects` that were not copied yet; returns their bytes."""
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
        run_job(self._host, self._set_id, job, self._leases, self._moved)
        self._done.update(item.name for item in wanted)
        return sum(item.sealed_bytes for item in wanted)

    def finish(self, manifest: Manifest) -> None:
        """Bring the signed manifest across, last: with it the set is complete there."""
        if MANIFEST not in self._done and {o.name for o in manifest.objects} <= self._done:
            self.target.put(self._prefix + MANIFEST, self._source.get(self._prefix + MANIFEST))
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

    def __init__(self, recovery: FailureDomain, plan: str, set_id: str, rehearsal_id: str) -> None:
        self.set_id = set_id
        self.marked = False
        self._recovery = recovery
        self._rehearsal_id = rehearsal_id
        self._prefix = _prefix(plan, set_id)
        self._moved: Moved = lambda _count, _of: None

    def begin(self, moved: Moved) -> None:
        """Report to `moved` from here on."""
        self._moved = moved

    def manifest(self, signer: str) -> Manifest:
        """The manifest, if `signer` signed it. Raises ManifestForged, ManifestMalformed."""
        return self._signed(MANIFEST, signer, Manifest)

    def log(self, signer: str) -> LogIndex:
        """The index of the log, if `signer` signed it. Raises as `manifest`."""
        return self._signed(LOG, signer, LogIndex)

    def _signed(self, name: str, signer: str, kind: type[_Document]) -> _Document:
        try:
            document = verify(self._recovery.store.get(self._prefix + name), signer)
        except (ManifestForged, ManifestMalformed) as error:
            raise type(error)(
                f"{self._prefix}{name}: {error.message}",
                operation="verify manifest",
                domain=self._recovery.name,
                hint=error.hint,
            ) from None
        if not isinstance(document, kind) or document.set_id != self.set_id:
            raise ManifestMalformed(
                f"{self._prefix}{name} is the signed document of something else",
                operation="verify manifest",
                domain=self._recovery.name,
                hint="do not restore this set; find out who wrote to the store",
            )
        return document

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

    def mark(self, host: Host, *made: Made) -> None:
        """Note on `host`, before it is made, what the sweep has to remove."""
        self.marked = True
        mark(host, MarkJob(work_dir=host.work_dir, rehearsal_id=self._rehearsal_id, made=made))

    def open(
        self, host: Host, items: Sequence[OpenItem], identity: SecretStr, made: Sequence[Made] = ()
    ) -> int:
        """Fetch, verify, decrypt and unpack on `host`; returns the bytes read from the store.

        `made` is marked first, in the same run of the helper.
        """
        self.marked = self.marked or bool(made)
        job = OpenJob(
            items=tuple(items),
            identity=identity.get_secret_value(),
            ca_pem=self._recovery.store.ca_pem,
            marker=f"{host.work_dir}/{self._rehearsal_id}",
            made=tuple(made),
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


@dataclass(frozen=True, slots=True)
class Chosen:
    """The set that a selection led to, and how."""

    set_id: str
    how: str


def set_ids(store: ObjectStore, plan: str) -> list[str]:
    """Ids of the complete sets of a plan in a store, oldest first."""
    prefix = f"sets/{plan}/"
    found = (info.key.removeprefix(prefix) for info in store.objects(prefix))
    return sorted(key.removesuffix(f"/{MANIFEST}") for key in found if key.endswith(MANIFEST))


def retained(store: ObjectStore, plan: str, signer: str) -> Iterator[Manifest]:
    """The manifests of all complete sets, oldest first. Raises ManifestForged."""
    for id in set_ids(store, plan):
        document = verify(store.get(_prefix(plan, id) + MANIFEST), signer)
        if isinstance(document, Manifest):
            yield document


def choose(store: ObjectStore, plan: str, select: str) -> Chosen:
    """The set that `latest`, `oldest`, `random` or an id stands for. Raises NoSuchSet."""
    ids = set_ids(store, plan)
    if select == "random" and ids:
        seed = secrets.randbelow(10**6)
        return Chosen(random.Random(seed).choice(ids), f"random, seed {seed}")
    wanted = {"latest": ids[-1:], "oldest": ids[:1]}.get(select, [select] if select in ids else [])
    if not wanted:
        raise NoSuchSet(
            f"no set {select!r} of plan {plan}; retained: {', '.join(ids) or 'none'}",
            operation="select",
            domain=store.domain,
            hint="rehearse with --select fresh once, or choose a set that is there",
        )
    return Chosen(wanted[0], select)


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
        'fetch() { for key in "$@"; do curl -fsS --config "$STORE_LOGIN"'
        f" --aws-sigv4 'aws:amz:{store.region}:s3'{trust}"
        f' {shlex.quote(f"{base}/{prefix}{_prefix(plan, set_id)}")}"$key" || return; done; }}',
        'unseal() { age -d -i "$IDENTITY" | zstd -q -d; }',
    )
