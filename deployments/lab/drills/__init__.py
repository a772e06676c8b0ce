"""One drill for each assumption: the lab with exactly that one broken."""

from deployments.lab.drills import (
    etcd,
    galera,
    integrity,
    isolation,
    keys,
    standbys,
    timing,
    tooling,
    topology,
)
from deployments.lab.drills.board import BOARDS, ONE_PART, Board, Drill
from deployments.lab.drills.ground import Ground

__all__ = [
    "BOARDS",
    "ONE_PART",
    "Board",
    "Drill",
    "Ground",
    "etcd",
    "galera",
    "integrity",
    "isolation",
    "keys",
    "standbys",
    "timing",
    "tooling",
    "topology",
]
