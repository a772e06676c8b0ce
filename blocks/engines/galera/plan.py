"""What a plan says of Galera clusters: the one that is backed up, and the one to restore."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.block import Address, Directory, Port, url_host


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceNode(_Part):
    """A node of the cluster that is backed up; the backup runs on its host."""

    host: str
    address: Address
    port: Port = 3306


class SourceCluster(_Part):
    """The cluster that is backed up, and as whom."""

    nodes: tuple[SourceNode, ...] = Field(
        min_length=1, description="The first that is Synced is backed up"
    )
    bin_dir: Directory = "/usr/bin"
    user: str = Field(
        description="A user with SELECT, SHOW VIEW, EVENT, TRIGGER, RELOAD, PROCESS, LOCK TABLES,"
        " BINLOG MONITOR and REPLICA MONITOR on *.*"
    )
    password: str = Field(description="Name of that user's password in the source's vault")


class TargetNode(_Part):
    """One node of the restored cluster: its host, address, ports, directory and certificate."""

    host: str
    address: Address
    port: Port = 3306
    group_port: Port = 4567
    ist_port: Port = 4568
    sst_port: Port = 4444
    data_dir: Directory = Field(description="Must be empty or absent")
    cert_file: str = Field(description="On that host, for clients and for the other nodes")
    key_file: str

    @property
    def endpoint(self) -> str:
        """Where clients reach it, as the cluster itself writes it."""
        return self.at(self.port)

    def at(self, port: int) -> str:
        """Its address with one of its ports."""
        return f"{url_host(self.address)}:{port}"

    @property
    def ports(self) -> tuple[tuple[str, int], ...]:
        """Everything that it listens on, or will while it takes part."""
        numbers = (self.port, self.group_port, self.ist_port, self.sst_port)
        return tuple((self.address, number) for number in numbers)


class TargetCluster(_Part):
    """The cluster that is restored: as many nodes as are named here, whatever the source had."""

    nodes: tuple[TargetNode, ...] = Field(min_length=1)
    bin_dir: Directory = "/usr/bin"
    server: str = Field(default="/usr/sbin/mariadbd", description="MariaDB's server program")
    provider: str = Field(
        default="/usr/lib/galera/libgalera_smm.so", description="Galera's library"
    )
    ca_file: str = Field(description="On every host: the recovery domain's own authority")

    @model_validator(mode="after")
    def _hosts_differ(self) -> "TargetCluster":
        hosts = [node.host for node in self.nodes]
        if len(set(hosts)) < len(hosts):
            raise ValueError("nodes: every node has a host of its own")
        return self

    @property
    def peers(self) -> str:
        """Where the nodes find each other."""
        return ",".join(node.at(node.group_port) for node in self.nodes)


class Application(_Part):
    """The user by which the application connects; its password is in the recovery vault."""

    user: str
    password: str
    database: str
    write: str | None = Field(default=None, description="A statement that changes at least a row")


def address_and_port(place: str) -> tuple[str | None, int | None]:
    """Where a node is reached, as its cluster writes it; None is what the cluster does not know."""
    address, _, port = place.rpartition(":")
    if not port.isdecimal() or url_host(place) != place:  # an address without a port
        address, port = place, "0"
    address = address.strip("[]")
    return None if address in ("", "AUTO") else address, int(port) or None
