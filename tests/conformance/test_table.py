"""No implementation of a contract is without its suite."""

from collections.abc import Iterator, Sequence

import pytest

from blocks import collection
from blocks.block import DomainPart
from blocks.fences.fence import Fence
from blocks.hosts.host import Host
from blocks.stores.store import ObjectStore
from blocks.vaults.vault import KeyVault
from tests.conformance.table import FENCES, HOSTS, STORES, VAULTS, Implementation


def fulfilling(contract: type[DomainPart]) -> Iterator[type[DomainPart]]:
    """All classes of farside's that fulfil a contract."""
    for below in contract.__subclasses__():
        if below.__module__.startswith("blocks."):
            yield from fulfilling(below)
            if below in vars(collection).values():
                yield below


@pytest.mark.parametrize(
    ("contract", "table"),
    [(Host, HOSTS), (ObjectStore, STORES), (KeyVault, VAULTS), (Fence, FENCES)],
    ids=["host", "store", "vault", "fence"],
)
def test_every_implementation_is_in_the_table(
    contract: type[DomainPart], table: Sequence[Implementation]
) -> None:
    assert {item.block for item in table} == set(fulfilling(contract))
