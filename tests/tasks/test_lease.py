"""Where a rehearsal leaves its lease."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from blocks.agent import lease
from blocks.hosts.local import LocalHost
from tasks.lease import Lease, store_key


@dataclass
class Objects:
    """A store, as far as a lease needs one."""

    held: dict[str, bytes] = field(default_factory=dict)

    def put(self, key: str, data: bytes) -> None:
        """Keep an object."""
        self.held[key] = data


@dataclass
class Domain:
    """A domain, as far as a lease needs one."""

    name: str
    hosts: list[LocalHost]
    store: Objects

    def machines(self) -> list[LocalHost]:
        """Its hosts."""
        return self.hosts


def test_a_host_that_comes_back_during_teardown_is_not_entered(tmp_path: Path) -> None:
    """What is written there then would be left behind: its hosts have been cleared."""
    hosts = [LocalHost(name=name, work_dir=str(tmp_path / name)) for name in ("up", "down")]
    for host in hosts:
        host.join("west")
    blocked = tmp_path / "down"
    blocked.write_text("no directory can be made here")
    west = Domain("west", hosts, Objects())
    told = Lease("r1", "shop", [cast(Any, west)])
    told.start()
    try:
        assert told.reached == {"west/up"}
        told.enter_no_more()
        blocked.unlink()
        told.note_fence("west", ["mark"])  # has it written everywhere at once
        assert b"mark" in west.store.held[store_key("r1")]
        written, give_up = tmp_path / "up" / "r1" / lease.FILE, time.monotonic() + 30
        while "mark" not in written.read_text() and time.monotonic() < give_up:
            time.sleep(0.05)
        assert "mark" in written.read_text()
        time.sleep(0.5)  # the other host's turn has come, too
    finally:
        told.stop()
    assert told.reached == {"west/up"}
    assert not blocked.exists()


def test_one_that_ends_under_a_fence_is_dead_at_once_and_says_whose_the_fence_is() -> None:
    """The next rehearsal of the plan must not wait for it, and a sweep must find it."""
    west = Domain("west", [], Objects())
    told = Lease("r1", "shop", [cast(Any, west)])
    told.start()
    told.note_fence("west", ["mark"])
    told.end(cast(Any, west.store))
    left = lease.loads(west.store.held[store_key("r1")])
    assert left.judge(0) == "dead"
    assert left.fences == ("mark",)


_STILL = """
import sys
from tasks.reporting.clock import Suspended
from tasks.lease import Lease
told = Lease("r1", "shop", [])
told.start()
told.require()
print("runs", flush=True)
sys.stdin.readline()
try:
    told.require()
except Suspended as error:
    print(error)
told.enter_no_more()
told.require()
"""


def test_one_that_stood_still_for_longer_says_so() -> None:
    """All but the teardown: that touches nothing without the rehearsal's stamp."""
    with subprocess.Popen(
        [sys.executable, "-c", _STILL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FARSIDE_LEASE_SECONDS": "3"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("go on\n", timeout=30)
    assert "stood still for" in said
    assert "longer than its lease of 3 s" in said
    assert process.returncode == 0
