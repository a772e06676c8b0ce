"""The database of a plan while it is alive in east: what differs for drills from one to another."""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from blocks.plan.model import Plan
from deployments.lab.places import Places
from deployments.lab.site import Endpoint, Site


class Live(Protocol):
    """What a drill of any database asks."""

    base: str
    """The object of a set that holds the data; the first of its volumes."""
    tools: tuple[str, str]
    """Two programs without which nothing is restored."""

    def bin(self, domain: str) -> Path:
        """Where a domain has its programs."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """Where clients reach it."""
        ...

    @property
    def data(self) -> Path:
        """Where the first node of the service is restored."""
        ...

    def grow(self, facts: Any) -> None:
        """Have the facts of a set say that the database is larger than any disk."""
        ...

    def left(self) -> list[str]:
        """What a rehearsal left in it."""
        ...


def live(places: Places, east: Site, name: str, plan: Plan) -> Live:
    """The database of the lab's plan of that name, as its drill file has it."""
    module = import_module(f"{__package__}.{name}")
    found: Live = module.BOARD.live(places, east, plan)
    return found
