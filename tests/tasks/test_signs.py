"""Which signs make a machine of the recovery side one of the source's, and which do not."""

from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.domain import FailureDomain
from blocks.engines.base import Running
from blocks.hosts import Host, LocalHost, SSHHost
from blocks.machine import Machine, MachineUnknown, machine
from blocks.stores import S3Store
from tasks import signs
from tasks.inspection import Inspection

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


def test_this_machine_says_what_it_is() -> None:
    own = machine(LocalHost(name="here"))
    assert own.stack
    assert own.is_same(machine(LocalHost(name="there")))
    assert all(key.startswith(("ssh-", "ecdsa-", "sk-")) for key in own.keys)


class Engine:
    def running(self, facts: Any, host: Host) -> Running:  # noqa: ARG002
        return Running(("the source's server runs there: process 7 in /d",), ("process 8",))


def test_a_server_of_the_source_on_a_recovery_host() -> None:
    seen = Inspection()
    source, recovery = domain("east", "10.1.0"), domain("west", "10.2.0")
    one = rehearsal(source, recovery, Engine())
    (found,) = signs.servers_of_source(one, {}, seen)
    assert (found.id, found.subject, found.stops) == ("recovery-is-source", "west/db1", True)
    assert seen.unseen == ["what runs on west/db1: process 8"]


def test_a_lab_on_loopback_is_one_machine_on_purpose() -> None:
    lab = domain("east", "127.0.1"), domain("west", "127.0.2")
    assert list(signs.servers_of_source(rehearsal(*lab, Engine()), {}, Inspection())) == []
