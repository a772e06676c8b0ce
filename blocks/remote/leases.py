"""Answers what a job asks: presigned URLs, and what it has stored.

The agent holds no credential of a store. It asks for presigned URLs as it needs them; each is for
one sealed object under one prefix.
"""

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from blocks.agent.protocol.events import (
    Answer,
    GetLease,
    Ok,
    PartLanded,
    Prepare,
    PutLease,
    PutObjectLease,
    Stored,
    Url,
    Urls,
    VolumeSealed,
)
from blocks.agent.protocol.parts import Landed
from blocks.artifact.objects import volume_key
from blocks.errors import FarsideError, PermanentError
from blocks.remote.failures import AgentInterrupted
from blocks.stores.store import ObjectMissing, ObjectStore

Question = PutLease | PutObjectLease | GetLease | VolumeSealed | Stored | Prepare
"""What the agent waits for an answer to."""
Moved = Callable[[int, str], None]
"""Told how many bytes, as stored, of which object have moved so far."""
_SEALED = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./-]*\.age(?:\.\d{3,})?")


class Leases(Protocol):
    """Answers what a job asks."""

    def answer(self, question: Question) -> Answer:
        """The answer to `question`; raises FarsideError, which ends the job."""
        ...

    def landed_part(self, event: PartLanded) -> None:
        """Note a part that a copy uploaded."""
        ...

    def failed(self) -> None:
        """The job ended without success: throw away what cannot be used by another."""
        ...


class NoLeases:
    """For jobs that ask nothing."""

    def answer(self, question: Question) -> Answer:
        """See Leases."""
        raise _not_for_this_job(question)

    def landed_part(self, event: PartLanded) -> None:
        """See Leases."""

    def failed(self) -> None:
        """See Leases."""


class _Uploads:
    """The unfinished multipart uploads of sealed objects under a prefix. Thread-safe."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], str] = {}

    def part_urls(self, lease: PutLease) -> Urls:
        key = self._key(lease)
        with self._lock:
            place = (lease.object, lease.volume)
            if place not in self._open:
                self._open[place] = self._store.create_upload(key)
            upload_id = self._open[place]
        numbers = range(lease.first, lease.first + lease.count)
        return Urls(urls=tuple(self._store.presign_part(key, upload_id, n) for n in numbers))

    def put_url(self, lease: PutObjectLease) -> Url:
        return Url(url=self._store.presign_put(self._prefix + _sealed(lease.object)))

    def complete(self, event: VolumeSealed) -> Ok:
        """Complete a volume; raises ObjectMissing when its upload is gone and it is not there."""
        key, place = self._key(event), (event.object, event.volume)
        with self._lock:
            upload_id = self._open.get(place)
        try:
            if upload_id is None:
                raise ObjectMissing(f"no upload of {key} was begun", operation="complete upload")
            self._store.complete_upload(key, upload_id, event.etags)
        except ObjectMissing:
            self._forget(place)
            # The answer to an earlier call may have been lost on the way.
            found = self._store.head(key)
            if found is None or found.size != sum(part.bytes for part in event.parts):
                raise
        self._forget(place)
        return Ok()

    def _forget(self, place: tuple[str, int]) -> None:
        with self._lock:
            self._open.pop(place, None)

    def abort(self) -> None:
        """Throw away what is open; what the store does not answer to stays there."""
        with self._lock:
            opened, self._open = self._open, {}
        for (name, volume), upload_id in opened.items():
            with suppress(FarsideError):
                self._store.abort_upload(self._prefix + volume_key(name, volume), upload_id)

    def _key(self, what: PutLease | VolumeSealed) -> str:
        return self._prefix + volume_key(_sealed(what.object), what.volume)


class StoreLeases:
    """Leases of one store, for sealing into a prefix of it or opening from there.

    `on_stored` is told of every log object that is stored, and the host keeps its file until
    it returns. `prepare` makes in the server what the host is going to release.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        on_stored: Callable[[Stored], None] = lambda _event: None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._on_stored = on_stored
        self._prepare = prepare
        self._uploads = _Uploads(store, prefix)
        self._lost = False

    def lose(self) -> None:
        """The store is about to be lost: from here on it is not called any more."""
        self._lost = True

    def answer(self, question: Question) -> Answer:
        """See Leases."""
        if self._lost:
            raise PermanentError("the store is lost", operation="lease", domain=self._store.domain)
        match question:
            case GetLease():
                return Url(url=self._store.presign_get(self._prefix + _sealed(question.key)))
            case PutLease():
                return self._uploads.part_urls(question)
            case PutObjectLease():
                return self._uploads.put_url(question)
            case VolumeSealed():
                return self._uploads.complete(question)
            case Stored():
                self._on_stored(question)
                return Ok()
            case Prepare():
                self._prepare()
                return Ok()

    def landed_part(self, event: PartLanded) -> None:
        """See Leases."""

    def failed(self) -> None:
        """Throw away the uploads that were not completed: they could not be continued.

        In a store that was lost they stay, to be cleared when it is back.
        """
        if not self._lost:
            self._uploads.abort()


class CopyLeases:
    """Leases for copying sealed objects from a prefix of one store to the same one of another.

    Use the same object for every attempt: it knows the parts that landed, so that the next job
    goes on where the last one stopped.
    """

    def __init__(self, source: ObjectStore, target: ObjectStore, prefix: str) -> None:
        self._source = source
        self._prefix = prefix
        self._uploads = _Uploads(target, prefix)
        self._lock = threading.Lock()
        self._landed: dict[tuple[str, int, int], Landed] = {}
        self._complete: set[tuple[str, int]] = set()

    @property
    def landed(self) -> tuple[Landed, ...]:
        """The parts that are in the target store."""
        with self._lock:
            return tuple(self._landed.values())

    def answer(self, question: Question) -> Answer:
        """See Leases."""
        match question:
            case GetLease():
                return Url(url=self._source.presign_get(self._prefix + _sealed(question.key)))
            case PutLease():
                return self._uploads.part_urls(question)
            case PutObjectLease():
                return self._uploads.put_url(question)
            case VolumeSealed():
                return self._completed(question)
        raise _not_for_this_job(question)

    def landed_part(self, event: PartLanded) -> None:
        """See Leases."""
        landed = Landed(object=event.object, volume=event.volume, part=event.part, etag=event.etag)
        with self._lock:
            self._landed[event.object, event.volume, event.part] = landed

    def failed(self) -> None:
        """Keep all: the next job resumes."""

    def abort(self) -> None:
        """Throw away the uploads that were not completed, and start from nothing next time."""
        self._uploads.abort()
        with self._lock:
            unfinished = [key for key in self._landed if key[:2] not in self._complete]
            for key in unfinished:
                del self._landed[key]

    def _completed(self, event: VolumeSealed) -> Ok:
        place = (event.object, event.volume)
        if place in self._complete:
            return Ok()
        try:
            self._uploads.complete(event)
        except ObjectMissing as error:
            with self._lock:
                for key in [key for key in self._landed if key[:2] == place]:
                    del self._landed[key]
            raise AgentInterrupted(
                f"the target store lost the upload of {event.object}; it must be copied again",
                code="object-missing",
                operation="copy",
                domain=error.domain,
            ) from error
        self._complete.add(place)
        return Ok()


def _sealed(key: str) -> str:
    """`key`, if a sealed object can have it: a host gets no lease of anything else."""
    if not _SEALED.fullmatch(key):
        raise PermanentError(
            f"a lease was asked for {key[:100]!r}, which is no sealed object's name",
            operation="lease",
            hint="do not trust the host that asked until you know why",
        )
    return key


def _not_for_this_job(question: Question) -> PermanentError:
    return PermanentError(f"the agent asked for {question.event}, which its job does not need")
