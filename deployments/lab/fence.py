"""Lose east, see who still calls there, and give its addresses back."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from blocks.errors import PermanentError
from deployments.lab import namespaces, processes, tripwires
from deployments.lab.domains import WELL_KNOWN_PORTS, endpoints
from deployments.lab.places import Places, write
from deployments.lab.processes import Service
from deployments.lab.site import Site

NAME = "fence-tripwires"
_READY_SECONDS = tripwires.BIND_SECONDS + 5
_POLL_SECONDS = 0.01
#: A tree that was lost, and one that is there.
_UNREADABLE, _READABLE = 0o000, 0o755


def is_raised(places: Places) -> bool:
    """True from `lose` until `lift`."""
    return _configuration(places).exists()


def lose(places: Places, sites: tuple[Site, Site]) -> None:
    """Kill all of east, cut its line, make its tree unreadable, listen on its addresses.

    Losing what is lost changes nothing, except that what has stopped listening listens again.
    Raises PermanentError if a process survives or an address cannot be taken.
    """
    site = sites[0]
    watching = processes.running(places, NAME) is not None
    if not is_raised(places):
        _attempts(places).write_text("")
    if not watching:
        _ready(places).unlink(missing_ok=True)
        write(_configuration(places), json.dumps(_document(places, site)))
        # Started first: while it loads, the domain dies, and it takes each address as it falls.
        processes.start(places, _service(places))
    processes.kill_domain(places, places.tree(site.name))
    if site.namespaces:
        namespaces.cut(sites)
    places.tree(site.name).chmod(_UNREADABLE)
    _wait(places)


def lift(places: Places, sites: tuple[Site, Site]) -> None:
    """Stop listening, mend the line, make the tree readable. East stays dead until `up`."""
    site = sites[0]
    processes.kill_domain(places, places.fence)
    if site.namespaces:
        namespaces.join(sites)
    if places.tree(site.name).exists():
        places.tree(site.name).chmod(_READABLE)
    # The configuration last: as long as it is there, the fence is raised, and is lifted again.
    for path in (_ready(places), _configuration(places)):
        path.unlink(missing_ok=True)


def attempts(places: Places) -> Iterator[str]:
    """A JSON line for each call since the domain was lost, oldest first."""
    try:
        lines = _attempts(places).read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return
    # A line without its end is still being written.
    yield from (line.rstrip("\n") for line in lines if line.endswith("\n"))


def check_watching(places: Places) -> None:
    """Raise PermanentError if calls to east are not seen: it is not lost, or nobody listens."""
    if not is_raised(places):
        raise PermanentError(
            "east is not lost: nobody watches who calls there",
            operation="lab tripped",
            hint="`python -m deployments.lab lose east` first",
        )
    if processes.running(places, NAME) is None:
        raise PermanentError(
            "the tripwires have died: what called east since was not seen",
            operation="lab tripped",
            hint=f"read {_service(places).log}; `lose east` starts them again",
        )


def _document(places: Places, site: Site) -> dict[str, object]:
    required = set(endpoints(site))
    known = {(address, port) for address in site.names for port in WELL_KNOWN_PORTS}
    wires = [
        tripwires.Wire(
            site.names[address],
            address,
            port,
            (address, port) in required,
            site.namespace(site.names[address]),
        )
        for address, port in sorted(required | known)
    ]
    return {
        "wires": [asdict(wire) for wire in wires],
        "attempts": str(_attempts(places)),
        "ready": str(_ready(places)),
    }


def _service(places: Places) -> Service:
    # As the caller: only root sees whose sockets call, and may take ports below 1024.
    script = Path(tripwires.__file__)
    return Service(
        name=NAME,
        tree=places.fence,
        argv=(sys.executable, "-P", str(script), str(_configuration(places))),
        cwd=places.fence,
        log=places.fence / "tripwires.log",
        ready=_ready(places).exists,
    )


def _wait(places: Places) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    service = _service(places)
    while not service.ready():
        if processes.running(places, NAME) is None or time.monotonic() > deadline:
            raise processes.failure(service, "could not take the addresses of the lost domain")
        time.sleep(_POLL_SECONDS)


def _configuration(places: Places) -> Path:
    return places.fence / "tripwires.json"


def _attempts(places: Places) -> Path:
    return places.fence / "attempts.jsonl"


def _ready(places: Places) -> Path:
    return places.fence / "ready"


def check_can_be_lost(name: str, sites: tuple[Site, Site]) -> None:
    """Raise PermanentError for any domain but east."""
    if name != sites[0].name:
        raise PermanentError(
            f"{name!r} cannot be lost", operation="lab lose", hint="only east can: `lose east`"
        )
