"""Every kind of end: what is told at once, what is torn down, and what the record says."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.evidence.record import Record, StageState, Verdict
from deployments import lab
from tests import mechanisms
from tests.flows.conftest import PATIENCE, Running, World, newest_record
from tests.flows.test_killed import started

pytestmark = [pytest.mark.slow, mechanisms.ENDED]

WORDS = ("--select", "latest", "--rpo", "24h", "--rto", "1h")


def provisional(running: Running, number: signal.Signals) -> Record:
    """The record that is there some seconds after a signal, teardown or not."""
    running.process.send_signal(number)
    give_up = time.monotonic() + 15  # 5 on a machine that has time
    while time.monotonic() < give_up:
        if record := newest_record(running.results):
            return record
        time.sleep(0.05)
    raise AssertionError("no record was written")


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("preflight", signal.SIGHUP),
        ("snapshot", signal.SIGTERM),
        ("transfer", signal.SIGHUP),
        ("declare", signal.SIGTERM),
        ("key fetch", signal.SIGHUP),
        ("restore", signal.SIGHUP),
        ("verify", signal.SIGINT),
    ],
)
def test_a_signal_is_written_down_at_once(world: World, stage: str, number: signal.Signals) -> None:
    running = started(world, stage)
    record = provisional(running, number)
    assert record.verdict is Verdict.COULD_NOT_VERIFY
    running.process.send_signal(signal.SIGINT)  # an impatient second and third
    running.process.send_signal(number)
    outcome = running.end()
    assert outcome.code == 2, outcome.text
    assert "teardown has removed all that the rehearsal made" in outcome.text
    assert "interrupted" in outcome.text
    assert "Traceback" not in outcome.text
    assert outcome.record is not None
    assert outcome.record.verdict is Verdict.COULD_NOT_VERIFY
    assert outcome.record.rehearsal_id == record.rehearsal_id
    states = {item.name: item.state for item in outcome.record.stages}
    assert states["teardown"] is StageState.COMPLETED
    assert not outcome.record.not_verified[0].startswith("the rest of the rehearsal")
    assert world.left() == []
    if stage == "transfer":  # the set is whole in east, has not crossed, and the next would say so
        world.ground.forget(record.rehearsal_id)


def test_signals_in_teardown_do_not_end_it(world: World) -> None:
    running = started(world, "teardown")
    numbers = (signal.SIGTERM, signal.SIGINT) * 3
    for number in numbers:
        running.process.send_signal(number)
        time.sleep(0.05)
    outcome = running.end()
    assert outcome.code == 0, outcome.text
    assert outcome.record is not None
    assert outcome.record.verdict is Verdict.VERIFIED
    # Which of two that come at once is seen first is the interpreter's choice.
    assert any(f"{number.name} came during teardown" in outcome.text for number in numbers)
    assert world.left() == []


@pytest.mark.parametrize(
    "shell",
    [
        "2>&1 | head -2",
        ">&- 2>&-",
        "> /dev/full 2>&1",
    ],
)
def test_a_terminal_that_goes_ends_nothing(world: World, shell: str) -> None:
    """Output that cannot be written, and a hangup that is ignored, as under nohup."""
    words = f"{world.plan()} {' '.join(WORDS)} --results {world.results}"
    script = f"""trap '' HUP
        {{ {sys.executable} -m flows.rehearse {words} & echo $! > {world.folder}/pid
        wait $!; echo $? > {world.folder}/code; }} {shell}"""
    process = subprocess.Popen(
        ["sh", "-c", script],
        env=world.environment(),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    give_up = time.monotonic() + PATIENCE
    ended = world.folder / "code"
    while not lab.is_lost(world.places.root):
        assert not ended.exists()
        assert time.monotonic() < give_up
        time.sleep(0.1)
    os.kill(int((world.folder / "pid").read_text()), signal.SIGHUP)
    while not (ended.exists() and ended.read_text()) and time.monotonic() < give_up:
        time.sleep(0.1)
    process.wait(PATIENCE)
    assert ended.read_text().strip() == "0"
    record = newest_record(world.results)
    assert record is not None
    assert (record.verdict, record.findings) == (Verdict.VERIFIED, ())
    assert world.left() == []


def test_a_prefect_server_that_does_not_answer(world: World) -> None:
    """Nothing is begun, the reason is said, and soon."""
    elsewhere = replace(world, api="http://127.0.0.1:9/api")
    began = time.monotonic()
    outcome = elsewhere.start(str(world.plan()), *WORDS).end()
    assert time.monotonic() - began < 60
    assert outcome.code == 2
    assert "Prefect's server at http://127.0.0.1:9/api does not answer" in outcome.text
    assert "PREFECT_API_URL" in outcome.text
    assert len(outcome.text) < 600
    assert "Traceback" not in outcome.text
    assert outcome.record is None
    assert world.left() == []
