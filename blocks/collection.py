"""The entry point `prefect.collections`: importing it makes farside's blocks known to Prefect."""

from blocks.domain import FailureDomain
from blocks.fences import CommandFence, NftablesFence, SeveralFences
from blocks.hosts import LocalHost, SSHHost
from blocks.stores import S3Store
from blocks.vaults import HostVault

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
