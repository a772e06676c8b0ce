"""Temporary Prefect servers: those that farside started are ended once orphaned, no others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.server import STAMP, end_orphaned_servers

COMMAND = """
import subprocess, sys, time
from flows.server import temporary_server
with temporary_server(print):
    subprocess.Popen([sys.executable, "-c", sys.argv[1]])
    time.sleep(600)
"""
"""As farside: with a temporary server, and a program that it calls, such as a fence's."""
STRANGER = """
from prefect.server.api.server import SubprocessASGIServer
SubprocessASGIServer().start(timeout=600)
"""
"""A program of another kind, which starts such a server for itself."""

pytestmark = pytest.mark.slow(40)

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a Python program in a session of its own, which is ended as a whole."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment["PREFECT_HOME"] = str(tmp_path)
    started: list[subprocess.Popen[bytes]] = []

    def begin(script: str, **variables: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", script, STRANGER],
            env=environment | variables,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def server_of(parent: int) -> psutil.Process:
    """The temporary server that a process started."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        for child in psutil.Process(parent).children():
            with suppress(psutil.Error):
                if "prefect.server.api.server:create_app" in child.cmdline():
                    return child
        time.sleep(0.05)
    raise AssertionError("no server was started")


def called_by(parent: int) -> psutil.Process:
    """The program that farside called."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        for child in psutil.Process(parent).children():
            if STRANGER in child.cmdline():
                return child
        time.sleep(0.05)
    raise AssertionError("nothing was called")


def test_only_an_orphan_of_farsides_own_is_ended(start: Start) -> None:
    command, alive = start(COMMAND), start(COMMAND)
    stranger = called_by(command.pid)
    ours, theirs = server_of(command.pid), server_of(stranger.pid)
    living = server_of(alive.pid)
    assert STAMP in theirs.environ(), "it inherits what farside's own server is stamped with"

    assert f"process {ours.pid}" not in str(end_orphaned_servers())
    for process in (command.pid, stranger.pid):
        os.kill(process, signal.SIGKILL)
    command.wait()
    assert ours.is_running()
    assert f"temporary Prefect server, process {ours.pid}" in end_orphaned_servers()
    ours.wait(10)
    assert theirs.is_running()
    assert theirs.status() != psutil.STATUS_ZOMBIE
    assert living.is_running()


def test_a_proxy_does_not_come_between(start: Start) -> None:
    """One that nothing listens at: what went there would fail."""
    proxy = "http://127.0.0.1:9"
    up = start(
        "from flows.server import temporary_server\nwith temporary_server(print): pass",
        HTTP_PROXY=proxy,
        http_proxy=proxy,
        ALL_PROXY=proxy,
    )
    assert up.wait(120) == 0
