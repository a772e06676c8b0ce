"""The watcher's reading of /proc: it needs no packet filter to be tried."""

import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blocks.agent.jobs import sweep, watch
from blocks.fences import command
from deployments.lab import tripwires


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_owner_of_a_connection(family: socket.AddressFamily) -> None:
    here = "127.0.0.1" if family == socket.AF_INET else "::1"
    script = (
        "import socket, sys\n"
        "with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as calling:\n"
        "    calling.recv(1)\n"
    )
    with socket.create_server((here, 0), family=family) as server:
        server.settimeout(10)
        called = server.getsockname()[:2]
        caller = subprocess.Popen([sys.executable, "-c", script, here, str(called[1])])
        connection, peer = server.accept()
        with connection:
            call = watch._Call(0.0, peer[1], *called)
            assert watch._owners([call]) == {call: caller.pid}
            assert script[:20] in (watch._command(caller.pid) or "")
        caller.wait(10)
    assert watch._owners([call]) == {}
    assert watch._command(None) is None


def test_a_process_is_named_without_its_secrets() -> None:
    words = ["postgresql://app:hunter2@10.1.0.1/shop", "--password", "hunter2", "2026-01", "probe"]
    script = "import sys; sys.stdin.read()"
    argv = [sys.executable, "-c", script, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as caller:
        while not Path(f"/proc/{caller.pid}/cmdline").read_bytes():
            time.sleep(0.01)  # the kernel has not set it yet
        shown = watch._command(caller.pid) or ""
        left = sweep._command(caller.pid)
        lab = tripwires.process_of(caller.pid) or ""
    for text in (shown, left, lab):
        assert "hunter2" not in text
        assert text.startswith(sys.executable)
        assert text.endswith("postgresql://app:***@10.1.0.1/shop --password *** 2026-01 probe")


def test_a_process_that_a_fence_names_is_shown_without_its_secrets() -> None:
    """Whatever the site's own observe_argv prints."""
    line = '{"at": "2026-01-01T00:00:00Z", "host": "db1", "address": "10.1.0.1", "port": 443'
    seen = command._attempt(f'{line}, "process": "curl -u backup:hunter2 https://10.1.0.1"}}')
    assert seen.process == "curl -u *** https://10.1.0.1"


def test_an_ipv4_address_inside_ipv6() -> None:
    assert str(watch._address("0B0A12C6")) == "198.18.10.11"
    assert str(watch._address("0000000000000000FFFF00000B0A12C6")) == "198.18.10.11"
    assert str(watch._address("00000000000000000000000001000000")) == "::1"


def test_a_call_that_was_meant_for_the_watcher_is_none() -> None:
    listener, *others = watch._listen()
    for other in others:
        other.close()
    with listener, socket.create_connection(listener.getsockname()[:2]) as calling:
        select.select([listener], [], [], 10)
        assert watch._take(listener) == []
        with pytest.raises(ConnectionResetError):
            calling.recv(1)
