"""What a plan says of Galera clusters: the one that is backed up, and the one to restore."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.block import Address, Directory, Port, url_host


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceNode(_Part):
    """A node of the cluster that is backed up; the backup runs on its host."""

    host: str = Field(
        description="Name of the host of the source domain on which the node runs, and its backup."
    )
    address: Address = Field(description="Where that host reaches the node: IP or DNS name.")
    port: Port = Field(default=3306, description="TCP port for clients. Default: 3306.")


class SourceCluster(_Part):
    """The cluster that is backed up, and as whom."""

    nodes: tuple[SourceNode, ...] = Field(
        min_length=1, description="The nodes. The first one that is Synced is backed up."
    )
    bin_dir: Directory = Field(
        default="/usr/bin",
        description="Directory of MariaDB's programs on their hosts. Default: /usr/bin.",
    )
    user: str = Field(
        description="User that looks at the cluster and backs it up, with SELECT, SHOW VIEW, "
        "EVENT, TRIGGER, RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR and REPLICA MONITOR on *.*."
    )
    password: str = Field(
        description="Name, in the source's vault, of the secret with that user's password."
    )


class TargetNode(_Part):
    """One node of the restored cluster: its host, address, ports, directory and certificate."""

    host: str = Field(description="Name of the recovery host on which it is restored.")
    address: Address = Field(description="Address of that host on which it listens.")
    port: Port = Field(default=3306, description="TCP port for clients. Default: 3306.")
    group_port: Port = Field(
        default=4567, description="TCP port for the group's own messages. Default: 4567."
    )
    ist_port: Port = Field(
        default=4568, description="TCP port for incremental state transfers. Default: 4568."
    )
    sst_port: Port = Field(
        default=4444, description="TCP port for state snapshot transfers. Default: 4444."
    )
    data_dir: Directory = Field(
        description="Data directory. It must be empty or absent, and is removed at teardown."
    )
    cert_file: str = Field(
        description="File on that host with the certificate that it shows to clients and nodes."
    )
    key_file: str = Field(description="File on that host with that certificate's private key.")

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

    nodes: tuple[TargetNode, ...] = Field(
        min_length=1, description="The nodes that it is to have, each on a host of its own."
    )
    bin_dir: Directory = Field(
        default="/usr/bin",
        description="Directory of MariaDB's programs on every one of these hosts. Default: "
        "/usr/bin.",
    )
    server: str = Field(
        default="/usr/sbin/mariadbd",
        description="MariaDB's server program on these hosts. Default: /usr/sbin/mariadbd.",
    )
    provider: str = Field(
        default="/usr/lib/galera/libgalera_smm.so",
        description="Galera's library on these hosts. Default: /usr/lib/galera/libgalera_smm.so.",
    )
    ca_file: str = Field(
        description="File on every one of these hosts with the recovery domain's own authority."
    )

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

    user: str = Field(description="User as which the application logs in.")
    password: str = Field(
        description="Name, in the recovery domain's vault, of the secret with the user's password."
    )
    database: str = Field(description="Database in which it works.")
    write: str | None = Field(
        default=None,
        description="A harmless statement by which the application writes: it changes at least "
        "one row. Without it, only farside's own write is tried.",
    )


def address_and_port(place: str) -> tuple[str | None, int | None]:
    """Where a node is reached, as its cluster writes it; None is what the cluster does not know."""
    address, _, port = place.rpartition(":")
    if not port.isdecimal() or url_host(place) != place:  # an address without a port
        address, port = place, "0"
    address = address.strip("[]")
    return None if address in ("", "AUTO") else address, int(port) or None
