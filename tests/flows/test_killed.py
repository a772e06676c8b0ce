"""The orchestrator is killed, or told to end, in every stage; what it left is found and removed."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from blocks.evidence.record import StageState, Verdict
from blocks.evidence.signature import load_signed
from blocks.plan.loading import load_plan
from deployments import lab
from tests import mechanisms
from tests.blocks.engines.test_command import redis_plan
from tests.flows.conftest import Running, World, newest_record

pytestmark = mechanisms.KILLED

STAGES = (
    "preflight",
    "snapshot",
    "transfer",
    "declare",
    "key fetch",
    "restore",
    "verify",
    "teardown",
)
OF_A_FRESH_SET = ("snapshot", "transfer")


def started(world: World, stage: str) -> Running:
    """A rehearsal that has just entered a stage."""
    select = "fresh" if stage in OF_A_FRESH_SET else "latest"
    running = world.start(str(world.plan()), "--select", select, "--rpo", "24h", "--rto", "1h")
    running.until(f"{stage}: started")
    return running


def commands() -> Iterator[list[str]]:
    """The command line of every process."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield process.cmdline()


def settled(world: World) -> list[str]:
    """What is left once the agents have noticed that nobody talks to them any more."""
    give_up = time.monotonic() + 30
    # The fence's own command goes on after its caller's end: let it come to its end, too.
    while any("lose" in words and str(world.places.root) in words for words in commands()):
        assert time.monotonic() < give_up, "the fence's command does not end"
        time.sleep(0.2)
    give_up = time.monotonic() + 10
    while any(".pyz" in item for item in world.left()):
        assert time.monotonic() < give_up, "an agent outlives its orchestrator"
        time.sleep(0.2)
    return world.left()


@pytest.mark.parametrize(
    "stage",
    [
        "preflight",
        "snapshot",
        "transfer",
        "declare",
        "key fetch",
        pytest.param("restore", marks=pytest.mark.essential),
        "verify",
        "teardown",
    ],
)
def test_killed_then_swept(world: World, stage: str) -> None:
    """All that it left goes, and what was seen of it becomes its record."""
    running = started(world, stage)
    time.sleep(0.3)  # into the stage's work
    give_up = time.monotonic() + 60
    noted = partial(_noted, stage)
    while stage != "teardown" and not any(map(noted, world.places.root.glob(_JOURNALS))):
        assert time.monotonic() < give_up, "the stage is not noted in west"
        time.sleep(0.1)
    assert running.end(signal.SIGKILL).code == -signal.SIGKILL
    assert newest_record(world.results) is None or stage == "teardown"
    left = settled(world)
    words = (str(world.plan()), "--results", str(world.results))
    swept = world.start(*words, module="flows.sweep").end()
    assert swept.code == 0, swept.text
    for item in left:
        if item.startswith("/") and "/recovered/" not in item:
            assert f"{item}\n" in swept.out
    assert world.left() == []
    record = newest_record(world.results)
    assert record is not None
    states = {item.name: item.state for item in record.stages}
    if stage != "teardown":  # by then it may have been written already
        assert "recorded" in swept.out
        assert record.verdict is Verdict.COULD_NOT_VERIFY
        assert "it was killed, or its machine stopped" in record.not_verified[0]
        # A short stage may have ended meanwhile: then it was killed in one after it.
        cut_off = [name for name in STAGES if states.get(name) is StageState.CANCELLED]
        assert len(cut_off) == 1
        assert STAGES.index(cut_off[0]) >= STAGES.index(stage)
    plan = load_plan(world.plan())
    path = world.results / f"{record.rehearsal_id}.json"
    assert plan.keys.record_signer is not None
    assert load_signed(path, plan.keys.record_signer) == record
    assert plan.recovery.store.get(f"records/postgres/{path.name}") == path.read_bytes()


_JOURNALS = "west/hosts/*/farside/*/record.json"


def _noted(stage: str, journal: Path) -> bool:
    try:
        stages = json.loads(journal.read_text())["stages"]
    except (OSError, ValueError):
        return False
    return any(item["name"] == stage and item["started_at"] for item in stages)


def test_a_service_that_writes_over_its_environment_is_swept(world: World) -> None:
    """Redis shows its title there, and with that nothing of who started it."""
    plan = str(redis_plan(world.places, world.folder))
    running = world.start(plan, "--rto", "1h", "--rpo", "24h")
    running.until("verify: started")
    served = restored_redis(world)
    assert served
    assert all(b"FARSIDE" not in Path(f"/proc/{pid}/environ").read_bytes() for pid in served)
    running.end(signal.SIGKILL)
    swept = world.sweep(plan)
    assert swept.code == 0, swept.text
    assert restored_redis(world) == []
    assert world.left() == []


def restored_redis(world: World) -> list[int]:
    """Servers that work in a directory of west's."""
    west = str(world.places.tree("west"))
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "redis-server" and process.cwd().startswith(west):
                found.append(process.pid)
    return found


def test_the_next_rehearsal_names_what_was_left(world: World) -> None:
    """Killed when the source was lost and the service was there: the worst moment."""
    running = started(world, "verify")
    running.end(signal.SIGKILL)
    rehearsal_id = next(path.name for path in world.places.root.glob("west/hosts/db1/farside/*"))
    outcome = world.rehearse()
    assert (outcome.code, set(outcome.findings)) == (
        1,
        {"leftovers", "port-taken", "target-occupied"},
    )
    assert f"rehearsal {rehearsal_id} was not cleared away" in outcome.said("leftovers")
    assert "flows.sweep" in outcome.said("leftovers")
    assert world.data.exists(), "it is not for another rehearsal to remove"
    assert world.sweep().code == 0
    assert world.sweep().out == "nothing to remove\n"
    green = world.rehearse(select="fresh")
    assert (green.code, green.findings) == (0, [])
    assert world.left() == []


def test_a_fence_that_was_left_up_is_named(world: World) -> None:
    """A fresh rehearsal cannot reach the source: the operator learns why, and what to do."""
    started(world, "key fetch").end(signal.SIGKILL)
    assert not lab.is_up(world.places.root)
    outcome = world.rehearse(select="fresh")
    assert (outcome.code, set(outcome.findings)) == (2, {"leftovers", "host-unreachable"})
    assert "flows.sweep" in outcome.said("leftovers")
    assert world.sweep().code == 0
    assert world.left() == []


def test_a_rehearsal_that_runs_is_neither_swept_nor_joined(world: World) -> None:
    """It must not lose its files, its target or its fence to another."""
    words = ("--select", "fresh", "--wan", "200kB/s", "--rto", "1h", "--rpo", "1h")
    running = world.start(str(world.plan()), *words)
    running.until("transfer: started")
    assert "left alone" in world.sweep().out
    second = World(world.places, world.api, world.folder / "second")
    second.folder.mkdir()
    outcome = second.rehearse()
    assert outcome.code == 1
    assert "of this plan runs there now" in outcome.said("target-occupied")
    first = running.end()
    assert (first.code, first.findings) == (0, [])
    assert world.left() == []
