"""What is said to nftables, checked by nft itself, and what it says."""

import json
import subprocess
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.fences import ruleset
from blocks.ids import name_of
from deployments.lab import namespaces

TABLE = name_of("r20260101-000000-aaaaaa")

networks = st.lists(
    st.one_of(
        st.builds(
            lambda number, length: IPv4Network((number >> 32 - length << 32 - length, length)),
            st.integers(1, 2**32 - 1),
            st.integers(8, 32),
        ),
        st.builds(
            lambda number, length: IPv6Network((number >> 128 - length << 128 - length, length)),
            st.integers(1, 2**128 - 1),
            st.integers(16, 128),
        ),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.usefixtures("can_have_namespaces")
@settings(max_examples=40, deadline=None)
@given(networks, st.integers(1, 65535))
def test_nft_takes_the_rules(networks: list[ruleset.Network], port: int) -> None:
    rules = ruleset.ruleset(TABLE, networks, port)
    done = subprocess.run(
        [namespaces.tool("nft"), "--check", "--file", "-"],
        input=rules,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + rules


def test_tables_of_others_are_left_alone() -> None:
    listing = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": TABLE, "handle": 4}},
            {"table": {"family": "ip", "name": TABLE, "handle": 5}},
            {"table": {"family": "inet", "name": "docker", "handle": 6}},
            {"table": {"family": "inet", "name": "farside_allow", "handle": 7}},
            {"table": {"family": "inet", "name": f"{TABLE}_2", "handle": 8}},
        ]
    }
    assert ruleset.tables(json.dumps(listing)) == [TABLE]
    assert ruleset.handles(json.dumps(listing)) == {TABLE: 4}
    assert TABLE == "farside_r20260101_000000_aaaaaa"


def test_denied_calls() -> None:
    element = {
        "val": {"concat": ["10.1.0.5", "udp", 53, 65534]},
        "expires": ruleset.MEMORY_SECONDS - 3,
        "counter": {"packets": 2, "bytes": 62},
    }
    listing = {"nftables": [{"set": {"name": "called_ip", "elem": [{"elem": element}]}}]}
    (call,) = ruleset.denied_calls(json.dumps(listing))
    assert call == ruleset.DeniedCall("10.1.0.5", "udp", 53, "65534", 2, 3.0)
    another = json.dumps({"nftables": [{"set": {"table": "docker", "elem": [{"elem": element}]}}]})
    assert list(ruleset.denied_calls(another, TABLE)) == []
    assert list(ruleset.denied_calls('{"nftables": [{"set": {"name": "called_ip"}}]}')) == []
