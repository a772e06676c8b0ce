"""Drills of time, bandwidth, and the state of the copy."""

from collections.abc import Iterator
from dataclasses import replace

from deployments.lab.drills.board import drill
from deployments.lab.drills.cold_store import cold_store
from deployments.lab.drills.ground import NEWER, Ground


@drill("rto-missed", "verify")
def rto_missed(ground: Ground) -> Iterator[None]:
    """Recovery may take one second."""
    ground.document["objectives"]["rto"] = "1s"
    yield


@drill("rpo-missed", "verify")
def rpo_missed(ground: Ground) -> Iterator[None]:
    """The newest set is older than the loss that is allowed."""
    ground.document["objectives"]["rpo"] = "1s"
    yield


@drill("bandwidth-insufficient", "verify")
def bandwidth_insufficient(ground: Ground) -> Iterator[None]:
    """The real database has 50 TB."""
    ground.document["production"] = {"size": "50TB"}
    yield


@drill("copy-behind", "preflight")
def copy_behind(ground: Ground) -> Iterator[None]:
    """The newest set of east never crossed."""
    with ground.another_set("east", NEWER, lambda manifest: replace(manifest, set_id=NEWER)):
        yield


@drill("copy-is-cold", "preflight")
def copy_is_cold(ground: Ground) -> Iterator[None]:
    """West's bucket has moved the set into an archive class."""
    with cold_store(ground):
        yield
