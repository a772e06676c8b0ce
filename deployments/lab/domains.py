"""The two failure domains of the lab, as data: hosts, addresses, ports."""

from dataclasses import dataclass
from ipaddress import IPv4Network

Endpoint = tuple[str, int]

#: Where the restored PostgreSQL is to listen in west; the lab leaves it free.
RECOVERED_POSTGRES_PORT = 6543

#: Well-known ports that a tripwire also takes on every address of a lost domain, where it can.
WELL_KNOWN_PORTS = (22, 53, 80, 443, 5432)


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a domain: its name and the last number of its address."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Domain:
    """A failure domain: what there is, before it has a network."""

    name: str
    hosts: tuple[Host, ...]
    ssh_port: int
    store: Host
    store_port: int
    postgres_port: int
    databases: tuple[str, ...] = ()

    def host(self, name: str) -> Host:
        """The host of that name. Raises KeyError."""
        return {host.name: host for host in self.hosts}[name]


EAST = Domain(
    name="east",
    hosts=(
        Host("db1", 11),
        Host("db2", 12),
        Host("backup", 13),
        Host("vault", 14),
        Host("app", 15),
    ),
    ssh_port=2222,
    store=Host("store", 31),
    store_port=9443,
    postgres_port=5432,
    databases=("db1", "db2"),
)
WEST = Domain(
    name="west",
    hosts=(Host("db1", 21), Host("db2", 22), Host("db3", 23), Host("vault", 24)),
    ssh_port=2322,
    store=Host("store", 41),
    store_port=9543,
    postgres_port=RECOVERED_POSTGRES_PORT,
)
DOMAINS = (EAST, WEST)


@dataclass(frozen=True, slots=True)
class Site:
    """A domain that has a network of its own, one /24 of 127.0.0.0/8."""

    domain: Domain
    network: IPv4Network

    @property
    def name(self) -> str:
        return self.domain.name

    def address(self, host: Host | str) -> str:
        """The address of a host."""
        if isinstance(host, str):
            host = self.domain.host(host)
        return str(self.network[host.number])

    @property
    def store(self) -> Endpoint:
        """Where the object store listens."""
        return self.address(self.domain.store), self.domain.store_port

    @property
    def ssh(self) -> dict[str, Endpoint]:
        """Where each host's SSH server listens."""
        return {h.name: (self.address(h), self.domain.ssh_port) for h in self.domain.hosts}

    @property
    def postgres(self) -> dict[str, Endpoint]:
        """Where each database listens."""
        port = self.domain.postgres_port
        return {name: (self.address(name), port) for name in self.domain.databases}

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Everything that listens in the domain."""
        return (*self.ssh.values(), self.store, *self.postgres.values())

    @property
    def names(self) -> dict[str, str]:
        """Which host has an address."""
        hosts = (*self.domain.hosts, self.domain.store)
        return {self.address(host): host.name for host in hosts}
