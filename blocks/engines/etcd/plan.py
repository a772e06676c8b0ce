"""What a plan says of etcd clusters: the one that is backed up, and the one to restore."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from blocks.block import Address, Directory, Port, url_host, url_port


def _is_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url_port(value):
        raise ValueError("an endpoint is a URL with a port, as in https://10.1.0.5:2379")
    return value.rstrip("/")


Endpoint = Annotated[str, AfterValidator(_is_endpoint)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceCluster(_Part):
    """The cluster that is backed up, and the host whose etcdctl asks it."""

    host: str = Field(
        description="Name of the host of the source domain whose etcdctl takes the snapshot."
    )
    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1,
        description="Client URLs of the members, as in https://10.1.0.5:2379. The first that "
        "serves is used.",
    )
    bin_dir: Directory = Field(description="Directory of etcdctl on that host.")
    ca_file: str = Field(
        description="File on that host with the authority of the members' certificates, in PEM."
    )
    cert_file: str = Field(
        default="",
        description="File on that host with the client certificate that farside shows. Without "
        "it, none is shown.",
    )
    key_file: str = Field(
        default="", description="File on that host with that certificate's private key."
    )
    user: str = Field(
        default="root", description="User with the role root, as which farside asks. Default: root."
    )
    password: str | None = Field(
        default=None,
        description="Name, in the source's vault, of the secret with that user's password. "
        "Without it, farside shows no user: for clusters that ask for none.",
    )


class Member(_Part):
    """One member of the restored cluster: its host, address, ports, directory and certificate."""

    host: str = Field(description="Name of the recovery host on which it is restored.")
    address: Address = Field(description="Address of that host on which it listens.")
    client_port: Port = Field(default=2379, description="TCP port for clients. Default: 2379.")
    peer_port: Port = Field(
        default=2380, description="TCP port for the other members. Default: 2380."
    )
    data_dir: Directory = Field(
        description="Data directory. It must be empty or absent, and is removed at teardown."
    )
    cert_file: str = Field(
        description="File on that host with the certificate that it shows to clients and members."
    )
    key_file: str = Field(description="File on that host with that certificate's private key.")

    @property
    def client_url(self) -> str:
        """Where clients reach it."""
        return f"https://{url_host(self.address)}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Where the other members reach it."""
        return f"https://{url_host(self.address)}:{self.peer_port}"


class TargetCluster(_Part):
    """The cluster that is restored: as many members as are named here, whatever the source had."""

    members: tuple[Member, ...] = Field(
        min_length=1, description="The members that it is to have, each on a host of its own."
    )
    bin_dir: Directory = Field(
        description="Directory of etcd's programs on every one of these hosts."
    )
    ca_file: str = Field(
        description="File on every one of these hosts with the recovery domain's own authority."
    )
    password: str | None = Field(
        default=None,
        description="Name, in the recovery domain's vault, of the secret with the password of "
        "source.user, who is restored with the data. Without it, farside shows no user.",
    )
    client_cert_auth: bool | None = Field(
        default=None,
        description="Whether clients must show a certificate; farside shows the first member's. "
        "Without it, as at the source: they must if source.cert_file is given.",
    )

    @model_validator(mode="after")
    def _hosts_differ(self) -> "TargetCluster":
        hosts = [member.host for member in self.members]
        if len(set(hosts)) < len(hosts):
            raise ValueError("members: every member has a host of its own")
        return self

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Client URLs of all members."""
        return tuple(member.client_url for member in self.members)

    @property
    def initial_cluster(self) -> str:
        """The members by name, as etcd is told of them."""
        return ",".join(f"{member.host}={member.peer_url}" for member in self.members)


class Application(_Part):
    """The user by which the application connects; its password is in the recovery vault."""

    user: str = Field(
        default="", description="User as which the application logs in. Without it, none is shown."
    )
    password: str | None = Field(
        default=None,
        description="Name, in the recovery domain's vault, of the secret with that user's "
        "password. Without it, none is shown.",
    )
    prefix: str = Field(description="What the keys that it reads and writes begin with.")
