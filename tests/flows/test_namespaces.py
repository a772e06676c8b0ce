"""Rehearsals between hosts that really are apart: the same plan, partitions, deaths."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from blocks.evidence.record import CheckStatus, Record, Verdict
from blocks.fences import ruleset
from deployments import lab
from deployments.lab import namespaces, processes
from deployments.lab.drills.postgres.live import LivePostgres
from deployments.lab.places import Places
from deployments.lab.site import Site
from deployments.lab.state import load_state
from tests import mechanisms
from tests.blocks.engines.test_command import redis_plan
from tests.flows.conftest import PATIENCE, Outcome, Running, World, whole
from tests.servers import PrefectServer

pytestmark = [pytest.mark.slow(60), pytest.mark.usefixtures("can_have_namespaces")]
#: What a set holds at least, so that it takes a while to cross, and the link's rate meanwhile.
NOISE_MB, RATE_MBIT = 32, 20


@pytest.fixture(scope="module")
def shared_apart(open_directory: Path, prefect: PrefectServer) -> Iterator[tuple[Places, str]]:
    """A lab of namespaces that has a set in west's store."""
    places = Places.at(open_directory / "apart")
    lab.up(places.root, scale=1, network="netns")
    try:
        first = World(places, prefect.ready(), open_directory)
        outcome = first.rehearse(select="fresh")
        assert outcome.code == 0, outcome.text
        yield places, first.api
    finally:
        lab.down(places.root)


@pytest.fixture
def apart(shared_apart: tuple[Places, str], tmp_path: Path) -> World:
    """That lab, whole, with a folder of this test's own."""
    return whole(*shared_apart, tmp_path)


def sites(world: World) -> tuple[Site, Site]:
    state = load_state(world.places)
    assert state is not None
    return state.sites


def wan(world: World, *words: str) -> None:
    """`python -m deployments.lab wan`, as an operator types it."""
    done = world.start("--root", str(world.places.root), "wan", *words, module="deployments.lab")
    assert done.end().code == 0


def listings(world: World) -> dict[str, list[str]]:
    """What there is outside of farside: namespaces, filters, programs, objects."""
    mine = f"{sites(world)[0].namespaces}-"
    named = (line.split()[0] for line in said("ip", "netns", "list").splitlines())
    found = {"namespaces": sorted(name for name in named if name.startswith(mine))}
    for site in sites(world):
        for host in (*site.hosts, site.domain.store):
            name = str(site.namespace(host))
            nft = ("ip", "netns", "exec", name, namespaces.tool("nft"), "list", "ruleset")
            found[f"{name} filters"] = said(*nft).splitlines()
            pids = said("ip", "netns", "pids", name).split()
            found[f"{name} programs"] = sorted({command(pid) for pid in pids})
        store = world.places.store(site.name)
        found[f"{site.name} objects"] = sorted(map(str, store.rglob("*")))
    return found


def said(*argv: str) -> str:
    argv = (namespaces.tool(argv[0]), *argv[1:])
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def command(pid: str) -> str:
    """A program's name. PostgreSQL's backends and SSH's connections come and go."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def outline(record: Record) -> dict[str, object]:
    """What must not depend on the network that the domains are in."""
    assert record.topology.observed is not None
    return {
        "verdict": record.verdict,
        "stages": [(item.name, item.state) for item in record.stages],
        "steps": {(item.name, step.name) for item in record.stages for step in item.steps},
        "checks": [(item.name, item.status, item.expected) for item in record.checks],
        "findings": [(item.id, item.subject) for item in record.findings],
        "uses": {(use.stage, use.kind, use.domain) for use in record.uses},
        "topology": [(node.host, node.role, node.port) for node in record.topology.observed],
        "not verified": record.not_verified,
    }


def rehearsed(world: World, plan: str) -> Record:
    """A rehearsal by the plan's bare name, as anybody runs it."""
    outcome = world.start(plan, "--rto", "1h", "--rpo", "1h").end()
    assert outcome.code == 0, outcome.text
    assert outcome.record is not None
    return outcome.record


@mechanisms.APART
def test_the_same_plan_in_both_labs(world: World, apart: World) -> None:
    before = listings(apart)
    here, there = rehearsed(world, "postgres"), rehearsed(apart, "postgres")
    assert outline(here) == outline(there)
    assert here.topology.observed != there.topology.observed, "only the addresses differ"
    after = listings(apart)
    kept = {key: [item for item in after[key] if item in before[key]] for key in before}
    assert kept == before, "nothing that was there is gone"
    new = {key: sorted({*after[key]} - {*before[key]}) for key in before}
    assert {key for key, items in new.items() if items} <= {"east objects", "west objects"}
    assert all(there.rehearsal_id in item for items in new.values() for item in items)


@mechanisms.APART
@pytest.mark.parametrize(
    "plan",
    [
        "standbys",
        "etcd",
        "galera",
        "redis",
    ],
)
def test_other_shapes_and_engines(apart: World, plan: str) -> None:
    known = plan != "redis"
    record = rehearsed(apart, plan if known else str(redis_plan(apart.places, apart.folder)))
    assert record.verdict is Verdict.VERIFIED
    assert [item.id for item in record.findings if item.accepted is None] == []
    assert record.topology.as_predicted
    assert record.topology.source is not None
    assert apart.left() == []


@mechanisms.APART
@pytest.mark.parametrize(
    ("plan", "dead"),
    [
        ("etcd", "east-etcd-kv1"),
        ("galera", "east-galera-ga1"),
    ],
)
def test_a_source_node_that_is_dead_before_the_snapshot(apart: World, plan: str, dead: str) -> None:
    """The first that is asked: another one is backed up, and all of it comes back."""
    lab.up(apart.places.root, parts=lab.parts_of(plan))
    processes.kill_service(apart.places, dead)
    # By its file: by its name, the lab would be mended first.
    record = rehearsed(apart, str(lab.plan_path(apart.places.root, plan)))
    assert record.verdict is Verdict.VERIFIED
    assert record.topology.as_predicted
    assert len(record.topology.observed or ()) == 3
    lab.up(apart.places.root)
    assert apart.left() == []


@pytest.fixture
def slow(apart: World) -> Iterator[World]:
    """The link is slow, and what crosses it does not compress."""
    noise = (
        "CREATE TABLE noise (body bytea STORAGE EXTERNAL)",
        "INSERT INTO noise SELECT string_agg(decode(md5(random()::text || a), 'hex'), '')"
        f" FROM generate_series(1, {NOISE_MB * 16}) AS a, generate_series(1, 4096) GROUP BY a",
        "CHECKPOINT",
    )
    with apart.ground.living(LivePostgres).sql_undone(
        *noise, undo=("DROP TABLE noise", "CHECKPOINT")
    ):
        wan(apart, "--rate", f"{RATE_MBIT}mbit")
        yield apart
        wan(apart, "--rate", namespaces.RATE)


def partitioned(world: World, seconds: float) -> tuple[Outcome, int]:
    """A rehearsal whose link is cut in the middle of the transfer; bytes that crossed it."""
    east = sites(world)[0]
    running = world.start("postgres", "--rto", "1h", "--rpo", "24h")
    running.until("transfer: started")
    before = namespaces.carried(east)
    while namespaces.carried(east) - before < NOISE_MB * 10**6 / 4:
        time.sleep(0.1)
    wan(world, "--cut")
    time.sleep(seconds)
    if seconds < 60:
        wan(world)
    outcome = running.end()
    return outcome, namespaces.carried(east) - before


@mechanisms.APART
def test_a_partition_that_heals_is_waited_for(slow: World) -> None:
    outcome, carried = partitioned(slow, 20)
    assert outcome.code == 0, outcome.text
    record = outcome.record
    assert record is not None
    assert (record.verdict, record.findings) == (Verdict.VERIFIED, ())
    moved = next(stage.bytes for stage in record.stages if stage.name == "transfer")
    assert moved is not None
    assert moved > NOISE_MB * 10**6
    # It goes on where it was: with frames, TLS and the log, hardly more than the set itself.
    assert carried < 1.25 * moved


@mechanisms.APART
@pytest.mark.slow(160)
def test_a_partition_that_does_not_heal_is_a_finding(slow: World) -> None:
    try:
        outcome, _ = partitioned(slow, 100)
        assert outcome.code == 1, outcome.text
        (finding,) = outcome.findings
        assert finding == "copy-behind"
        said = outcome.said("copy-behind")
        address, port = sites(slow)[0].store
        assert f"{address}:{port}" in said
        assert "look at the store's health and the route to it from this host" in said
    finally:
        wan(slow)
    assert slow.left() == []


@mechanisms.APART
def test_a_recovery_host_that_dies_during_the_restore(apart: World) -> None:
    """Without a word, as a machine dies: nothing answers, nothing refuses. It comes back later."""
    running = apart.start("standbys", "--rto", "1h", "--rpo", "1h")
    name = restoring(apart, running, "db3")
    nft = ("ip", "netns", "exec", name, namespaces.tool("nft"))
    hook = "type filter hook input priority -400; policy drop"
    said(*nft, f"table inet dead {{ chain arriving {{ {hook}; }}; }}")
    try:
        signalled(name, signal.SIGKILL)
        running.until("teardown: started")
    finally:
        said(*nft, "delete", "table", "inet", "dead")
    outcome = running.end()
    assert outcome.code == 1, outcome.text
    assert set(outcome.findings) == {"host-unreachable", "leftovers", "fence-stays"}, outcome.text
    for finding in outcome.findings:
        assert "west/db3" in outcome.said(finding)
    assert outcome.record is not None
    assert outcome.record.verdict is Verdict.FAILED
    assert apart.sweep("standbys").code == 0
    assert apart.left() == []


@mechanisms.APART
@pytest.mark.slow(180)
def test_a_recovery_host_that_hangs_from_the_restore_on(apart: World) -> None:
    """Its kernel takes connections, its programs do nothing."""
    running = apart.start("galera", "--rto", "1h", "--rpo", "1h")
    name = restoring(apart, running, "ga2")
    signalled(name, signal.SIGSTOP)
    try:
        outcome = running.end(patience=2 * PATIENCE)  # silence is believed after a minute, twice
    finally:
        signalled(name, signal.SIGCONT)
    assert outcome.code == 1, outcome.text
    assert set(outcome.findings) == {"host-unreachable", "leftovers", "fence-stays"}, outcome.text
    for finding in outcome.findings:
        assert "west/ga2" in outcome.said(finding)
    assert apart.sweep("galera").code == 0
    assert apart.left() == []


def restoring(world: World, running: Running, host: str) -> str:
    """Wait until something is restored on a host of west; its namespace."""
    running.until("restore: started")
    wait = time.monotonic() + 60
    while not any(world.places.root.glob(f"west/hosts/{host}/recovered/data/*")):
        assert time.monotonic() < wait
        time.sleep(0.1)
    return str(sites(world)[1].namespace(host))


def signalled(namespace: str, number: signal.Signals) -> None:
    for pid in said("ip", "netns", "pids", namespace).split():
        with suppress(ProcessLookupError):  # sessions come and go
            os.kill(int(pid), number)


@mechanisms.APART
def test_the_old_cluster_comes_back_to_life(apart: World) -> None:
    """Somebody gives east back by hand, its hosts, the link and the filters, while west is used."""
    running = apart.start("etcd", "--rto", "1h", "--rpo", "1h")
    restoring(apart, running, "kv1")
    # How long that takes depends on the machine; the rehearsal is not to be over before.
    running.process.send_signal(signal.SIGSTOP)
    try:
        lab.up(apart.places.root)
        for site in sites(apart)[1:]:
            for host in site.hosts:
                nft = ("ip", "netns", "exec", str(site.namespace(host)), namespaces.tool("nft"))
                for name in ruleset.tables(said(*nft, "--json", "list", "tables")):
                    said(*nft, "delete", "table", "inet", name)
    finally:
        running.process.send_signal(signal.SIGCONT)
    outcome = running.end()
    assert (outcome.code, set(outcome.findings)) == (1, {"fence-leaks", "revision-reused"})
    assert outcome.record is not None
    checks = {check.name: check.status for check in outcome.record.checks}
    for name in ("membership", "identity", "key-space", "committed-write"):
        assert checks.get(name) is CheckStatus.PASSED, outcome.text
    assert apart.left() == []


@mechanisms.KILLED
def test_killed_with_the_filters_up(apart: World) -> None:
    before = listings(apart)
    running = apart.start(str(apart.plan()), "--select", "latest", "--rto", "1h", "--rpo", "24h")
    running.until("verify: started")
    running.end(signal.SIGKILL)
    west = [key for key in before if "-west-" in key and key.endswith("filters")]
    assert any("farside_" in line for key in west for line in listings(apart)[key])
    swept = apart.sweep()
    assert swept.code == 0, swept.text
    assert apart.left() == []
    assert {key: listings(apart)[key] for key in west} == {key: [] for key in west}
