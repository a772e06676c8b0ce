"""Where a text mentions what belongs to a domain."""

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.artifact.mentions import Belongings

EAST = Belongings(
    networks=("10.1.0.0/16", "fd00:1::/32"),
    suffixes=("east.example",),
    places=("192.0.2.7", "vault.example.org"),
    paths=("/mnt/east",),
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host=10.1.2.3 port=5432", ["10.1.2.3"]),
        ("postgres://u:p@10.1.2.3:5432/db", ["10.1.2.3"]),
        ("'10.1.2.3','10.1.2.3'", ["10.1.2.3"]),
        ("server db1.east.example;", ["db1.east.example"]),
        ("DB1.East.Example.", ["DB1.East.Example"]),
        ("east.example", ["east.example"]),
        ("[fd00:1::5]:443", ["fd00:1::5"]),
        ("curl https://vault.example.org/x", ["vault.example.org"]),
        ("192.0.2.7", ["192.0.2.7"]),
        # What only looks like it.
        ("10.10.1.2 and 110.1.2.3", []),
        ("version 10.1.2.3.4", []),
        ("northeast.example", []),
        ("db1.east.example.com", []),
        ("12:30:45", []),
        ("select a::int", []),
    ],
)
def test_places(text: str, found: list[str]) -> None:
    assert EAST.places_in(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/mnt/east", ["/mnt/east"]),
        ("COPY t FROM '/mnt/east/x.csv'", ["/mnt/east"]),
        ("/mnt/eastern/x", []),
        ("/srv/mnt/east-2", []),
    ],
)
def test_paths(text: str, found: list[str]) -> None:
    assert EAST.paths_in(text) == found


def test_lines_are_counted_from_one() -> None:
    text = "a\nhost 10.1.0.9 on /mnt/east\n\nb.east.example"
    assert list(EAST.lines(text)) == [
        (2, "10.1.0.9"),
        (2, "/mnt/east"),
        (4, "b.east.example"),
    ]


@given(st.ip_addresses(), st.text(" \t'\"=,;()@<>", min_size=1, max_size=3))
def test_every_address_of_its_networks_and_no_other(address: object, around: str) -> None:
    ip = ip_address(str(address))
    own = ip in IPv4Network("10.1.0.0/16") or ip in IPv6Network("fd00:1::/32")
    own = own or str(ip) == "192.0.2.7"
    assert EAST.places_in(f"x{around}{ip}{around}y") == ([str(ip)] if own else [])


@given(st.ip_addresses(network="10.1.0.0/16"))
def test_its_own_are_found(address: object) -> None:
    assert EAST.places_in(f"host={address} x") == [str(address)]
