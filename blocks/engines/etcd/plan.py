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

    host: str = Field(description="Host of the source domain that takes the snapshot")
    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1, description="Client URLs of the members; the first that serves is used"
    )
    bin_dir: Directory
    ca_file: str = Field(description="On that host: who vouches for the members' certificates")
    cert_file: str = Field(
        default="", description="On that host: farside's own, where clients must show one"
    )
    key_file: str = ""
    user: str = Field(default="root", description="A user with the role root")
    password: str | None = Field(
        default=None,
        description="Name of that user's password in the source's vault; none: nobody is asked for",
    )


class Member(_Part):
    """One member of the restored cluster: its host, address, ports, directory and certificate."""

    host: str
    address: Address
    client_port: Port = 2379
    peer_port: Port = 2380
    data_dir: Directory = Field(description="Must be empty or absent")
    cert_file: str = Field(description="On that host, for clients and for the other members")
    key_file: str

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

    members: tuple[Member, ...] = Field(min_length=1)
    bin_dir: Directory
    ca_file: str = Field(description="On every host: the recovery domain's own authority")
    password: str | None = Field(
        default=None,
        description="Name, in the recovery vault, of the password of the source's user",
    )
    client_cert_auth: bool | None = Field(
        default=None,
        description="Clients must show a certificate, too; farside shows the first member's."
        " Default: as at the source, by whether farside shows one there (source.cert_file)",
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

    user: str = ""
    password: str | None = Field(default=None, description="None: nobody is asked for one")
    prefix: str = Field(description="Keys that it may read and write begin with this")
