"""What a lab remembers from one command to the next."""

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from blocks.errors import PermanentError
from deployments.lab.domains import EAST, WEST
from deployments.lab.places import Network, Places, check_owner, write
from deployments.lab.site import Site

STATE_VERSION = 5
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What tells this start of the machine from every other."""
    return _BOOT.read_text().strip()


@dataclass(frozen=True, slots=True)
class State:
    """What a lab remembers: its networks, the size of its database, what else is there.

    `namespaces` is the prefix of its network namespaces; None for a lab on loopback. `boot` is the
    start of the machine in which it was made.
    """

    east: IPv4Network
    west: IPv4Network
    scale: int
    built: bool
    parts: frozenset[str] = frozenset()
    namespaces: str | None = None
    boot: str = field(default_factory=boot_id)

    @property
    def namespaces_gone(self) -> bool:
        """True if its namespaces ended with the machine: who has its prefix now is another lab."""
        return self.namespaces is not None and self.boot != boot_id()

    @property
    def network(self) -> Network:
        """What the hosts of the lab are."""
        return "netns" if self.namespaces else "loopback"

    @property
    def sites(self) -> tuple[Site, Site]:
        """East and west."""
        return (
            Site(EAST, self.east, self.parts, self.namespaces),
            Site(WEST, self.west, self.parts, self.namespaces),
        )


def load_state(places: Places) -> State | None:
    """The lab's state, or None where there is no lab.

    Raises PermanentError for a file that is not of this lab, or a lab of somebody else.
    """
    check_owner(places)
    try:
        document = json.loads(places.state.read_text())
        if document["version"] != STATE_VERSION:
            raise ValueError(f"version {document['version']}")
        return State(
            east=IPv4Network(document["east"]),
            west=IPv4Network(document["west"]),
            scale=int(document["scale"]),
            built=bool(document["built"]),
            parts=frozenset(document["parts"]),
            namespaces=document["namespaces"],
            boot=str(document["boot"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(
            f"{places.state} is not the state of a lab: {error}",
            operation="lab",
            hint="run `python -m deployments.lab down`, then `up`",
        ) from None


def save_state(places: Places, state: State) -> None:
    """Write the state; a reader sees the old one or the new one."""
    document = {
        "version": STATE_VERSION,
        "east": str(state.east),
        "west": str(state.west),
        "scale": state.scale,
        "built": state.built,
        "parts": sorted(state.parts),
        "namespaces": state.namespaces,
        "boot": state.boot,
    }
    write(places.state, json.dumps(document, indent=2) + "\n")
