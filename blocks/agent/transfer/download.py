"""Parts on their way out of the store: fetched ahead in parallel, handed on in order, verified."""

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from blocks.agent.channel import Channel
from blocks.agent.failure import JobFailed
from blocks.agent.protocol.events import GetLease, Url
from blocks.agent.transfer.http import Web
from blocks.artifact.objects import Part, SealedObject

_MEMORY = 96 * 2**20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part is: `number` counts from 1 in its volume, `first` is its first byte there."""

    object: str
    volume: int
    key: str
    number: int
    first: int
    part: Part

    def __str__(self) -> str:
        return f"{self.object}, volume {self.volume}, part {self.number}"


def places(sealed: SealedObject) -> Iterator[Place]:
    """All parts of an object, in order."""
    for index, volume in enumerate(sealed.volumes):
        first = 0
        for number, part in enumerate(volume.parts, 1):
            yield Place(sealed.name, index, volume.key, number, first, part)
            first += part.bytes


class GetUrls:
    """One presigned URL for each volume, renewed when the store refuses it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._urls: dict[str, str] = {}
        self._lock = threading.Lock()

    def of(self, place: Place, *, not_this: str = "") -> str:
        """The URL; a new one if the one known is `not_this`, or there is none. Raises JobFailed."""
        with self._lock:
            url = self._urls.get(place.key, "")
            if url == not_this:
                lease = GetLease(object=place.object, volume=place.volume, key=place.key)
                url = self._channel.ask(lease, Url).url
                self._urls[place.key] = url
            return url


def check(place: Place, data: memoryview) -> None:
    """Raises JobFailed if these are not the bytes that the manifest names."""
    if hashlib.sha256(data).hexdigest() != place.part.sha256:
        raise JobFailed(
            "object-corrupt",
            f"{place}: its SHA-256 is not the manifest's",
            hint="the object was changed after it was sealed; choose another backup set",
        )


class Fetcher:
    """Keeps a bounded number of parts in memory, whatever the number asked for."""

    def __init__(self, channel: Channel, web: Web, parallel: int, largest: int) -> None:
        self._urls = GetUrls(channel)
        self._web = web
        self._workers = ThreadPoolExecutor(parallel, "fetch")
        self._window = max(2, min(parallel + 2, _MEMORY // max(largest, 1)))
        # Really there from the start (zeros would not be): a job's memory is the same at any size.
        self._spare = [bytearray(b"\1") * largest for _ in range(self._window)]

    def fetch(self, wanted: Iterable[Place]) -> Iterator[tuple[Place, memoryview]]:
        """Each part's bytes, in order, valid until the next is taken. Raises JobFailed."""
        pending: deque[tuple[Place, Future[bytearray]]] = deque()
        for place in wanted:
            pending.append((place, self._workers.submit(self._get, place)))
            if len(pending) >= self._window:
                yield from self._take(pending)
        while pending:
            yield from self._take(pending)

    def close(self) -> None:
        """Waits for nothing."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _take(
        self, pending: "deque[tuple[Place, Future[bytearray]]]"
    ) -> Iterator[tuple[Place, memoryview]]:
        place, future = pending.popleft()
        buffer = future.result()
        yield place, memoryview(buffer)[: place.part.bytes]
        self._spare.append(buffer)

    def _get(self, place: Place) -> bytearray:
        buffer = self._spare.pop()  # there are as many as parts can be under way
        view = memoryview(buffer)[: place.part.bytes]
        used = ""

        def address(renew: bool) -> str:
            nonlocal used
            used = self._urls.of(place, not_this=used if renew else "")
            return used

        self._web.get(address, place.first, view, str(place))
        check(place, view)
        return buffer
