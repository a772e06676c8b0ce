"""What a command on a lab's host sees, and when it ends."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import psutil
import pytest

from deployments.lab import processes
from deployments.lab.parts import postgres
from tests.deployments.lab.conftest import LabUnderTest, connect, living


@pytest.fixture
def client(running: LabUnderTest) -> Iterator[paramiko.SSHClient]:
    host = running.plan["recovery"]["hosts"][0]
    with connect(host, key_filename=host["identity_file"]) as connected:
        yield connected


@pytest.fixture
def home(running: LabUnderTest) -> Path:
    return running.places.host("west", "db1")


def run(client: paramiko.SSHClient, command: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run a command to its end; exit code, output, errors."""
    stdin, stdout, stderr = client.exec_command(command, timeout=20)
    stdin.write(given)
    stdin.channel.shutdown_write()
    out, err = stdout.read(), stderr.read()
    return stdout.channel.recv_exit_status(), out, err


def gone(mark: str, tree: Path, within: float = 6.0) -> bool:
    """Wait until no process of the tree has the mark in its command line."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not [line for line in living(tree) if mark in line]:
            return True
        time.sleep(0.05)
    return False


def test_a_command_has_the_hosts_environment_and_place(
    client: paramiko.SSHClient, home: Path
) -> None:
    code, out, err = run(client, "env; pwd; echo wrong >&2; exit 7")
    names = {line.partition("=")[0] for line in out.decode().splitlines()[:-1]}
    known = {*processes.PLAIN, "HOME", "PWD", "FARSIDE_LAB_DOMAIN", "_", "SHLVL"}
    assert names <= known
    assert (code, out.decode().splitlines()[-1], err) == (7, str(home), b"wrong\n")
    if os.getuid() == 0:
        assert run(client, "id -un; id -Gn")[1] == b"nobody\nnogroup\n"


def test_bytes_both_ways_and_the_end_of_input(client: paramiko.SSHClient) -> None:
    data = os.urandom(3_000_000)
    assert run(client, "cat", data) == (0, data, b"")


def test_sftp_starts_in_the_hosts_directory(client: paramiko.SSHClient, home: Path) -> None:
    with client.open_sftp() as sftp, sftp.open("carried", "wb") as file:
        file.write(b"carried")
    carried = home / "carried"
    assert carried.read_bytes() == b"carried"
    assert carried.stat().st_uid == home.stat().st_uid
    carried.unlink()


def test_a_broken_connection_ends_the_whole_command(client: paramiko.SSHClient, home: Path) -> None:
    client.exec_command("sh -c 'sleep 1001; :' & sleep 1001; :")
    deadline = time.monotonic() + 5
    while len([line for line in living(home) if "sleep 1001" in line]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    transport = client.get_transport()
    assert transport is not None
    transport.sock.close()  # as when the orchestrator is killed
    assert gone("sleep 1001", home)


def test_a_command_can_clean_up_when_its_input_ends(client: paramiko.SSHClient, home: Path) -> None:
    client.exec_command("cat; echo cleaned > after")
    time.sleep(0.5)
    client.close()
    deadline = time.monotonic() + 5
    while not (home / "after").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (home / "after").unlink()


def test_a_daemon_outlives_its_session(client: paramiko.SSHClient, home: Path) -> None:
    assert run(client, "setsid sleep 1002 </dev/null >/dev/null 2>&1 &")[0] == 0
    client.close()
    time.sleep(0.5)
    [daemon] = [
        p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "1002"]
    ]
    daemon.kill()
    assert gone("sleep 1002", home)


def test_the_runtime_of_a_host(client: paramiko.SSHClient, running: LabUnderTest) -> None:
    """What farside asks of a host is there, and works for the host's account."""
    python = running.plan["recovery"]["hosts"][0]["python"]
    program = "import cryptography, zstandard, sys; print(sys.version_info >= (3, 11), end='')"
    assert run(client, f'"{python}" -c "{program}"') == (0, b"True", b"")
    for major in (16, 18):
        directory = postgres.programs(running.places, "west", major)
        code, out, _ = run(client, f'"{directory}/pg_basebackup" --version')
        assert (code, f") {major}." in out.decode()) == (0, True)
