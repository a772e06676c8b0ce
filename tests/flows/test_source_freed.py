"""However farside, its agent or its follower dies: the source is freed, with no sweep run."""

import os
import signal
import time
from dataclasses import replace

import psutil
import pytest

from blocks.evidence.record import Record, StageState, Verdict
from tests import mechanisms
from tests.flows.conftest import Running, World
from tests.flows.test_killed import settled

pytestmark = [pytest.mark.slow(40), mechanisms.KILLED]
LEASE = 6.0
"""Seconds. The default, two minutes, is for sites."""
SPARE = 15.0
"""Seconds more that a busy machine may take."""


@pytest.fixture
def leased(world: World) -> World:
    return replace(world, settings={"FARSIDE_LEASE_SECONDS": str(LEASE)})


def following(world: World, stage: str) -> Running:
    """A rehearsal in a stage, with a slot on the source and a follower of its log."""
    words = ("--select", "fresh", "--rpo", "24h", "--rto", "1h", "--wan", "200kB/s")
    running = world.start(str(world.plan()), *words)
    running.until(f"{stage}: started")
    give_up = time.monotonic() + 60
    while not (world.ground.live.left() and receivers(world)):
        assert time.monotonic() < give_up, "nothing follows the log"
        time.sleep(0.1)
    return running


def receivers(world: World) -> list[int]:
    return [pid for pid, line in world.started_on("east").items() if "pg_receivewal" in line]


def agents(world: World) -> list[int]:
    return [pid for pid, line in world.started_on("east").items() if line.endswith(" follow")]


@pytest.mark.parametrize(
    ("stage", "number"),
    [("snapshot", signal.SIGKILL), ("transfer", signal.SIGKILL), ("transfer", signal.SIGSTOP)],
)
def test_when_the_orchestrator_dies_or_hangs(
    leased: World, stage: str, number: signal.Signals
) -> None:
    """Stopped, it keeps its connections open and renews nothing, as a lost machine does."""
    running = following(leased, stage)
    running.process.send_signal(number)
    assert leased.unburdened(LEASE + SPARE) == []
    running.end(signal.SIGKILL)
    settled(leased)
    assert leased.sweep().code == 0
    assert leased.left() == []


def test_one_that_goes_on_after_its_lease_believes_nothing_that_it_sees(leased: World) -> None:
    """Another server may answer in the place of its own, which a sweep has removed."""
    plan = str(leased.plan())
    running = leased.start(plan, "--select", "latest", "--rpo", "24h", "--rto", "1h")
    running.until("verify: started")
    running.process.send_signal(signal.SIGSTOP)
    time.sleep(LEASE + 1)
    assert leased.sweep().code == 0
    running.process.send_signal(signal.SIGCONT)
    outcome = running.end()
    assert outcome.code == 2, outcome.text
    assert outcome.record is not None
    assert outcome.record.verdict is Verdict.COULD_NOT_VERIFY
    assert not outcome.findings, outcome.text
    assert "stood still for" in outcome.text
    assert leased.left() == []


@pytest.mark.parametrize("which", [agents, receivers])
def test_when_what_follows_the_log_dies(leased: World, which: object) -> None:
    assert callable(which)
    running = following(leased, "transfer")
    (victim,) = which(leased)
    os.kill(victim, signal.SIGKILL)
    at = time.time()
    outcome = running.end()
    assert outcome.code != 0
    assert "log-not-followed" in outcome.findings
    assert "the source's log is not followed any more" in outcome.said("log-not-followed")
    assert ended(outcome.record) - at < SPARE
    assert leased.left() == []


def ended(record: Record | None) -> float:
    """When the transfer did."""
    assert record is not None
    assert record.verdict is not Verdict.VERIFIED
    (stage,) = (item for item in record.stages if item.name == "transfer")
    assert stage.state is StageState.FAILED
    assert stage.ended_at is not None
    return stage.ended_at.timestamp()


def test_what_is_looked_for_is_there(leased: World) -> None:
    """Or the tests above would show nothing."""
    running = following(leased, "transfer")
    found = leased.burdens()
    assert any(item.startswith("slot farside_r") for item in found)
    assert {len(agents(leased)), len(receivers(leased))} == {1}
    assert all(psutil.pid_exists(pid) for pid in leased.started_on("east"))
    assert running.end(signal.SIGTERM).code == 2
    assert leased.left() == []
