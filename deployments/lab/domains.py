"""The two failure domains of the lab: their own hosts and those of the parts."""

from deployments.lab import parts
from deployments.lab.site import Domain, Endpoint, Host, Site

#: Well-known ports that a tripwire also takes on every address of a lost domain, where it can.
WELL_KNOWN_PORTS = (22, 53, 80, 443, 5432)


def _hosts(domain: str, *own: Host) -> tuple[Host, ...]:
    return tuple(sorted((*own, *parts.hosts(domain)), key=lambda host: host.number))


EAST = Domain(
    name="east",
    hosts=_hosts("east", Host("vault", 14), Host("app", 15)),
    ssh_port=2222,
    store=Host("store", 31),
    store_port=9443,
)
WEST = Domain(
    name="west",
    hosts=_hosts("west", Host("vault", 24)),
    ssh_port=2322,
    store=Host("store", 41),
    store_port=9543,
)


def endpoints(site: Site) -> tuple[Endpoint, ...]:
    """Everything that listens in a domain."""
    there = parts.of(site) if site.domain is EAST else ()
    databases = (endpoint for part in there for endpoint in part.endpoints(site))
    return (*site.ssh.values(), site.store, *databases)
