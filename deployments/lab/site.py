"""A failure domain of the lab as data: its hosts, its addresses, its network."""

from dataclasses import dataclass
from ipaddress import IPv4Network

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a domain: its name, the last number of its address.

    `part` is the part of the lab without which the host is not there; empty if it always is.
    """

    name: str
    number: int
    part: str = ""


@dataclass(frozen=True, slots=True)
class Domain:
    """A failure domain: what there is, before it has a network."""

    name: str
    hosts: tuple[Host, ...]
    ssh_port: int
    store: Host
    store_port: int

    def host(self, name: str) -> Host:
        """The host of that name. Raises KeyError."""
        return {host.name: host for host in self.hosts}[name]


@dataclass(frozen=True, slots=True)
class Site:
    """A domain that has a network of its own, a /24, and optional parts that are there.

    `namespaces` is what the names of its hosts' network namespaces begin with; None on loopback.
    """

    domain: Domain
    network: IPv4Network
    parts: frozenset[str] = frozenset()
    namespaces: str | None = None

    @property
    def name(self) -> str:
        """The name of its domain."""
        return self.domain.name

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts that are there."""
        return tuple(host for host in self.domain.hosts if not host.part or host.part in self.parts)

    def address(self, host: Host | str) -> str:
        """The address of a host."""
        if isinstance(host, str):
            host = self.domain.host(host)
        return str(self.network[host.number])

    def namespace(self, host: Host | str) -> str | None:
        """The network namespace of a host."""
        name = host if isinstance(host, str) else host.name
        return f"{self.namespaces}-{self.name}-{name}" if self.namespaces else None

    @property
    def store(self) -> Endpoint:
        """Where the object store listens."""
        return self.address(self.domain.store), self.domain.store_port

    @property
    def ssh(self) -> dict[str, Endpoint]:
        """Where each host's SSH server listens."""
        return {h.name: (self.address(h), self.domain.ssh_port) for h in self.hosts}

    @property
    def names(self) -> dict[str, str]:
        """Which host has an address."""
        hosts = (*self.hosts, self.domain.store)
        return {self.address(host): host.name for host in hosts}
