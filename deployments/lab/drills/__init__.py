"""One drill for each assumption: the lab with exactly that one broken."""

from deployments.lab.drills import integrity, isolation, keys, timing, tooling, topology
from deployments.lab.drills.board import DRILLS, ONE_PART, TOGETHER, UNDRILLED, Drill
from deployments.lab.drills.ground import Ground

__all__ = [
    "DRILLS",
    "ONE_PART",
    "TOGETHER",
    "UNDRILLED",
    "Drill",
    "Ground",
    "integrity",
    "isolation",
    "keys",
    "timing",
    "tooling",
    "topology",
]
