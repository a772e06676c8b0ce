"""Vaults: where a domain keeps its secrets."""

from blocks.vaults.host import HostVault

AnyVault = HostVault
"""Any kind of vault, told apart by `kind`."""
