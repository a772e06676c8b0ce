"""The job `follow`: run a program that receives the log into a directory, store what it writes."""

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import zstandard

from blocks.agent import ending, lease
from blocks.agent.channel import Channel
from blocks.agent.child import Child
from blocks.agent.failure import JobFailed
from blocks.agent.meter import Meter
from blocks.agent.protocol.events import Prepare, PutObjectLease, Released, Stored, Url
from blocks.agent.protocol.jobs import FollowJob
from blocks.agent.protocol.results import FollowResult
from blocks.agent.transfer.http import Web
from blocks.agent.transfer.stream import LEVEL, READ, SealedStream
from blocks.agent.transfer.upload import Uploads
from blocks.artifact import age
from blocks.artifact.objects import VOLUME_PARTS, Part, SealedObject, Volume

_SCAN = 0.1
_GOODBYE = 10.0
_LOOK = 0.3
_RELEASE = 600.0
_UNCERTAIN = 15.0
_ATTEMPT = 20.0
_AGAIN = 0.5
# A disk fuller than this needs its last bytes itself: the source's database may be on it.
_SPARE_SHARE, _SPARE_BYTES = 0.05, 2**30
_SMALL = 32 * 2**20  # raw bytes of a file that may be sealed in memory


def run(job: FollowJob, channel: Channel) -> FollowResult:
    """Until told to stop. Raises JobFailed."""
    with ExitStack() as stack:
        meter = stack.enter_context(Meter(channel))
        directory = Path(job.directory)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        archive = _Archive(job, channel, meter)
        if job.release_argv:
            prepared = threading.Event()
            ending.before_end(lambda: _release(job, channel, prepared))
            channel.confirm(Prepare())
            prepared.set()
        child = Child(job.argv, secret=job.secret, marker=job.marker)
        stack.callback(child.kill)
        stopping = threading.Event()
        stack.callback(stopping.set)
        guard = threading.Thread(target=_guard, args=(job, channel, child, stopping), daemon=True)
        guard.start()
        next_partial = time.monotonic() + job.interval_seconds
        while not channel.stop.wait(_SCAN):
            archive.store_complete()
            if time.monotonic() >= next_partial:
                archive.store_partial()
                next_partial = time.monotonic() + job.interval_seconds
        stopping.set()
        guard.join()
        child.interrupt(_GOODBYE)
        ending.do_last_acts()
        archive.store_complete()
        archive.store_partial()
    return FollowResult(stored=archive.stored, next_partial=archive.next_partial)


def _guard(job: FollowJob, channel: Channel, child: Child, stopping: threading.Event) -> None:
    """End the job as soon as it must not go on, also while it waits for a store."""
    marker = Path(job.marker) if job.marker else None
    while not (stopping.wait(_LOOK) or channel.stop.is_set()):
        if child.ended():
            words = child.last_words()
            ending.fail(channel, JobFailed("child-failed", f"{child.name} ended: {words}"))
        if job.spool_bytes is not None and (held := _held(job.directory)) > job.spool_bytes:
            text = f"{held:,} bytes of log wait in {job.directory}, {job.spool_bytes:,} are allowed"
            hint = "is the source's store slow? or raise backup.spool of the plan"
            ending.fail(channel, JobFailed("no-space", text, hint=hint))
        disk = shutil.disk_usage(job.directory)
        if disk.free < min(disk.total * _SPARE_SHARE, _SPARE_BYTES):
            text = f"{disk.free:,} bytes are left on the disk of {job.directory}"
            hint = "make room there, or give the host a work_dir on another disk"
            ending.fail(channel, JobFailed("no-space", text, hint=hint))
        if marker is not None and lease.state(marker) == "dead":
            ending.fail(channel, JobFailed("aborted", "the rehearsal's lease has run out"))


def _held(directory: str) -> int:
    held = 0
    for entry in os.scandir(directory):
        with suppress(FileNotFoundError):
            held += entry.stat().st_size
    return held


def _release(job: FollowJob, channel: Channel, prepared: threading.Event) -> None:
    """Run `release_argv`, again if it fails: the server may take a moment to see the end of a
    receiver, and may be out of reach for longer. Where it was just being prepared there may be
    nothing to release.
    """
    give_up = time.monotonic() + (_RELEASE if prepared.is_set() else _UNCERTAIN)
    secret = f"{job.secret}\n".encode() if job.secret is not None else b""
    while time.monotonic() < give_up:
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                job.release_argv,
                input=secret,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_ATTEMPT,
                check=False,
                start_new_session=True,
            )
            if done.returncode == 0:
                with suppress(OSError):  # nobody may read any more
                    channel.tell(Released())
                return
        time.sleep(_AGAIN)


class _Archive:
    def __init__(self, job: FollowJob, channel: Channel, meter: Meter) -> None:
        self.stored = 0
        self.next_partial = job.first_partial
        self._job = job
        self._directory = Path(job.directory)
        files = job.files
        self._beside = re.compile(files.beside)
        self._complete = re.compile(f"{files.segment}|{files.beside}")
        self._growing = re.compile(f"({files.segment}){re.escape(files.growing)}")
        self._recipients = [age.parse_recipient(text) for text in job.recipients]
        self._channel = channel
        self._meter = meter
        self._web = Web(job.ca_pem)
        self._known: set[str] = set()
        self._seen: tuple[str, int, int] | None = None

    def store_complete(self) -> None:
        """Store what is complete and was not stored yet; then delete all but the newest segment.

        The newest stays until the next one is there: from it the receiver knows where it is.
        """
        names = sorted(path.name for path in self._directory.iterdir())
        complete = [name for name in names if self._complete.fullmatch(name)]
        for name in complete:
            if name not in self._known:
                self._store(self._directory / name, f"{self._job.files.folder}/{name}.zst.age")
                self._known.add(name)
        segments = [name for name in names if not self._beside.fullmatch(name)]
        for name in complete:
            if name in segments[:-1]:
                (self._directory / name).unlink()
                self._known.discard(name)

    def store_partial(self) -> None:
        """Store the segment that is being written, if it changed since the last time."""
        for path in sorted(self._directory.iterdir()):
            if match := self._growing.fullmatch(path.name):
                try:
                    state = path.stat()
                    mark = (path.name, state.st_size, state.st_mtime_ns)
                    if mark != self._seen and _begun(path, self._job.files.magic_bytes):
                        state_name = f"{match[1]}.partial-{self.next_partial:06d}"
                        self._store(path, f"{self._job.files.folder}/{state_name}.zst.age")
                        self.next_partial += 1
                        self._seen = mark
                except FileNotFoundError:
                    continue  # it was completed meanwhile: the next scan takes it whole

    def _store(self, path: Path, name: str) -> None:
        modified = path.stat().st_mtime
        started = time.time()
        if path.stat().st_size <= _SMALL:
            sealed = self._store_small(path, name)
        else:
            sealed = self._store_large(path, name)
        self._channel.confirm(Stored(object=sealed, segment_time=modified))
        self._meter.step(name, started, sealed.raw_bytes)
        self.stored += 1

    def _store_small(self, path: Path, name: str) -> SealedObject:
        sizes: list[int] = []
        body = bytearray().join(age.encrypt(_compress(path, sizes), self._recipients))
        lease = PutObjectLease(object=name)
        view = memoryview(body)
        self._web.put(lambda _renew: self._channel.ask(lease, Url).url, view, name)
        part = Part(bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
        self._meter.add(name, raw=sum(sizes), sealed=len(body))
        return SealedObject(
            name=name,
            raw_bytes=sum(sizes),
            sealed_bytes=len(body),
            volumes=(Volume(key=name, bytes=len(body), parts=(part,)),),
        )

    def _store_large(self, path: Path, name: str) -> SealedObject:
        uploads = Uploads(self._channel, self._web, self._meter, self._job.part_size)
        stream = SealedStream(name, self._recipients, uploads, self._meter, VOLUME_PARTS)
        try:
            with path.open("rb", buffering=0) as file:
                stream.drain(file.fileno())
            stream.finish()
            return stream.commit()
        finally:
            uploads.close()


def _begun(path: Path, magic_bytes: int) -> bool:
    """Whether there is any log in a segment: it has begun, with a magic number.

    Before, the receiver makes room, zero by zero: it is shorter than a segment, and no restore
    would take it.
    """
    with path.open("rb", buffering=0) as file:
        return any(file.read(magic_bytes))


def _compress(path: Path, sizes: list[int]) -> Iterator[bytes]:
    """zstd of a file; the lengths of what was read are added to `sizes`."""
    compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj()
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ):
            sizes.append(len(data))
            yield compressor.compress(data)
    yield compressor.flush()
