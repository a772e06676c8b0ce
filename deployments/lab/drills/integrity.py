"""Drills of integrity."""

from collections.abc import Iterator
from dataclasses import replace

from blocks.repositories.farside.layout import MANIFEST
from deployments.lab.drills.board import drill
from deployments.lab.drills.ground import OLDER, Ground


def flipped(data: bytes) -> bytes:
    """One bit differs, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@drill("object-corrupt", "restore")
def object_corrupt(ground: Ground) -> Iterator[None]:
    """One bit of the data differs in west's store."""
    with ground.stored(ground.live.base, flipped):
        yield


@drill("object-missing", "preflight")
def object_missing(ground: Ground) -> Iterator[None]:
    """The data is gone from west's store."""
    with ground.stored(ground.live.base, lambda _whole: None):
        yield


@drill("manifest-forged", "preflight")
def manifest_forged(ground: Ground) -> Iterator[None]:
    """The manifest in west's store was changed."""
    with ground.stored(MANIFEST, flipped):
        yield


@drill("set-of-another-plan", "preflight")
def set_of_another_plan(ground: Ground) -> Iterator[None]:
    """A set of the staging system, truly signed with the same key, was copied among the sets."""
    with ground.another_set("west", OLDER, lambda m: replace(m, set_id=OLDER, plan="staging")):
        yield


@drill("check-failed", "verify")
def check_failed(ground: Ground) -> Iterator[None]:
    """The business expects another answer than the restored data gives."""
    ground.document["checks"][1]["expected"] = "7"
    yield
