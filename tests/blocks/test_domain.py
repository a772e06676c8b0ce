"""A failure domain: whose address is this, and whose use was that."""

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.domain import FailureDomain
from blocks.errors import PermanentError
from blocks.evidence.uses import new_ledger
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost


def settings(**changes: object) -> dict[str, Any]:
    ssh = {"kind": "ssh", "user": "op", "identity_file": "/keys/op"}
    return {
        "name": "east",
        "networks": ["10.1.0.0/16", "fd00:1::/32"],
        "names": ["east.example"],
        "hosts": [
            {**ssh, "name": "db1", "address": "10.1.0.11"},
            {**ssh, "name": "db2", "address": "192.0.2.7", "port": 2222},
            {"kind": "local", "name": "here"},
        ],
        "store": {"kind": "s3", "endpoint": "https://s3.example:9000", "bucket": "b"},
        "vault": {
            "kind": "host",
            "directory": "/vault",
            "host": {**ssh, "name": "vault", "address": "vault.example"},
        },
    } | changes


@pytest.fixture
def east() -> FailureDomain:
    return FailureDomain(**settings())


def test_hosts_by_name(east: FailureDomain) -> None:
    assert isinstance(east.host("db2"), SSHHost)
    assert isinstance(east.host("here"), LocalHost)
    with pytest.raises(PermanentError, match="no host 'db3'; there are db1, db2, here"):
        east.host("db3")


@pytest.mark.parametrize(
    ("address", "owned"),
    [
        ("10.1.255.255", True),
        ("10.2.0.1", False),
        ("fd00:1::7", True),
        ("fd00:2::7", False),
        ("192.0.2.7", True),
        ("127.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_addresses(east: FailureDomain, address: str, owned: bool) -> None:
    assert east.owns_address(address) is owned
    assert east.owns_name(address) is owned


@pytest.mark.parametrize(
    ("name", "owned"),
    [
        ("east.example", True),
        ("DB1.East.Example.", True),
        ("notheast.example", False),
        ("east.example.com", False),
        ("s3.example", True),
        ("vault.example", True),
        ("other.example", False),
    ],
)
def test_names(east: FailureDomain, name: str, owned: bool) -> None:
    assert east.owns_name(name) is owned


def test_endpoints(east: FailureDomain) -> None:
    more = [("10.1.0.11", 5432), ("10.1.0.11", 22)]
    assert east.endpoints(more) == [
        ("10.1.0.11", 22),
        ("192.0.2.7", 2222),
        ("vault.example", 22),
        ("s3.example", 9000),
        ("10.1.0.11", 5432),
    ]


def test_everything_in_it_knows_its_domain(east: FailureDomain) -> None:
    with new_ledger() as uses:
        east.host("here").run(["true"])
    assert {use.domain for use in uses.uses()} == {"east"}
    assert east.vault is not None
    assert {east.store.domain, east.vault.domain, east.vault.host.domain} == {"east"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hosts": []}, "hosts"),
        ({"hosts": [{"kind": "local", "name": "a"}] * 2}, "two hosts are called a"),
        ({"hosts": [{"kind": "telnet", "name": "a"}]}, "telnet"),
        ({"networks": ["10.1.0.1/16"]}, "networks"),
        ({"networks": ["::ffff:10.1.0.0/112"]}, "write it as IPv4"),
        ({"colour": "red"}, "colour"),
        ({"name": "east/west"}, "name"),
    ],
)
def test_what_is_no_domain(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        FailureDomain(**settings(**changes))


def test_a_saved_block_can_be_read_again(east: FailureDomain) -> None:
    """Prefect writes the type of a block into its document, also of those inside it."""
    document = east.model_dump(mode="json")
    assert document["hosts"][0]["block_type_slug"] == "farside-ssh-host"
    again = FailureDomain.model_validate(document)
    assert again.model_dump() == east.model_dump()
    document["hosts"][0]["block_type_slug"] = "farside-s3-store"
    with pytest.raises(ValidationError, match="farside-s3-store"):
        FailureDomain.model_validate(document)


def test_no_library_is_loaded_before_it_is_needed() -> None:
    """Prefect imports the catalogue whenever it starts."""
    script = "import blocks.collection, sys; print({'paramiko', 'botocore'} & set(sys.modules))"
    done = LocalHost().run([sys.executable, "-c", f"import os; os.chdir({str(ROOT)!r}); {script}"])
    assert done.text == "set()"


ROOT = Path(__file__).parents[2]


def test_what_only_one_domain_is_called(east: FailureDomain) -> None:
    assert not east.belongings.aliases
    ssh = {"kind": "ssh", "user": "op", "identity_file": "/keys/op"}
    hosts = [{**ssh, "name": "db1", "address": "VAULT.west.example"}]
    west = FailureDomain(**settings(name="west", hosts=hosts, vault=None))
    east.tell_apart(west)
    assert east.belongings.aliases == ("db2", "here")
