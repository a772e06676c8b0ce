"""Which signs make a machine of the recovery side one of the source's, and which do not."""

import time
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typing_extensions import override

from blocks.domain import FailureDomain
from blocks.engines.abilities import KnowsServers, Running
from blocks.engines.command.facts import CommandFacts
from blocks.engines.facts import Peer
from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.hosts.machine import Connection, Machine, MachineUnknown, connections, machine
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store
from tasks.inspect import signs
from tasks.inspect.inspection import Inspection
from tests.conftest import Hanging

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINZV9pDKyj0pMOewDLEX9+ti5C+XcWIxXdG6QcUMfm4G"
IMAGE = frozenset({KEY})


def domain(name: str, net: str, key: str = "") -> FailureDomain:
    host = SSHHost(name="db1", address=f"{net}.1", user="x", identity_file=Path("/k"), host_key=key)
    store = S3Store(endpoint=f"https://{net}.9:9000", bucket="b")
    return FailureDomain(
        name=name, networks=[IPv4Network(f"{net}.0/24")], hosts=[host], store=store
    )


def rehearsal(source: FailureDomain, recovery: FailureDomain, engine: Any = None) -> Any:
    plan = SimpleNamespace(engine=engine)
    return SimpleNamespace(source=source, recovery=recovery, fresh=True, plan=plan)


@pytest.mark.parametrize(
    ("east", "west", "same"),
    [
        (Machine(frozenset(), "b1 net:[1]"), Machine(frozenset(), "b1 net:[1]"), True),
        # Another namespace of one kernel, or another kernel: containers, or clones of an image.
        (
            Machine(frozenset(), "b1 net:[1]", "m1 db", IMAGE),
            Machine(frozenset(), "b1 net:[2]", "m1 db", IMAGE),
            False,
        ),
        (
            Machine(frozenset(), "b1 net:[1]", "m1 db", IMAGE),
            Machine(frozenset(), "b2 net:[1]", "m1 db", IMAGE),
            False,
        ),
        # One does not show its kernel.
        (
            Machine(frozenset(), "b1 net:[1]", "m1 db", IMAGE),
            Machine(frozenset(), "", "m1 db", IMAGE),
            True,
        ),
        (
            Machine(frozenset(), "b1 net:[1]", "m1 db", IMAGE),
            Machine(frozenset(), "", "m1 other", IMAGE),
            False,
        ),
        (Machine(frozenset(), "", "m1 db"), Machine(frozenset(), "", "m1 db"), False),
        (Machine(frozenset()), Machine(frozenset()), False),
        (Machine(frozenset(), "", "", IMAGE), Machine(frozenset(), "", "", IMAGE), False),
    ],
)
def test_one_machine_or_two(
    east: Machine, west: Machine, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, recovery = domain("east", "10.1.0"), domain("west", "10.2.0")
    known = {"east": east, "west": west}
    monkeypatch.setattr(signs, "machine", lambda host: known[host.domain])
    found = list(signs.signs_of_source(rehearsal(source, recovery), Inspection()))
    assert [(item.id, item.subject) for item in found] == (
        [("recovery-is-source", "west/db1")] if same else []
    )


def test_a_pinned_key_is_a_sign_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "machine", lambda _: Machine(frozenset()))
    source, recovery = domain("east", "10.1.0", KEY), domain("west", "10.2.0", f"{KEY} a comment")
    (found,) = signs.signs_of_source(rehearsal(source, recovery), Inspection())
    assert "its SSH host key is that of db1" in found.evidence


def test_a_machine_that_does_not_say_what_it_is_is_none_that_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hides(host: Host) -> Machine:
        if host.domain == "west":
            raise MachineUnknown("it shows none of its own addresses")
        return Machine(frozenset({"10.1.0.1"}), "b1 net:[1]")

    monkeypatch.setattr(signs, "machine", hides)
    seen = Inspection()
    both = rehearsal(domain("east", "10.1.0"), domain("west", "10.2.0"))
    assert list(signs.signs_of_source(both, seen)) == []
    assert seen.unseen == [
        "whether west/db1 is a machine of east: it shows none of its own addresses"
    ]


def test_an_interruption_does_not_wait_for_a_machine_that_hangs(
    monkeypatch: pytest.MonkeyPatch, hanging: Hanging
) -> None:
    def asked(host: Host) -> Machine:
        if host.domain == "east":
            hanging.hang()
        hanging.interrupt()

    monkeypatch.setattr(signs, "machine", asked)
    both = rehearsal(domain("east", "10.1.0"), domain("west", "10.2.0"))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(signs.signs_of_source(both, Inspection()))
    assert time.monotonic() - began < 10


def test_the_connections_that_a_host_made() -> None:
    lines = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 0702000A:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   2: 0702000A:0016 0501000A:C350 01 00000000:00000000 00:00000000 00000000
   3: 0702000A:9C40 0501000A:1538 01 00000000:00000000 00:00000000 00000000
   4: 0702000A:9C41 0501000A:1538 06 00000000:00000000 00:00000000 00000000
   5: 0100007F:9C42 0100007F:1538 01 00000000:00000000 00:00000000 00000000
   0: 0000000000000000FFFF00000702000A:9C43 0000000000000000FFFF00000601000A:0CEA 01 0:0 0:0 0
   1: B80D0120000000000000000001000000:9C44 B80D0120000000000000000009000000:094B 01 0:0 0:0 0
"""
    answer = SimpleNamespace(text=lines)
    host: Any = SimpleNamespace(run=lambda _: answer)
    assert connections(host) == {
        Connection(0x9C40, "10.0.1.5", 5432),
        Connection(0x9C43, "10.0.1.6", 3306),
        Connection(0x9C44, "2001:db8::9", 2379),
    }


@pytest.mark.parametrize("said", ["", "cat: /proc/net/tcp: Permission denied\n"])
def test_a_host_that_does_not_show_its_connections_may_have_some(said: str) -> None:
    answer = SimpleNamespace(text=said)
    host: Any = SimpleNamespace(run=lambda _: answer, domain="west", name="db1")
    with pytest.raises(MachineUnknown, match="connections"):
        connections(host)


def test_this_machine_says_what_it_is() -> None:
    own = machine(LocalHost(name="here"))
    assert own.stack
    assert own.is_same(machine(LocalHost(name="there")))
    assert all(key.startswith(("ssh-", "ecdsa-", "sk-")) for key in own.keys)


FACTS = CommandFacts("7.0", 1)


class Engine(KnowsServers):
    @override
    def running(self, facts: Any, host: Host) -> Running:
        return Running(("the source's server runs there: process 7 in /d",), ("process 8",))


def test_a_server_of_the_source_on_a_recovery_host() -> None:
    seen = Inspection()
    source, recovery = domain("east", "10.1.0"), domain("west", "10.2.0")
    one = rehearsal(source, recovery, Engine())
    (found,) = signs.servers_of_source(one, FACTS, seen)
    assert (found.id, found.subject, found.stops) == ("recovery-is-source", "west/db1", True)
    assert seen.unseen == ["what runs on west/db1: process 8"]


@pytest.mark.parametrize(
    ("peer", "on_hosts", "subject"),
    [
        (Peer("standby", "10.2.0.1", True), True, "west/db1"),  # the address in the plan
        (Peer("barman", "10.2.0.1", False), True, "west/db1"),
        (Peer("standby", "192.0.2.7", True), True, "west/db1"),  # another one of that machine's
        (Peer("standby", "::ffff:192.0.2.7", False), True, "west/db1"),
        (Peer("standby", "10.2.0.77", True), False, "west/10.2.0.77"),  # another machine of west
        (Peer("standby", "10.2.0.77", True), True, ""),
        (Peer("barman", "10.2.0.77", False), False, ""),
        (Peer("standby", "10.1.0.2", True), False, ""),
    ],
)
def test_what_the_source_works_with_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch, peer: Peer, on_hosts: bool, subject: str
) -> None:
    """Commits of production would wait for a standby that a fence hides, as long as it stands."""
    facts: Any = SimpleNamespace(peers=lambda: (peer,))
    monkeypatch.setattr(signs, "machine", lambda _host: Machine(frozenset({"192.0.2.7"})))
    one = rehearsal(domain("east", "10.1.0"), domain("west", "10.2.0"))
    one.plan.fence = SimpleNamespace(is_on_hosts=on_hosts)
    found = list(signs.peers_of_source(one, facts))
    assert [(item.id, item.subject, item.stops) for item in found] == (
        [("recovery-is-source", subject, True)] if subject else []
    )


def test_a_lab_on_loopback_is_one_machine_on_purpose() -> None:
    lab = domain("east", "127.0.1"), domain("west", "127.0.2")
    assert list(signs.servers_of_source(rehearsal(*lab, Engine()), FACTS, Inspection())) == []
