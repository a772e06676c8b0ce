"""Parts on their way into the store: a bounded number of buffers, a few connections."""

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from blocks.agent.channel import Channel
from blocks.agent.meter import Meter
from blocks.agent.protocol.events import PutLease, Urls, VolumeSealed
from blocks.agent.transfer.http import Web
from blocks.artifact.objects import Part, Volume, volume_key

_PARALLEL = 3
_LEASED = 8  # URLs asked for at once


@dataclass(slots=True)
class VolumeUpload:
    """One volume while its parts are uploaded. Its producer is one thread."""

    object: str
    number: int
    urls: dict[int, str] = field(default_factory=dict, repr=False)
    parts: "list[Future[tuple[Part, str]]]" = field(default_factory=list)


class Uploads:
    """Uploads parts of any number of volumes. Every wait ends when an upload has failed."""

    def __init__(self, channel: Channel, web: Web, meter: Meter, part_size: int) -> None:
        self.part_size = part_size
        self.started = False
        self._channel = channel
        self._web = web
        self._meter = meter
        self._workers = ThreadPoolExecutor(_PARALLEL, "upload")
        self._permits = threading.Semaphore(_PARALLEL + 1)
        self._spare = [_buffer(part_size) for _ in range(_PARALLEL + 2)]
        self._failed: BaseException | None = None

    def enter(self) -> None:
        """A producer begins: it may hold one buffer beside those that are being uploaded."""
        self._permits.release()

    def leave(self) -> None:
        """A producer ended. Raises what made an upload fail."""
        self._acquire()

    def take(self) -> bytearray:
        """An empty buffer of the size of a part; waits for one. Raises what made an upload fail."""
        self._acquire()
        return self._spare.pop() if self._spare else _buffer(self.part_size)

    def ship(self, volume: VolumeUpload, buffer: bytearray, size: int) -> None:
        """Upload the first `size` bytes of `buffer` as the volume's next part. Takes the buffer."""
        self.started = True
        number = len(volume.parts) + 1
        if number not in volume.urls:
            volume.urls = dict(enumerate(self._lease(volume, number, _LEASED), number))
        url = volume.urls[number]
        volume.parts.append(self._workers.submit(self._upload, volume, number, url, buffer, size))

    def settle(self, volume: VolumeUpload) -> None:
        """Until all of the volume's parts are in the store. Raises what made an upload fail."""
        for part in volume.parts:
            part.result()

    def complete(self, volume: VolumeUpload) -> Volume:
        """Have the multipart upload completed. Raises what made an upload fail."""
        done = [part.result() for part in volume.parts]
        parts = tuple(part for part, _ in done)
        event = VolumeSealed(
            object=volume.object,
            volume=volume.number,
            parts=parts,
            etags=tuple(etag for _, etag in done),
        )
        self._channel.confirm(event)
        return Volume(
            key=volume_key(volume.object, volume.number),
            bytes=sum(part.bytes for part in parts),
            parts=parts,
        )

    def close(self) -> None:
        """Waits for nothing."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _acquire(self) -> None:
        while not self._permits.acquire(timeout=0.2):
            if self._failed is not None:
                raise self._failed
        if self._failed is not None:
            raise self._failed

    def _lease(self, volume: VolumeUpload, first: int, count: int) -> tuple[str, ...]:
        lease = PutLease(object=volume.object, volume=volume.number, first=first, count=count)
        return self._channel.ask(lease, Urls).urls

    def _upload(
        self, volume: VolumeUpload, number: int, url: str, buffer: bytearray, size: int
    ) -> tuple[Part, str]:
        def address(renew: bool) -> str:
            return self._lease(volume, number, 1)[0] if renew else url

        body = memoryview(buffer)[:size]
        try:
            digest = hashlib.sha256(body).hexdigest()
            what = f"{volume.object}, volume {volume.number}, part {number}"
            etag = self._web.put(address, body, what)
        except BaseException as error:
            self._failed = error
            raise
        self._meter.add(volume.object, sealed=size)
        self._spare.append(buffer)
        self._permits.release()
        return Part(bytes=size, sha256=digest), etag


def _buffer(size: int) -> bytearray:
    """Memory that is really there: what a job takes is taken at its start, at any size of data."""
    return bytearray(b"\1") * size
