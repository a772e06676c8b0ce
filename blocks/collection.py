"""The entry point `prefect.collections`: importing it makes farside's blocks known to Prefect."""

from blocks.domain import FailureDomain
from blocks.fences.command import CommandFence
from blocks.fences.nftables import NftablesFence
from blocks.fences.several import SeveralFences
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store
from blocks.vaults.host import HostVault

__all__ = [
    "CommandFence",
    "FailureDomain",
    "HostVault",
    "LocalHost",
    "NftablesFence",
    "S3Store",
    "SSHHost",
    "SeveralFences",
]
