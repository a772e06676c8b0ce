"""Up, status, lose, up, down, with real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from blocks.errors import PermanentError
from deployments import lab
from deployments.lab import fence
from deployments.lab.places import STAMP, Places
from deployments.lab.state import load_state
from docs.generate import plan_schema
from tests.deployments.lab.conftest import CHECKOUT, LabUnderTest, living
from tests.schemas import schema_errors

KNOCK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as knocking:
    try:
        print(len(knocking.recv(1)))
    except ConnectionResetError:
        print("reset")
"""


def shared_memory(creators: set[int]) -> list[str]:
    """System V segments that these processes made."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [line.split()[1] for line in lines if int(line.split()[4]) in creators]


def test_up_leaves_alone_what_is_up(running: LabUnderTest) -> None:
    notes = {p: p.read_text() for p in running.places.processes.glob("*.json")}
    plan = lab.plan_path(running.root, "postgres").stat().st_mtime_ns
    assert not lab.up(running.root).fresh
    assert {p: p.read_text() for p in running.places.processes.glob("*.json")} == notes
    assert lab.plan_path(running.root, "postgres").stat().st_mtime_ns == plan
    assert lab.is_up(running.root)
    assert "not ready" not in running.command("status")


def test_an_editor_finds_no_mistake_in_the_plans(running: LabUnderTest) -> None:
    for name in lab.plans():
        document = yaml.safe_load(lab.plan_path(running.root, name).read_text())
        assert schema_errors(document, plan_schema()) == [], name


def test_services_are_nobodys_children_and_not_roots(running: LabUnderTest) -> None:
    for note in running.places.processes.glob("*.json"):
        process = psutil.Process(running.pid(note.stem))
        assert process.ppid() != os.getpid()
        assert 0 not in (process.uids().effective, process.gids().effective)
        with process.oneshot():
            assert process.terminal() is None
            assert process.environ().keys().isdisjoint({"USER", "VIRTUAL_ENV", "PYTEST_VERSION"})


@pytest.mark.parametrize(
    "service", ["east-postgres-db1", "east-postgres-db2", "west-ssh-db1", "east-store"]
)
def test_what_was_killed_is_started_again(running: LabUnderTest, service: str) -> None:
    old = running.pid(service)
    os.kill(old, signal.SIGKILL)
    running.up()
    assert running.pid(service) != old
    assert lab.is_up(running.root)


def test_losing_east(running: LabUnderTest) -> None:
    east, engine = running.places.tree("east"), running.plan["engine"]
    running.command("lose", "east", "--check")
    assert lab.is_up(running.root), "asked only"
    assert "cannot be lost" in running.command("lose", "west", "--check", check=False)
    running.command("lose", "east")
    assert living(east) == []
    assert east.stat().st_mode & 0o777 == 0
    assert not lab.is_up(running.root)
    assert "east is lost" in running.command("status", check=False)

    time.sleep(1)
    assert running.attempts() == [], "east's own processes do not call it while they die"

    address, port = engine["source"]["address"], engine["source"]["port"]
    argv = [sys.executable, "-c", KNOCK, address, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as knocking:
        assert knocking.communicate(timeout=10)[0].strip() == "reset"
    [attempt] = [a for a in running.attempts() if a["pid"] == knocking.pid]
    assert (attempt["host"], attempt["address"], attempt["port"]) == ("db1", address, port)
    assert address in attempt["process"]

    # Lost is lost: once more changes nothing, and forgets nothing.
    watching = running.pid("fence-tripwires")
    running.command("lose", "east")
    assert running.pid("fence-tripwires") == watching
    assert attempt in running.attempts()

    for host in running.plan["source"]["hosts"]:
        endpoint = (host["address"], host["port"])
        with (
            socket.create_connection(endpoint, timeout=5) as caller,
            pytest.raises(ConnectionResetError),
        ):
            caller.recv(1)
    for host in running.plan["recovery"]["hosts"]:
        with socket.create_connection((host["address"], host["port"]), timeout=5) as caller:
            assert caller.recv(8).startswith(b"SSH-2.0")


def test_east_comes_back(running: LabUnderTest) -> None:
    ledger = running.places.ledger / "heartbeat.tsv"
    running.command("lose", "east")
    running.command("lift")
    assert living(running.places.fence) == []
    lost_at = len(ledger.read_text().splitlines())
    running.up()
    assert lab.is_up(running.root)
    deadline = time.monotonic() + 10
    while len(ledger.read_text().splitlines()) < lost_at + 5:
        assert time.monotonic() < deadline, "the heartbeat stands still"
        time.sleep(0.1)
    ids = [int(line.split("\t")[0]) for line in ledger.read_text().splitlines()]
    assert ids == list(range(1, len(ids) + 1))


def test_a_tripwire_that_has_died_is_no_silence(running: LabUnderTest) -> None:
    assert not lab.is_lost(running.root)
    assert "east is not lost" in running.command("tripped", check=False)
    running.command("lose", "east")
    assert lab.is_lost(running.root)
    engine = running.plan["engine"]["source"]
    calling = socket.create_connection((engine["address"], engine["port"]), timeout=5)
    with calling, pytest.raises(ConnectionResetError):
        calling.recv(1)
    assert len(running.attempts()) == 1
    os.kill(running.pid("fence-tripwires"), signal.SIGKILL)
    said = running.command("tripped", check=False)
    assert f'"pid": {os.getpid()}' in said, "what was caught until then is told all the same"
    assert "the tripwires have died" in said
    argv = [sys.executable, "-m", "deployments.lab", "--root", str(running.root), "tripped"]
    assert subprocess.run(argv, cwd=CHECKOUT, capture_output=True, check=False).returncode == 1
    running.command("lose", "east")
    assert len(running.attempts()) == 1


def test_killed_while_east_comes_back(
    running: LabUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tree is not readable yet: the next `up` must see that."""
    running.command("lose", "east")
    state = load_state(running.places)
    assert state is not None

    def killed(_path: Path, _mode: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "chmod", killed)
        with pytest.raises(KeyboardInterrupt):
            fence.lift(running.places, state.sites)
    running.up()
    assert lab.is_up(running.root)
    assert running.places.tree("east").stat().st_mode & 0o777 == 0o755


def test_another_scale_is_refused(running: LabUnderTest) -> None:
    with pytest.raises(PermanentError, match="scale 1, not 2"):
        lab.up(running.root, scale=2)


def test_down_leaves_nothing(running: LabUnderTest, open_directory: Path) -> None:
    """Half of it killed, notes and state gone: nothing is left, and the neighbour lives."""
    half = LabUnderTest(Places.at(open_directory / "half a lab"))
    half.up()
    assert half.plan["source"]["networks"] != running.plan["source"]["networks"]
    databases = {half.pid("east-postgres-db1"), half.pid("east-postgres-db2")}
    assert len(shared_memory(databases)) == 2
    os.kill(half.pid("east-postgres-db1"), signal.SIGKILL)
    half.command("lose", "east")
    half.places.state.unlink()
    for note in half.places.processes.glob("west-*.json"):
        note.unlink()
    assert living(half.root) != []
    lab.down(half.root)
    assert living(half.root) == []
    assert not half.root.exists()
    assert shared_memory(databases) == []
    lab.down(half.root)
    assert lab.is_up(running.root)


@pytest.mark.parametrize("text", ["{", '{"version": 3}'])
def test_down_without_a_state_that_can_be_read(open_directory: Path, text: str) -> None:
    """Cut off, or of an older version."""
    places = Places.at(open_directory / "older")
    (places.tree("west") / "hosts").mkdir(parents=True)
    for top in (places.tree("west"), places.fence):
        top.mkdir(exist_ok=True)
        (top / STAMP).touch()
    places.state.write_text(text)
    with pytest.raises(PermanentError, match=r"not the state of a lab.*") as caught:
        lab.up(places.root)
    assert "`python -m deployments.lab down`" in caught.value.hint
    lab.down(places.root)
    assert not places.root.exists()


def test_what_is_not_the_labs_is_left_alone(open_directory: Path) -> None:
    other = open_directory / "other"
    (other / "east").mkdir(parents=True)
    (other / "east" / "letter").write_text("mine")
    with pytest.raises(PermanentError, match="not empty, and no lab"):
        lab.up(other)
    lab.down(other)
    assert (other / "east" / "letter").read_text() == "mine"
    (other / "lab.json").write_text("mine")
    lab.down(other)
    assert (other / "lab.json").read_text() == "mine"


@pytest.mark.skipif(os.getuid() != 0, reason="only root's services are somebody else's")
def test_a_place_that_the_services_cannot_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PermanentError, match="cannot enter"):
        lab.up(closed / "lab")
    assert list(closed.iterdir()) == []
