"""Fences: make the source domain unreachable, show who still calls there, lift it again."""

from typing import Annotated

from pydantic import Field

from blocks.fences.command import CommandFence
from blocks.fences.nftables import NftablesFence
from blocks.fences.several import SeveralFences

AnyFence = Annotated[CommandFence | NftablesFence | SeveralFences, Field(discriminator="kind")]
"""Any kind of fence, told apart by `kind`."""
