"""A stream of any length, sealed: zstd, age, and parts for the uploads."""

import os
import time
from collections.abc import Sequence

import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from blocks.agent.meter import Meter
from blocks.agent.transfer.upload import Uploads, VolumeUpload
from blocks.artifact import age
from blocks.artifact.objects import SealedObject, Volume

LEVEL = 1
READ = 256 * 1024  # what was read is still in the processor's cache when it is compressed


class SealedStream:
    """Takes raw bytes; one thread writes. Nothing is in the store under its name until `commit`."""

    def __init__(
        self,
        name: str,
        recipients: Sequence[X25519PublicKey],
        uploads: Uploads,
        meter: Meter,
        volume_parts: int,
    ) -> None:
        self.name = name
        self._uploads = uploads
        self._meter = meter
        self._volume_parts = volume_parts
        self._encryptor = age.Encryptor(recipients)
        # Chunks of exactly age's size come out of the compressor: none is put together again.
        self._chunker = zstandard.ZstdCompressor(level=LEVEL).chunker(chunk_size=age.CHUNK)
        self._held: bytes | None = None
        self._buffer: bytearray | None = None
        self._fill = 0
        self._volumes = [VolumeUpload(name, 0)]
        self._done: list[Volume] = []
        self._started = time.time()

    def drain(self, file: int) -> None:
        """Write all that is read from the descriptor `file`. Raises OSError, JobFailed."""
        buffer = bytearray(READ)
        view = memoryview(buffer)
        while count := os.readv(file, [buffer]):
            self.write(view[:count])

    def write(self, raw: memoryview) -> None:
        """Raises what made an upload fail."""
        self._begin()
        for chunk in self._chunker.compress(raw):
            self._push(chunk)
        self._meter.add(self.name, raw=len(raw))

    def finish(self) -> None:
        """The end of the stream: returns when all parts are uploaded. Raises what made one fail."""
        self._begin()
        for chunk in self._chunker.finish():  # type: ignore[no-untyped-call]
            self._push(chunk)
        self._seal(self._held or b"", last=True)
        if self._fill:
            self._ship()
        self._uploads.leave()
        self._uploads.settle(self._volumes[-1])
        self._meter.step(self.name, self._started, self._meter.count(self.name)[0])

    def commit(self) -> SealedObject:
        """Have the last volume completed: the source is known to be whole. Raises JobFailed."""
        self._done.append(self._uploads.complete(self._volumes[-1]))
        return SealedObject(
            name=self.name,
            raw_bytes=self._meter.count(self.name)[0],
            sealed_bytes=sum(volume.bytes for volume in self._done),
            volumes=tuple(self._done),
        )

    def _begin(self) -> None:
        if self._buffer is None and self._held is None and not self._volumes[0].parts:
            self._started = time.time()
            self._uploads.enter()
            self._append(memoryview(self._encryptor.header))

    def _push(self, chunk: bytes) -> None:
        """Keeps one chunk back: the last has to be marked."""
        if self._held is not None:
            self._seal(self._held, last=False)
        self._held = chunk

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        size = len(chunk) + age.TAG
        room = self._uploads.part_size - self._fill
        if self._buffer is None or size > room:
            self._append(memoryview(self._encryptor.seal(chunk, last=last)))
            return
        out = memoryview(self._buffer)[self._fill : self._fill + size]
        self._encryptor.seal_into(chunk, out, last=last)
        self._advance(size)

    def _append(self, data: memoryview) -> None:
        while data:
            if self._buffer is None:
                self._buffer = self._uploads.take()
            size = min(len(data), self._uploads.part_size - self._fill)
            self._buffer[self._fill : self._fill + size] = data[:size]
            data = data[size:]
            self._advance(size)

    def _advance(self, size: int) -> None:
        self._fill += size
        if self._fill == self._uploads.part_size:
            self._ship()

    def _ship(self) -> None:
        assert self._buffer is not None
        if len(self._volumes[-1].parts) == self._volume_parts:
            self._done.append(self._uploads.complete(self._volumes[-1]))
            self._volumes.append(VolumeUpload(self.name, len(self._volumes)))
        self._uploads.ship(self._volumes[-1], self._buffer, self._fill)
        self._buffer, self._fill = None, 0
