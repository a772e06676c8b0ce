"""The two failure domains of the lab, as data: hosts, addresses, ports."""

from dataclasses import dataclass
from ipaddress import IPv4Network

Endpoint = tuple[str, int]

#: Where the restored PostgreSQL is to listen in west; the lab leaves it free.
RECOVERED_POSTGRES_PORT = 6543

ETCD_CLIENT_PORT, ETCD_PEER_PORT = 2379, 2380
#: MariaDB's for clients, and Galera's for the group, incremental and full state transfers.
GALERA_PORTS = (3306, 4567, 4568, 4444)

#: Well-known ports that a tripwire also takes on every address of a lost domain, where it can.
WELL_KNOWN_PORTS = (22, 53, 80, 443, 5432)


#: Parts of the lab that are there only where a plan needs them.
ETCD, GALERA = "etcd", "galera"
PARTS = frozenset({ETCD, GALERA})


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a domain: its name, the last number of its address, the part that it is of."""

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
    postgres_port: int
    databases: tuple[str, ...] = ()
    etcd: tuple[str, ...] = ()
    galera: tuple[str, ...] = ()

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
        *(Host(f"kv{number}", 15 + number, ETCD) for number in (1, 2, 3)),
        *(Host(f"ga{number}", 18 + number, GALERA) for number in (1, 2, 3)),
    ),
    ssh_port=2222,
    store=Host("store", 31),
    store_port=9443,
    postgres_port=5432,
    databases=("db1", "db2"),
    etcd=("kv1", "kv2", "kv3"),
    galera=("ga1", "ga2", "ga3"),
)
WEST = Domain(
    name="west",
    hosts=(
        Host("db1", 21),
        Host("db2", 22),
        Host("db3", 23),
        Host("vault", 24),
        *(Host(f"kv{number}", 24 + number, ETCD) for number in (1, 2, 3, 4, 5)),
        *(Host(f"ga{number}", 29 + number, GALERA) for number in (1, 2, 3)),
    ),
    ssh_port=2322,
    store=Host("store", 41),
    store_port=9543,
    postgres_port=RECOVERED_POSTGRES_PORT,
)
DOMAINS = (EAST, WEST)


@dataclass(frozen=True, slots=True)
class Site:
    """A domain that has a network of its own, a /24, and parts that are there.

    `namespaces` is what the names of its hosts' network namespaces begin with; None on loopback.
    """

    domain: Domain
    network: IPv4Network
    parts: frozenset[str] = frozenset()
    namespaces: str | None = None

    @property
    def name(self) -> str:
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
    def postgres(self) -> dict[str, Endpoint]:
        """Where each database listens."""
        port = self.domain.postgres_port
        return {name: (self.address(name), port) for name in self.domain.databases}

    @property
    def etcd(self) -> dict[str, tuple[Endpoint, Endpoint]]:
        """Where each etcd member listens: for clients, and for the other members."""
        names = self.domain.etcd if ETCD in self.parts else ()
        return {
            name: ((self.address(name), ETCD_CLIENT_PORT), (self.address(name), ETCD_PEER_PORT))
            for name in names
        }

    @property
    def galera(self) -> dict[str, tuple[Endpoint, ...]]:
        """Where each node of Galera listens: one endpoint for each of GALERA_PORTS."""
        names = self.domain.galera if GALERA in self.parts else ()
        return {name: tuple((self.address(name), port) for port in GALERA_PORTS) for name in names}

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Everything that listens in the domain."""
        clusters = (*self.etcd.values(), *self.galera.values())
        members = [endpoint for of_member in clusters for endpoint in of_member]
        return (*self.ssh.values(), self.store, *self.postgres.values(), *members)

    @property
    def names(self) -> dict[str, str]:
        """Which host has an address."""
        hosts = (*self.hosts, self.domain.store)
        return {self.address(host): host.name for host in hosts}
