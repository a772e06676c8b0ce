"""What the suites run over. A new implementation is one line here, and its fixture in conftest."""

from dataclasses import dataclass

import pytest

from blocks.block import DomainPart
from blocks.fences.command import CommandFence
from blocks.fences.nftables import NftablesFence
from blocks.fences.several import SeveralFences
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store
from blocks.vaults.host import HostVault


@dataclass(frozen=True, slots=True)
class Implementation:
    """A block in one of the ways in which it is used."""

    name: str
    block: type[DomainPart]
    fixture: str
    """What makes it: a fixture that gives what the suite of its contract asks for."""
    can_signal: bool = True
    """Of a host: whether its server passes signals on. OpenSSH does not, to the commands of root:
    of these a time limit closes the streams, and no more."""

    def made(self, request: pytest.FixtureRequest) -> object:
        """What the suite runs over."""
        return request.getfixturevalue(self.fixture)

    def __str__(self) -> str:
        return self.name


HOSTS = (
    Implementation("local", LocalHost, "local_host"),
    Implementation("asyncssh", SSHHost, "asyncssh_host"),
    Implementation("openssh", SSHHost, "openssh_host", can_signal=False),
)
STORES = (
    Implementation("rclone", S3Store, "rclone_store"),
    Implementation("moto", S3Store, "moto_store"),
)
VAULTS = (
    Implementation("files-here", HostVault, "vault_here"),
    Implementation("files-over-ssh", HostVault, "vault_over_ssh"),
    Implementation("locked-files", HostVault, "locked_vault"),
)
FENCES = (
    Implementation("command", CommandFence, "command_fence"),
    Implementation("nftables", NftablesFence, "nftables_fence"),
    Implementation("several", SeveralFences, "several_fences"),
)
