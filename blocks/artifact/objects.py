"""What a store holds: a sealed stream, its volumes and their parts. Standard library only."""

import re
from dataclasses import dataclass

PART_SIZE = 16 * 2**20
"""Bytes of one part of a multipart upload; the last part of a volume may be shorter."""

VOLUME_PARTS = 512
"""Parts of one volume at most: 8 GiB, so that no upload meets a store's limits at any size."""

LARGEST_PART = 128 * 2**20
"""Largest size of a part, in bytes: readers hold a few of them in memory."""
_KEY = re.compile(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a volume: its length in bytes and the hexadecimal SHA-256 of what is stored."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Volume:
    """One stored object. `key` is relative to its backup set's prefix; `parts` in order."""

    key: str
    bytes: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class SealedObject:
    """One sealed stream: its volumes, one after the other, are a whole age file.

    `raw_bytes` is what was read from the source before compression, `sealed_bytes` what is stored.
    """

    name: str
    raw_bytes: int
    sealed_bytes: int
    volumes: tuple[Volume, ...]

    @property
    def plain(self) -> bool:
        """Whether it is one object stored with one PUT under its own name, not in volumes."""
        return len(self.volumes) == 1 and self.volumes[0].key == self.name

    def mistake(self) -> str:
        """What is wrong with it; empty if names and sizes are those of a sealed object.

        Hosts and manifests say what they like: names become paths, and sizes memory.
        """
        for name in (self.name, *(volume.key for volume in self.volumes)):
            if not _KEY.fullmatch(name) or len(name) > 500:
                return f"{name[:100]!r} is no name of an object"
        for volume in self.volumes:
            if not all(
                0 < part.bytes <= LARGEST_PART and _SHA256.fullmatch(part.sha256)
                for part in volume.parts
            ):
                return f"a part of {volume.key} is no part of at most {LARGEST_PART} bytes"
            if volume.bytes != sum(part.bytes for part in volume.parts):
                return f"{volume.key} is not as long as its parts"
        if self.raw_bytes < 0 or self.sealed_bytes != sum(item.bytes for item in self.volumes):
            return "it is not as long as its volumes"
        return ""


def volume_key(name: str, volume: int) -> str:
    """The key of volume number `volume` (from 0) of the stream `name`."""
    return f"{name}.{volume:03d}"
