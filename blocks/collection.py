"""The entry point `prefect.collections`: importing it makes farside's blocks known to Prefect."""

from blocks.domain import FailureDomain
from blocks.engines.registry import engines
from blocks.fences.command import CommandFence
from blocks.fences.nftables import NftablesFence
from blocks.fences.several import SeveralFences
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost
from blocks.plan.model import Plan
from blocks.stores.s3 import S3Store
from blocks.vaults.host import HostVault

__all__ = [
    "CommandFence",
    "FailureDomain",
    "HostVault",
    "LocalHost",
    "NftablesFence",
    "Plan",
    "S3Store",
    "SSHHost",
    "SeveralFences",
]

# `prefect block register -m blocks.collection` takes what this module holds.
globals().update({engine.__name__: engine for engine in engines().values()})
