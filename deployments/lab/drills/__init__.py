"""One drill for each assumption: the lab with exactly that one broken."""

from dataclasses import replace
from importlib import import_module

from deployments.lab.drills import integrity, isolation, keys, timing, tooling, topology
from deployments.lab.drills.board import COMMON, ONE_PART, Board, Drill
from deployments.lab.drills.ground import Ground
from deployments.lab.parts import PARTS

__all__ = [
    "BOARDS",
    "ONE_PART",
    "Board",
    "Drill",
    "Ground",
    "integrity",
    "isolation",
    "keys",
    "timing",
    "tooling",
    "topology",
]


def _board(plan: str) -> Board:
    """The board of `drills/PLAN.py`, with the common drills where it is whole."""
    board: Board = import_module(f"{__name__}.{plan}").BOARD
    return replace(board, drills={**COMMON, **board.drills}) if board.whole else board


def _boards() -> dict[str, Board]:
    """Those first that drill all that their databases can break."""
    found = {plan: _board(plan) for part in PARTS for plan in part.plans}
    return dict(sorted(found.items(), key=lambda item: not item[1].whole))


BOARDS = _boards()
"""What is drilled, by the plan's name."""
