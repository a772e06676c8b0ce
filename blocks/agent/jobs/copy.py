"""The job `copy`: sealed objects from one store to another, part by part."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from blocks.agent.channel import Channel
from blocks.agent.meter import Meter
from blocks.agent.protocol.events import (
    PartLanded,
    PutLease,
    PutObjectLease,
    Url,
    Urls,
    VolumeSealed,
)
from blocks.agent.protocol.jobs import CopyJob
from blocks.agent.protocol.results import CopyResult
from blocks.agent.transfer.download import GetUrls, Place, check, places
from blocks.agent.transfer.http import Web
from blocks.artifact.objects import SealedObject

_LEASED = 8
_STORING = 2
"""Parts that may be on their way into the target while as many as allowed are fetched: the link
across the gap is not to wait for the stores."""


def run(job: CopyJob, channel: Channel) -> CopyResult:
    """Raises JobFailed."""
    with Meter(channel) as meter:
        started = time.time()
        result = _Copy(job, channel, meter).run()
        meter.step("copy", started, result.copied_bytes)
        return result


class _Copy:
    def __init__(self, job: CopyJob, channel: Channel, meter: Meter) -> None:
        self._job = job
        self._channel = channel
        self._meter = meter
        self._source = Web(job.ca_source)
        self._target = Web(job.ca_target)
        self._get_urls = GetUrls(channel)
        self._put_urls = _PutUrls(channel)
        self._pace = _Bucket(job.rate).take if job.rate else None
        self._landed = {(part.object, part.volume, part.part): part.etag for part in job.landed}
        self._local = threading.local()
        self._fetching = threading.Semaphore(job.parallel)
        self._largest = max(
            (place.part.bytes for item in job.objects for place in places(item)), default=1
        )

    def run(self) -> CopyResult:
        copied = skipped = 0
        workers = ThreadPoolExecutor(self._job.parallel + _STORING, "copy")
        try:
            futures: dict[Place, Future[str]] = {}
            for item in self._job.objects:
                for place in places(item):
                    if (place.object, place.volume, place.number) in self._landed:
                        skipped += place.part.bytes
                    else:
                        futures[place] = workers.submit(self._copy, item, place)
                        copied += place.part.bytes
            # An upload that fails in the last part is not to wait for those before it.
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            for item in self._job.objects:
                self._complete(item, futures)
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
        return CopyResult(copied_bytes=copied, skipped_bytes=skipped)

    def _copy(self, item: SealedObject, place: Place) -> str:
        view = self._buffer()[: place.part.bytes]
        url = _renewing(self._get_url(place))
        with self._fetching:
            self._source.get(url, place.first, view, str(place), self._pace)
        check(place, view)
        etag = self._target.put(self._put_url(item, place), view, str(place))
        self._meter.add(place.object, sealed=len(view))
        self._channel.tell(
            PartLanded(object=place.object, volume=place.volume, part=place.number, etag=etag)
        )
        return etag

    def _complete(self, item: SealedObject, futures: dict[Place, Future[str]]) -> None:
        if item.plain:
            return
        etags: dict[int, list[str]] = {}
        for place in places(item):
            key = (place.object, place.volume, place.number)
            etag = self._landed[key] if key in self._landed else futures[place].result()
            etags.setdefault(place.volume, []).append(etag)
        for number, volume in enumerate(item.volumes):
            event = VolumeSealed(
                object=item.name, volume=number, parts=volume.parts, etags=tuple(etags[number])
            )
            self._channel.confirm(event)

    def _buffer(self) -> memoryview:
        """One for each thread, as long as the largest part."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(self._largest))
        buffer: memoryview = self._local.buffer
        return buffer

    def _get_url(self, place: Place) -> Callable[[str], str]:
        return lambda used: self._get_urls.of(place, not_this=used)

    def _put_url(self, item: SealedObject, place: Place) -> Callable[[bool], str]:
        if item.plain:
            lease = PutObjectLease(object=item.name)
            return lambda _renew: self._channel.ask(lease, Url).url
        last = len(item.volumes[place.volume].parts)
        return lambda renew: self._put_urls.of(place, last, renew=renew)


def _renewing(of: Callable[[str], str]) -> Callable[[bool], str]:
    used = ""

    def url(renew: bool) -> str:
        nonlocal used
        used = of(used if renew else "")
        return used

    return url


class _PutUrls:
    """Presigned URLs of parts, asked for a few at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._urls: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()

    def of(self, place: Place, last: int, *, renew: bool) -> str:
        """The URL of a part; `last` is the number of its volume's last part. Raises JobFailed."""
        key = (place.object, place.volume, place.number)
        with self._lock:
            if renew or key not in self._urls:
                count = min(_LEASED, last - place.number + 1)
                lease = PutLease(
                    object=place.object, volume=place.volume, first=place.number, count=count
                )
                for offset, url in enumerate(self._channel.ask(lease, Urls).urls):
                    self._urls[(place.object, place.volume, place.number + offset)] = url
            return self._urls.pop(key)


class _Bucket:
    """A token bucket for all threads together."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Sleeps until `size` bytes may be moved."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + size / self._rate
            pause = self._free_at - now
        time.sleep(pause)
