"""What a store holds: a sealed stream, its volumes and their parts. Standard library only."""

from dataclasses import dataclass

PART_SIZE = 16 * 2**20
"""Bytes of one part of a multipart upload; the last part of a volume may be shorter."""

VOLUME_PARTS = 512
"""Parts of one volume at most: 8 GiB, so that no upload meets a store's limits at any size."""


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


def volume_key(name: str, volume: int) -> str:
    """The key of volume number `volume` (from 0) of the stream `name`."""
    return f"{name}.{volume:03d}"
