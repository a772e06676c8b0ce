"""The job `open`: fetch, verify, decrypt and unpack sealed objects."""

import errno
import fcntl
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from blocks.agent.channel import Channel
from blocks.agent.child import Child
from blocks.agent.failure import JobFailed, no_space, of_os_error
from blocks.agent.meter import Meter
from blocks.agent.protocol.jobs import OpenJob
from blocks.agent.protocol.parts import FileTarget, OpenItem, Target, TarTarget
from blocks.agent.protocol.results import OpenResult
from blocks.agent.scratch import temporary
from blocks.agent.transfer.download import Fetcher, Place, places
from blocks.agent.transfer.http import Web
from blocks.agent.untar import CheckedTar
from blocks.artifact import age
from blocks.artifact.objects import SealedObject

_WRITE = 256 * 1024
# 512-byte blocks that tar moves at once: with its default, 20, it takes half as long again.
_TAR_BLOCKS = _WRITE // 512
_TAR = ("tar", "-x", "--no-same-owner", "--no-same-permissions", "-b", str(_TAR_BLOCKS), "-f", "-")
_AHEAD = 4  # pieces that are decrypted and not yet decompressed
_MODE = 0o600
_FULL = 64 * 1024
_WINDOW = 8 * 2**20
"""What a zstd stream may make a decompressor keep; farside's own levels take less."""


class _Sink(Protocol):
    def write(self, data: bytes | memoryview, /) -> int: ...


def run(job: OpenJob, channel: Channel) -> OpenResult:
    """Raises JobFailed, AgeMalformed, AgeNoIdentity, AgeKeyMalformed."""
    identity = age.parse_identity(job.identity)
    wanted = [place for item in job.items for place in places(item.object)]
    largest = max((place.part.bytes for place in wanted), default=1)
    fetcher = Fetcher(channel, Web(job.ca_pem), job.parallel, largest)
    with Meter(channel) as meter:
        parts = fetcher.fetch(wanted)
        started = time.time()
        files = 0
        try:
            for item in job.items:
                began = time.time()
                _open_item(item, parts, [identity], meter, job.marker)
                raw = meter.count(item.object.name)[0]
                if isinstance(item.target, FileTarget):
                    files += raw
                else:
                    meter.step(item.object.name, began, raw)
        finally:
            fetcher.close()
        if files:
            meter.step("files", started, files)
        counts = [meter.count(item.object.name) for item in job.items]
    return OpenResult(
        sealed_bytes=sum(sealed for _, sealed in counts), raw_bytes=sum(raw for raw, _ in counts)
    )


def _open_item(
    item: OpenItem,
    parts: Iterator[tuple[Place, memoryview]],
    identities: Sequence[X25519PrivateKey],
    meter: Meter,
    marker: str | None,
) -> None:
    with _target(item.target, item.object.name, marker) as sink:
        counter = _Counter(sink, item.object, meter)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_writer(
            cast(IO[bytes], counter), write_size=_WRITE, closefd=False
        )
        for plain in _ahead(_decrypted(item.object, parts, identities, meter)):
            try:
                decompressor.write(plain)
            except zstandard.ZstdError as error:
                raise JobFailed("object-corrupt", f"{item.object.name}: {error}") from None
        if counter.total != item.object.raw_bytes:
            raise _of_another_size(item.object, f"{counter.total}")


def _decrypted(
    sealed: SealedObject,
    parts: Iterator[tuple[Place, memoryview]],
    identities: Sequence[X25519PrivateKey],
    meter: Meter,
) -> Iterator[memoryview]:
    """Authenticated pieces; each is valid until `_AHEAD` more and the one in use were taken."""
    decryptor = age.Decryptor(identities, keep=_AHEAD + 2)
    for _ in range(sum(len(volume.parts) for volume in sealed.volumes)):
        place, data = next(parts)
        yield from decryptor.update(data)
        meter.add(place.object, sealed=len(data))
    yield decryptor.finish()


def _ahead(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    """The same pieces, made on a thread of their own: two cores share the work.

    Left before the end, the thread waits for ever: a job that fails ends its process.
    """
    made: queue.Queue[memoryview | BaseException | None] = queue.Queue(_AHEAD)

    def work() -> None:
        try:
            for piece in pieces:
                made.put(piece)
            made.put(None)
        except BaseException as error:  # noqa: BLE001 (raised again by the reader)
            made.put(error)

    threading.Thread(target=work, name="decrypt", daemon=True).start()
    while (piece := made.get()) is not None:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


class _Counter:
    """Passes on what is decompressed, no more than was sealed, and counts it."""

    def __init__(self, sink: _Sink, sealed: SealedObject, meter: Meter) -> None:
        self._sink = sink
        self._object = sealed
        self._meter = meter
        self.total = 0

    def write(self, data: bytes) -> int:
        self.total += len(data)
        if self.total > self._object.raw_bytes:
            raise _of_another_size(self._object, f"more than {self._object.raw_bytes}")
        self._sink.write(data)
        self._meter.add(self._object.name, raw=len(data))
        return len(data)


def _of_another_size(sealed: SealedObject, came: str) -> JobFailed:
    return JobFailed(
        "object-corrupt",
        f"{sealed.name}: {came} bytes came out, {sealed.raw_bytes} went in",
        hint="the manifest and the object do not belong together",
    )


@contextmanager
def _target(target: Target, name: str, marker: str | None) -> Iterator[_Sink]:
    if isinstance(target, FileTarget):
        with _file(Path(target.path)) as sink:
            yield sink
    elif isinstance(target, TarTarget):
        argv = (*_TAR, "-C", target.directory)
        with _program(argv, Path(target.directory), marker) as sink:
            checked = CheckedTar(sink.write, name, target.left_out)
            yield checked
            checked.finish()
    else:
        with _program(target.argv, Path(target.directory), marker) as sink:
            yield sink


class _Descriptor:
    """Writes all of what it is given to a descriptor."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        return len(data)


@contextmanager
def _program(argv: Sequence[str], directory: Path, marker: str | None) -> Iterator[_Sink]:
    """Standard input of what extracts. After a failure, `directory` holds a part of it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise of_os_error(error, f"make {directory}") from None
    child = Child(argv, stdin=subprocess.PIPE, marker=marker)
    try:
        fcntl.fcntl(child.stdin.fileno(), fcntl.F_SETPIPE_SZ, 2**20)
        yield _Descriptor(child.stdin.fileno())
        child.stdin.close()
        _finish(child, directory)
    except BrokenPipeError:
        _finish(child, directory)
        raise JobFailed("child-failed", f"{child.name} stopped reading in {directory}") from None
    finally:
        if not child.ended():
            child.kill()


def _finish(child: Child, directory: Path) -> None:
    """Raises JobFailed if it failed. On a full disk tar may say no more than `Wrote only ...`."""
    try:
        child.wait()
    except JobFailed as failure:
        disk = os.statvfs(directory)
        if disk.f_bavail * disk.f_frsize < _FULL:
            raise no_space(f"{directory}: {failure.message}") from None
        raise


@contextmanager
def _file(path: Path) -> Iterator[_Sink]:
    """A file that has its name only when it is whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with temporary(path.with_name(f".{path.name}.partial")) as draft:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            try:
                yield _Descriptor(file)
            finally:
                os.close(file)
            draft.rename(path)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        error.filename = error.filename or str(path)
        raise of_os_error(error, f"write {path}") from None
