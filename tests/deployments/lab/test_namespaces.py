"""The lab whose hosts are network namespaces, and the fence of packet filters on them."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from blocks.agent.protocol.jobs import ProbeJob
from blocks.errors import PermanentError
from blocks.fences import nftables
from blocks.fences.fence import Attempt, Gap
from blocks.fences.nftables import NftablesFence
from blocks.fences.several import SeveralFences
from blocks.hosts.host import Host
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.remote.jobs import probe_from
from deployments import lab
from deployments.lab import lifecycle, namespaces
from deployments.lab.accounts import UNPRIVILEGED
from deployments.lab.places import Places
from deployments.lab.state import load_state, save_state
from tests.deployments.lab.conftest import CHECKOUT, LabUnderTest

pytestmark = pytest.mark.usefixtures("can_have_namespaces")
ID = "r20260101-000000-aaaaaa"
T = TypeVar("T")
PING = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
    try:
        raw.sendto(bytes([8, 0, 0xF7, 0xFF, 0, 0, 0, 0]), (sys.argv[1], 0))
    except PermissionError:
        pass  # that is what a packet filter that rejects looks like
"""


def said(*argv: str) -> str:
    """What a command of the system prints."""
    argv = (namespaces.tool(argv[0]), *argv[1:])
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def prefix_of(places: Places) -> str:
    """What the names of a lab's namespaces begin with."""
    state = load_state(places)
    assert state is not None
    assert state.namespaces is not None
    return state.namespaces


def traces(prefix: str) -> list[str]:
    """Every line of the kernel's listings that tells of a lab; others may be there as well."""
    mine = re.compile(rf"\b({prefix}|{prefix.replace('farside', 'fs')})-")
    listings = (
        said("ip", "netns", "list"),
        said("ip", "-brief", "link"),
        said("ip", "route"),
        said("cat", "/proc/mounts"),
        "\n".join(map(str, Path("/etc").glob("netns/*"))),
    )
    return [line for text in listings for line in text.splitlines() if mine.search(line)]


Holder = tuple[int, int]


def holder(prefix: str) -> Holder | None:
    """What tells the lab that has a prefix from one that had it, or has it next; None: nobody."""
    try:
        first = Path(f"/run/netns/{prefix}-east").stat()
    except FileNotFoundError:
        return None
    return first.st_ino, first.st_ctime_ns


def assert_gone(prefix: str, held_by: Holder | None) -> None:
    """Nothing is there of a lab that was taken down. Another may have its prefix by now."""
    left = traces(prefix)
    assert left == [] or holder(prefix) not in (None, held_by), left


@pytest.fixture(scope="module")
def under_test(open_directory: Path) -> Iterator[LabUnderTest]:
    """A lab of namespaces; whatever its tests did, the machine is as it was before."""
    filters = said("nft", "list", "ruleset")
    under_test = LabUnderTest(Places.at(open_directory / "netns"))
    lab.up(under_test.root, scale=1, network="netns")
    prefix = prefix_of(under_test.places)
    held_by = holder(prefix)
    yield under_test
    assert traces(prefix)
    lab.down(under_test.root)
    assert_gone(prefix, held_by)
    assert said("nft", "list", "ruleset") == filters, "this machine's own are as they were"


@pytest.fixture
def plan(under_test: LabUnderTest) -> Iterator[Plan]:
    """The lab's plan, with everything up."""
    lab.up(under_test.root)
    loaded = load_plan(lab.plan_path(under_test.root, "postgres"))
    yield loaded
    loaded.source.close()
    loaded.recovery.close()


@pytest.fixture
def fence(plan: Plan) -> Iterator[NftablesFence]:
    """The packet filters alone, without the loss of east."""
    assert isinstance(plan.fence, SeveralFences)
    _, filters = plan.fence.fences
    assert isinstance(filters, NftablesFence)
    for host in plan.recovery.hosts:
        # A bare directory, left by the test before, is that of a dead rehearsal after a minute.
        shutil.rmtree(Path(host.work_root) / ID, ignore_errors=True)
    yield filters
    filters.lift(plan.gap())


@pytest.fixture
def db1(plan: Plan) -> Host:
    return plan.recovery.host("db1")


def endpoint(plan: Plan) -> tuple[str, int]:
    """Where east's primary listens."""
    return plan.engine.source_endpoints[0]


def knock(host: Host, address: str, port: int, kind: str = "tcp") -> None:
    """Call from a host, as any program of its may; what comes of it does not matter."""
    script = f"exec 3<>/dev/{kind}/{address}/{port} && echo x >&3 && timeout 2 cat <&3; true"
    host.run(["bash", "-c", script], check=False)


def caught_by(fence: NftablesFence, gap: Gap) -> tuple[Attempt, ...]:
    """The calls; that all could be seen is shown by the way."""
    seen = fence.attempts(gap)
    assert seen.unseen == ()
    return seen.attempts


def soon(ask: Callable[[], Sequence[T]]) -> Sequence[T]:
    """What `ask` finds, once it finds something."""
    give_up = time.monotonic() + 10
    while not (found := ask()) and time.monotonic() < give_up:
        time.sleep(0.1)
    return found


class TestHosts:
    def test_each_has_an_address_names_and_sshd_of_its_own(self, plan: Plan) -> None:
        for domain in (plan.source, plan.recovery):
            for host in domain.machines():
                script = "hostname -I; cat /etc/hosts; readlink /proc/self/ns/net; whoami"
                text = host.run(["sh", "-c", script]).text
                assert text.split()[0] == host.address
                assert f"{host.address} {host.name}.{domain.name}.lab {host.name}\n" in text
                assert text.endswith("\nnobody")
        east, west = (
            domain.host("db1").run(["cat", "/etc/hosts"]).text
            for domain in (plan.source, plan.recovery)
        )
        assert ".west.lab" not in east
        assert ".east.lab" not in west

    def test_the_way_between_domains_is_the_link(
        self, under_test: LabUnderTest, plan: Plan, db1: Host
    ) -> None:
        state = load_state(under_test.places)
        assert state is not None
        before = namespaces.carried(state.sites[1])
        assert probe_from(db1, ID, ProbeJob(endpoints=(endpoint(plan),))) == ("open",)
        assert namespaces.carried(state.sites[1]) > before
        under_test.command("wan", "--cut")
        assert probe_from(db1, ID, ProbeJob(endpoints=(endpoint(plan),), timeout=1.0)) == (
            "timeout",
        )
        under_test.command("wan", "--rate", "50mbit")
        assert probe_from(db1, ID, ProbeJob(endpoints=(endpoint(plan),))) == ("open",)
        shaper = said("tc", "-netns", f"{state.namespaces}-east", "qdisc", "show", "dev", "wan")
        assert "tbf" in shaper
        assert "rate 50Mbit" in shaper
        under_test.command("wan", "--rate", namespaces.RATE)

    def test_a_loopback_lab_has_no_link(self, running: LabUnderTest) -> None:
        assert "has no WAN link" in running.command("wan", "--cut", check=False)
        with pytest.raises(PermanentError, match="with network loopback, not netns"):
            lab.up(running.root, network="netns")

    def test_losing_east(self, under_test: LabUnderTest, plan: Plan, db1: Host) -> None:
        under_test.command("lose", "east")
        state = load_state(under_test.places)
        assert state is not None
        east = [str(state.sites[0].namespace(host)) for host in state.sites[0].hosts]
        assert [said("ip", "netns", "pids", name) for name in east] == [""] * len(east)
        assert probe_from(db1, ID, ProbeJob(endpoints=(endpoint(plan),), timeout=1.0)) == (
            "timeout",
        )
        calling = socket.create_connection(endpoint(plan), timeout=5)
        with calling, pytest.raises(ConnectionResetError):
            calling.recv(1)
        (attempt,) = under_test.attempts()
        assert (attempt["pid"], attempt["port"]) == (os.getpid(), 5432)


class TestFence:
    def test_a_call_is_caught_with_its_process(
        self, plan: Plan, fence: NftablesFence, db1: Host
    ) -> None:
        gap, (address, port) = plan.gap(ID), endpoint(plan)
        fence.check(gap)
        fence.cut(gap)
        fence.cut(gap)  # a second time does no harm
        assert probe_from(db1, ID, ProbeJob(endpoints=gap.endpoints)) == ("reset",) * len(
            gap.endpoints
        )
        knock(db1, address, port)
        caught = soon(lambda: [a for a in caught_by(fence, gap) if "bash" in (a.process or "")])
        assert {(a.host, a.address, a.port) for a in caught} == {("db1", address, port)}
        assert caught[0].pid is not None
        table = said(
            "ip",
            "netns",
            "exec",
            str(self._namespace(plan)),
            namespaces.tool("nft"),
            "list",
            "counters",
        )
        assert "counter redirected" in table
        fence.lift(gap)
        fence.lift(gap)
        assert probe_from(db1, ID, ProbeJob(endpoints=((address, port),))) == ("open",)
        assert self._filters(plan) == ""

    def test_other_protocols_are_noted_by_account(
        self, plan: Plan, fence: NftablesFence, db1: Host
    ) -> None:
        gap, (address, _) = plan.gap(ID), endpoint(plan)
        fence.cut(gap)
        knock(db1, address, 53, kind="udp")
        (attempt,) = caught_by(fence, gap)
        assert (attempt.host, attempt.address, attempt.port, attempt.pid) == (
            "db1",
            address,
            53,
            None,
        )
        assert "account 65534 on db1, over udp, 1 times" in (attempt.process or "")

    def test_what_has_no_port_or_no_account_is_noted_too(
        self, plan: Plan, fence: NftablesFence
    ) -> None:
        """ICMP; and what a guest on the host sends, which the host only passes on."""
        gap, (address, _) = plan.gap(ID), endpoint(plan)
        fence.cut(gap)
        enter = ("ip", "netns", "exec", self._namespace(plan))
        said(*enter, sys.executable, "-c", PING, address)
        guest = f"{self._namespace(plan)}-guest"
        said("ip", "netns", "add", guest)
        try:
            link = f"link add up0 netns {guest} type veth peer name guest0 netns"
            said("ip", *link.split(), self._namespace(plan))
            for name, end, own in ((guest, "up0", "10.99.0.2"), (enter[-1], "guest0", "10.99.0.1")):
                said("ip", "-netns", name, "address", "add", f"{own}/24", "dev", end)
                said("ip", "-netns", name, "link", "set", end, "up")
            said("ip", "-netns", guest, "route", "add", "default", "via", "10.99.0.1")
            said(*enter, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            call = f"import socket; s = socket.socket({{}}); s.connect(('{address}', {{}}))"
            udp = call.format("type=socket.SOCK_DGRAM", 53) + "; s.send(b'x')"
            tcp = call.format("", 443).replace("s.connect", "s.settimeout(0.5); s.connect_ex")
            for script in (udp, tcp):
                said("ip", "netns", "exec", guest, sys.executable, "-c", script)
        finally:
            said("ip", "netns", "delete", guest)
        found = {(item.port, item.process) for item in caught_by(fence, gap)}
        assert {(port, "of account" in str(process)) for port, process in found} == {
            (0, False),
            (53, False),
            (443, False),
        }
        assert all(str(process).startswith("the kernel, or a guest on db1") for _, process in found)

    def test_two_fences_at_once_would_hide_each_others_calls(
        self, plan: Plan, fence: NftablesFence
    ) -> None:
        gap, other = plan.gap(ID), plan.gap("r20260101-000000-bbbbbb")
        fence.cut(gap)
        second = NftablesFence(nft_argv=fence.nft_argv)
        for do in (second.check, second.cut):
            with pytest.raises(PermanentError, match=f"fence of rehearsal {ID}") as caught:
                do(other)
            assert caught.value.finding == "target-occupied"
        assert caught_by(fence, gap) == ()

    def test_what_lives_is_not_lifted_by_a_sweep(self, plan: Plan, fence: NftablesFence) -> None:
        fence.cut(plan.gap(ID))
        another = NftablesFence(nft_argv=fence.nft_argv)
        another.lift(replace(plan.gap(), spared=frozenset({ID})))
        assert "farside_" in self._filters(plan)
        another.lift(plan.gap())
        assert self._filters(plan) == ""

    def test_what_works_for_the_source_is_not_cut_off(
        self, plan: Plan, fence: NftablesFence, db1: Host
    ) -> None:
        """A replica that commits wait for, a voter: production would stand still."""
        address, port = endpoint(plan)
        script = f"exec 3<>/dev/tcp/{address}/{port}; echo connected; read go"
        with db1.start(["bash", "-c", script]) as process:
            assert next(iter(process.lines(10))) == "connected"
            for do in (fence.check, fence.cut):
                with pytest.raises(PermanentError, match=f"keeps a connection.*{port}") as caught:
                    do(plan.gap(ID))
                assert caught.value.finding == "recovery-is-source"
            assert self._filters(plan) == ""
            process.write(b"go\n")
            process.wait(20)
        fence.check(plan.gap(ID))

    def test_what_was_connected_before_is_cut_too(
        self, plan: Plan, fence: NftablesFence, db1: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(nftables, "connections", lambda _: frozenset())  # it began just now
        gap, (address, port) = plan.gap(ID), endpoint(plan)
        connect = f"exec 3<>/dev/tcp/{address}/{port}; echo connected"
        script = f"{connect}; read go; echo x >&3; timeout 3 cat <&3"
        with db1.start(["bash", "-c", script]) as process:
            assert next(iter(process.lines(10))) == "connected"
            fence.cut(gap)
            process.write(b"go\n")
            process.wait(20)
        found = caught_by(fence, gap)
        assert [(item.address, item.port, "tcp" in (item.process or "")) for item in found] == [
            (address, port, True)
        ]

    def test_a_watcher_that_dies_is_no_silence(self, plan: Plan, fence: NftablesFence) -> None:
        gap = plan.gap(ID)
        fence.cut(gap)
        assert caught_by(fence, gap) == ()
        for pid in map(int, said("ip", "netns", "pids", self._namespace(plan)).split()):
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0watch\0"):
                os.kill(pid, signal.SIGKILL)
        (problem,) = soon(lambda: fence.attempts(gap).unseen)
        assert "watch: the agent was killed" in str(problem)

    def test_nobody_comes_in_from_the_source(
        self, plan: Plan, fence: NftablesFence, db1: Host
    ) -> None:
        east, target = plan.source.host("db1"), ((db1.address, 2322),)
        assert probe_from(east, ID, ProbeJob(endpoints=target, timeout=1.0)) == ("open",)
        fence.cut(plan.gap(ID))
        assert probe_from(east, ID, ProbeJob(endpoints=target, timeout=1.0)) == ("timeout",)

    def test_a_dead_orchestrators_filters_are_lifted_by_the_sweep(
        self, plan: Plan, fence: NftablesFence
    ) -> None:
        fence.cut(plan.gap(ID))
        another = NftablesFence(nft_argv=fence.nft_argv)  # knows nothing of it
        another.lift(plan.gap("r20260101-000000-bbbbbb"))
        assert "farside_" in self._filters(plan), "another rehearsal's is left alone"
        another.lift(plan.gap())
        assert self._filters(plan) == ""

    def test_an_account_that_may_not(self, plan: Plan) -> None:
        made = NftablesFence(nft_argv=[namespaces.tool("nft")])
        with pytest.raises(PermanentError, match="permitted") as caught:
            made.check(plan.gap(ID))
        assert caught.value.finding == "fence-leaks"

    def test_farside_inside_the_source_would_shut_itself_out(
        self, plan: Plan, fence: NftablesFence
    ) -> None:
        from ipaddress import ip_network

        plan.source.networks.append(ip_network("198.18.0.0/16"))
        with pytest.raises(PermanentError, match="farside comes there from") as caught:
            fence.check(plan.gap(ID))
        assert caught.value.finding == "control-plane-in-source"

    @staticmethod
    def _namespace(plan: Plan) -> str:
        number = int(plan.recovery.host("db1").address.split(".")[2]) - 1
        return f"farside-{number}-west-db1"

    def _filters(self, plan: Plan) -> str:
        nft = namespaces.tool("nft")
        return said("ip", "netns", "exec", self._namespace(plan), nft, "list", "ruleset")


@contextmanager
def begun(root: Path, until: str) -> Iterator["subprocess.Popen[str]"]:
    """`up` in a process of its own, as far as a step."""
    argv = [
        sys.executable,
        "-m",
        "deployments.lab",
        "--root",
        str(root),
        "up",
        "--network",
        "netns",
    ]
    with subprocess.Popen(
        [*argv, "--scale", "1"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(until):
                break
        yield child
        child.kill()


@pytest.mark.parametrize("step", ["making the network", "copying the tools", "starting SSH"])
def test_killed_while_it_comes_up_and_taken_down(open_directory: Path, step: str) -> None:
    root, prefix = open_directory / f"killed-{step.split()[0]}", ""
    try:
        with begun(root, step) as child:
            time.sleep(0.2)
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        prefix = prefix_of(Places.at(root))
        assert traces(prefix)
        held_by = holder(prefix)
    finally:
        lifecycle.down(Places.at(root))
    assert_gone(prefix, held_by)
    assert not root.exists() or not list(root.iterdir())
    shutil.rmtree(root, ignore_errors=True)


def test_nft_is_for_the_services_account_alone(under_test: LabUnderTest) -> None:
    """It has the right to change packet filters in this machine's own network, too."""
    nft = under_test.places.packet_filter("west")
    group = pwd.getpwnam(UNPRIVILEGED).pw_gid
    there = nft.stat()
    assert (there.st_uid, there.st_gid, there.st_mode & 0o7777) == (0, group, 0o750)
    assert os.getxattr(nft, "security.capability")
    with pytest.raises(PermissionError):
        subprocess.run([nft, "--version"], check=True, user=54321, group=54321, extra_groups=[])


def test_where_capabilities_have_no_effect(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    said("mount", "-t", "tmpfs", "-o", "nosuid", "farside-tests", str(tmp_path))
    try:
        with pytest.raises(PermanentError, match="nosuid") as caught:
            lab.up(root, network="netns")
        assert "--root /var/tmp/NAME" in caught.value.hint
        assert not root.exists()
    finally:
        said("umount", str(tmp_path))


def test_after_a_restart_the_prefix_is_another_labs(open_directory: Path) -> None:
    root = open_directory / "restarted"
    places = Places.at(root)
    lab.up(root, scale=1, network="netns")
    state = load_state(places)
    assert state is not None
    save_state(places, replace(state, boot="another"))
    try:
        for word in (["up"], ["lose", "east"], ["wan", "--cut"]):
            said_so = LabUnderTest(places).command(*word, check=False)
            assert "the machine was restarted" in said_so
            assert "deployments.lab down" in said_so
        there = traces(str(state.namespaces))
        lab.down(root)
        assert not root.exists()
        assert traces(str(state.namespaces)) == there
    finally:
        namespaces.remove(str(state.namespaces))
    assert traces(str(state.namespaces)) == []


def test_files_of_namespaces_that_a_restart_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has the prefix since: nothing but files is left of them."""
    prefix = "farside-999"
    folder = Path("/etc/netns", f"{prefix}-east-db1")
    folder.mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(namespaces, "_listed", lambda: iter([f"{prefix}-east"]))
        namespaces.forget(prefix)
        assert folder.exists(), "another lab has it"
    namespaces.forget(prefix)
    assert not folder.exists()


def test_only_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermanentError, match="for root") as caught:
        namespaces.check()
    assert "loopback lab needs no rights" in caught.value.hint


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_PATH", "/nowhere")
    with pytest.raises(PermanentError, match="iproute2, nftables, openssh-server are missing"):
        namespaces.check()
