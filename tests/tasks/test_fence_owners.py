"""Who lifts a fence of commands, and when: real commands, stores, agents and processes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.agent import marks, stamp
from blocks.agent.protocol.parts import MadePath, MadeStamp
from blocks.domain import FailureDomain
from blocks.engines.engine import LeftElsewhere
from blocks.errors import PermanentError
from blocks.fences.command import CommandFence
from blocks.fences.fence import Gap
from blocks.hosts.local import LocalHost
from blocks.stores.s3 import S3Store
from tasks import sweep as sweeping
from tasks import teardown as teardowns
from tasks.context import Options, Rehearsal
from tasks.lease import Lease, store_key, this_process
from tasks.liveness import look
from tasks.reporting.clock import StageClock
from tasks.sweep import Swept, sweep_plan
from tasks.teardown import Teardown
from tests.conftest import S3

LIFT = """\
import pathlib, sys
folder, told = map(pathlib.Path, sys.argv[1:3])
with told.open("a") as file:
    pid = (folder / "pid").read_text() if (folder / "pid").exists() else "0"
    runs = (pathlib.Path("/proc") / pid / "cwd").exists() and pid != "0"
    data = (folder / "data").exists()
    file.write(f"lift runs={runs} data={data}\\n")
"""
"""Records that it was called, and what was there then of what a rehearsal restored."""

pytestmark = pytest.mark.slow(60)


@dataclass
class Site:
    """Two domains on this machine, one store for both, and a fence that records its calls."""

    folder: Path
    domains: dict[str, FailureDomain]
    owners: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def plan(self, name: str = "shop", lift: tuple[str, ...] = ()) -> Any:
        """A plan as far as a sweep and a teardown know it."""
        told = self.folder / "told"
        lifting = [sys.executable, "-c", LIFT, str(self.folder), str(told), *lift]
        fence = CommandFence(raise_argv=["true"], lift_argv=lifting)
        source, recovery = self.domains["east"], self.domains["west"]
        engine = SimpleNamespace(leftovers=lambda _: [], clean_source=lambda *_: [])
        return SimpleNamespace(
            name=name,
            digest="d",
            fence=fence,
            source=source,
            recovery=recovery,
            engine=engine,
            gap=lambda rehearsal_id=None: Gap(source, recovery, (), rehearsal_id),
        )

    @property
    def told(self) -> list[str]:
        """The fence's calls."""
        path = self.folder / "told"
        return path.read_text().splitlines() if path.exists() else []

    def lease(self, rehearsal_id: str, plan: Any, *, raised: bool = True) -> Lease:
        """The lease of a rehearsal that runs, in a process of its own, in the recovery domain."""
        owner = subprocess.Popen(["sleep", "600"])
        self.owners[rehearsal_id] = owner
        with pytest.MonkeyPatch.context() as patch:
            name = f"{this_process().rpartition(' ')[0].rpartition(' ')[0]} {owner.pid}"
            patch.setattr("tasks.lease.this_process", lambda: f"{name} {marks.start_of(owner.pid)}")
            lease = Lease(rehearsal_id, plan.name, (plan.recovery,))
        lease.start()
        if raised:
            lease.note_fence("west", plan.fence.marks)
        return lease

    def kill(self, rehearsal_id: str, lease: Lease) -> None:
        """End the process of a rehearsal, and its renewals with it."""
        lease.stop()
        self.owners[rehearsal_id].kill()
        self.owners[rehearsal_id].wait()

    def restore(self, rehearsal_id: str) -> "subprocess.Popen[bytes]":
        """A process that a rehearsal started in a directory that it made."""
        marker, data = self.folder / "west" / rehearsal_id, self.folder / "data"
        data.mkdir()
        (data / stamp.FILE).write_text(stamp.text(rehearsal_id, "t"))
        marks.note(marker, [MadeStamp(token="t"), MadePath(path=str(data))])
        environment = os.environ | {stamp.VARIABLE: stamp.text(rehearsal_id, "t")}
        process = subprocess.Popen(["sleep", "600"], cwd=data, env=environment)
        threading.Thread(target=process.wait, daemon=True).start()  # or it stays as a zombie
        (self.folder / "pid").write_text(str(process.pid))
        self.processes.append(process)
        return process

    def sweep(self, plan: Any, *, everything: bool = False) -> Swept:
        return sweep_plan(plan, everything=everything, results=self.folder / "rehearsals")

    def leases(self) -> list[str]:
        """The ids of the leases in the store."""
        keys = [info.key for info in self.domains["west"].store.objects("leases/")]
        return [key.removeprefix("leases/").removesuffix(".json") for key in keys]


@pytest.fixture
def site(tmp_path: Path, s3: S3) -> Iterator[Site]:
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[default]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    )

    def domain(name: str) -> FailureDomain:
        (tmp_path / name).mkdir(mode=0o700)
        store = S3Store(
            endpoint=s3.endpoint,
            bucket=s3.bucket,
            prefix=f"{tmp_path.name}-{name}",
            ca_file=s3.ca_file,
            credentials_file=credentials,
        )
        host = LocalHost(name="db1", python=sys.executable, work_dir=str(tmp_path / name))
        return FailureDomain(name=name, hosts=[host], store=store)

    made = Site(tmp_path, {name: domain(name) for name in ("east", "west")})
    yield made
    for process in (*made.processes, *made.owners.values()):
        process.kill()
        process.wait()
    for part in made.domains.values():
        part.close()


def test_what_no_rehearsal_raised_is_not_lifted(site: Site) -> None:
    """An operator may have raised it by hand."""
    plan = site.plan()
    assert site.sweep(plan).remaining == ()
    site.kill("r1", site.lease("r1", plan, raised=False))
    swept = site.sweep(plan)
    assert (swept.remaining, site.told) == ((), [])
    assert len(swept.removed) == 1, "its directory"
    site.sweep(plan, everything=True)
    assert site.told == []


def test_a_dead_rehearsals_fence_is_lifted_once_nothing_of_it_runs(site: Site) -> None:
    plan = site.plan()
    lease = site.lease("r1", plan)
    service = site.restore("r1")
    running = site.sweep(plan)
    assert (running.alive, site.told) == (
        ("the fence: r1 has raised it, and it runs", "r1: it runs"),
        [],
    )
    site.kill("r1", lease)
    assert site.sweep(plan).remaining == ()
    assert site.told == ["lift runs=False data=True"]
    assert service.poll() is not None
    assert not (site.folder / "data").exists()
    assert site.leases() == []
    assert site.sweep(plan).removed == ()
    assert len(site.told) == 1


def test_what_does_not_end_keeps_the_fence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = site.plan()
    site.kill("r1", site.lease("r1", plan))
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "end_processes", lambda *_: ("7: postgres",))
        swept = site.sweep(plan)
    assert swept.remaining == (
        "west/db1: 7: postgres",
        "the fence: r1 has raised it, and something that it started still runs",
    )
    assert (site.told, site.leases()) == ([], ["r1"])
    assert site.sweep(plan).remaining == (), "the lease still says who raised it"
    assert (len(site.told), site.leases()) == (1, [])


def test_a_fence_that_was_lifted_is_not_lifted_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else of the rehearsal remains; an operator may have raised the fence since."""
    plan = site.plan()
    site.kill("r1", site.lease("r1", plan))

    def fails(*_: Any, **__: Any) -> Any:
        raise PermanentError("the disk is broken")

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "sweep_host", fails)
        assert site.sweep(plan).remaining == tuple(
            f"{name}/db1: the disk is broken" for name in ("east", "west")
        )
        assert len(site.told) == 1
    assert site.leases() == ["r1"]
    swept = site.sweep(plan)
    assert (swept.alive, swept.remaining) == ((), ())
    assert (len(site.told), site.leases()) == (1, [])


def lost_host(plan: Any) -> None:
    plan.recovery.hosts[0].python = "/nowhere/python"


def lost_store(plan: Any) -> None:
    plan.recovery.store = plan.recovery.store.model_copy(update={"bucket": "none"})


@pytest.mark.parametrize("lose", [lost_host, lost_store])
@pytest.mark.parametrize("everything", [False, True])
def test_on_unknown_it_stays(site: Site, lose: Callable[[Any], None], everything: bool) -> None:
    plan = site.plan()
    site.kill("r1", site.lease("r1", plan))
    lose(plan)
    remaining = site.sweep(plan, everything=everything).remaining
    assert "the fence, if one stands: " in remaining[0]
    assert "could not be looked at" in remaining[0]
    assert site.told == []


def test_a_source_that_cannot_be_asked_is_not_clean(site: Site) -> None:
    """A slot may hold its log back, an unfinished set may fill its store."""
    plan = site.plan()

    def down(_: Any) -> list[str]:
        raise PermanentError("connection refused")

    def denied(_: str) -> Iterator[Any]:
        raise PermanentError("may not list")

    plan.engine.leftovers = down
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "unfinished", lambda store, _: denied(store.domain))
        remaining = site.sweep(plan).remaining
    assert remaining == (
        "west store could not be looked at: may not list",
        "east store could not be looked at: may not list",
        "east server could not be looked at: connection refused",
    )


def test_a_kept_service_has_its_fence_until_its_time(site: Site) -> None:
    plan = site.plan()
    lease = site.lease("r1", plan)
    lease.keep(plan.recovery, 4)
    site.kill("r1", lease)
    swept = site.sweep(plan)
    assert swept.alive == ("the fence: r1 has raised it, and it is kept", "r1: it is kept")
    assert (swept.remaining, site.told) == ((), [])
    time.sleep(5)
    assert site.sweep(plan).remaining == ()
    assert (len(site.told), site.leases()) == (1, [])


def test_two_plans_with_one_command(site: Site) -> None:
    first, second = site.plan("first"), site.plan("second")
    site.kill("r1", site.lease("r1", first))
    other = site.lease("r2", second)
    swept = site.sweep(first)
    assert "the fence: r2 has raised it, and it runs" in swept.alive
    assert (swept.remaining, site.told) == ((), [])
    site.kill("r2", other)
    assert site.sweep(first).remaining == ()
    assert len(site.told) == 1


def test_the_fence_of_another_plan_is_left_to_its_sweep(site: Site) -> None:
    ours, theirs = site.plan("ours"), site.plan("theirs", lift=("otherwise",))
    site.kill("r1", site.lease("r1", theirs))
    assert "sweep plan theirs" in site.sweep(ours).remaining[0]
    assert (site.told, site.leases()) == ([], ["r1"])
    assert site.sweep(theirs).remaining == ()
    assert len(site.told) == 1


def test_a_command_that_was_corrected_lifts_what_the_wrong_one_raised(site: Site) -> None:
    site.kill("r1", site.lease("r1", site.plan(lift=("wrong",))))
    assert site.sweep(site.plan()).remaining == ()
    assert len(site.told) == 1


# -- teardown -------------------------------------------------------------------------------------


def torn_down(site: Site, plan: Any) -> Rehearsal:
    """A rehearsal, interrupted while it restored, after its teardown."""
    rehearsal = Rehearsal("r1", plan, Options(select="latest"), StageClock())
    rehearsal.lease = site.lease("r1", plan)
    rehearsal.claimed = rehearsal.lease.reached
    rehearsal.cut = True
    site.restore("r1")
    work = Teardown(rehearsal, None, None, None)
    work.start()
    work.wait()
    return rehearsal


def said(rehearsal: Rehearsal) -> list[tuple[str, str]]:
    return [(item.id, item.severity.value) for item in rehearsal.findings.all()]


@pytest.fixture(autouse=True)
def _no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teardowns, "changed", lambda _: ())


def test_processes_end_then_the_fence_goes_then_the_data(site: Site) -> None:
    rehearsal = torn_down(site, site.plan())
    assert said(rehearsal) == []
    assert site.told == ["lift runs=False data=True"]
    assert not (site.folder / "data").exists()
    assert site.leases() == []


def test_a_restore_that_cannot_be_ended_keeps_its_fence(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = site.plan()
    with monkeypatch.context() as patch:
        patch.setattr(teardowns, "end_processes", lambda *_: ("7: postgres",))
        rehearsal = torn_down(site, plan)
    assert said(rehearsal) == [("fence-stays", "critical")]
    (finding,) = rehearsal.findings.all()
    assert "west/db1: 7: postgres still runs" in finding.evidence
    assert (site.told, site.leases()) == ([], ["r1"])
    site.kill("r1", rehearsal.lease)
    assert site.sweep(plan).remaining == ()
    assert (len(site.told), site.leases()) == (1, [])


def test_teardown_does_not_open_another_rehearsals_fence(site: Site) -> None:
    other = site.lease("r2", site.plan("other"))
    rehearsal = torn_down(site, site.plan())
    assert said(rehearsal) == [("fence-stays", "medium")]
    (finding,) = rehearsal.findings.all()
    assert "r2 raised it, too" in finding.evidence
    assert (site.told, site.leases()) == ([], ["r2"])
    site.kill("r2", other)
    assert site.sweep(site.plan("other")).remaining == ()
    assert len(site.told) == 1


def test_what_others_raised_cannot_be_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = site.plan()

    def lost(given: Any, domains: Any) -> Any:
        lost_store(plan)
        return look(given, domains)

    monkeypatch.setattr(teardowns, "look", lost)
    rehearsal = torn_down(site, plan)
    assert ("fence-stays", "critical") in said(rehearsal)
    assert site.told == []


def test_the_note_is_in_the_store_before_anything_is_cut(site: Site) -> None:
    plan = site.plan()
    lease = site.lease("r1", plan)
    told = json.loads(plan.recovery.store.get(store_key("r1")))
    assert frozenset(told["fences"]) == plan.fence.marks
    file, give_up = site.folder / "west" / "r1" / "lease.json", time.monotonic() + 10
    while json.loads(file.read_text()) != told:
        assert time.monotonic() < give_up, "the hosts are told, too"
        time.sleep(0.05)
    lost_store(plan)
    again = Lease("r2", plan.name, (plan.recovery,))
    with pytest.raises(Exception, match="none"):
        again.note_fence("west", plan.fence.marks)
    lease.stop()


def test_what_may_be_on_another_server_is_said_until_somebody_has_looked(site: Site) -> None:
    """After a switchover: the lease stays, or the next sweep would find nothing to say."""

    def elsewhere(*_: Any) -> list[str]:
        raise LeftElsewhere("whether the slot is gone is unknown", hint="drop it by hand")

    plan = site.plan()
    plan.engine.clean_source = elsewhere
    site.kill("r1", site.lease("r1", plan, raised=False))
    for _ in range(2):
        said = "whether the slot is gone is unknown (next: drop it by hand); then remove"
        assert site.sweep(plan).remaining == (f"{said} leases/r1.json from both stores",)
        assert site.leases() == ["r1"]
    plan.recovery.store.remove(["leases/r1.json"])
    assert site.sweep(plan).remaining == ()
