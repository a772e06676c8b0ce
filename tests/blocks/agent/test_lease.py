"""The lease: three answers, judged by the clock of the place that it lies in."""

import os
import time
from pathlib import Path

import pytest

from blocks.agent import lease, marks


def aged(directory: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(directory / lease.FILE, (then, then))


def test_a_lease_is_alive_then_dead(tmp_path: Path) -> None:
    lease.write(tmp_path, lease.Lease("shop", 60))
    assert lease.state(tmp_path) == "alive"
    aged(tmp_path, 59)
    assert lease.state(tmp_path) == "alive"
    aged(tmp_path, 61)
    assert lease.read(tmp_path) == (lease.Lease("shop", 60), "dead")
    lease.write(tmp_path, lease.Lease("shop", 60))
    assert lease.state(tmp_path) == "alive"
    assert [path.name for path in tmp_path.iterdir()] == [lease.FILE]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": "x"}', '{"plan": "x", "seconds": 0}'])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, text: str) -> None:
    assert lease.state(tmp_path) == "unknown"
    (tmp_path / lease.FILE).write_text(text)
    assert lease.state(tmp_path) == "unknown"


def test_a_directory_that_nothing_was_put_into_is_dead_after_a_while(tmp_path: Path) -> None:
    """Its host was entered for a rehearsal that was ended at that moment."""
    (tmp_path / marks.FILE).touch()
    assert lease.state(tmp_path) == "unknown"
    then = time.time() - 61
    os.utime(tmp_path, (then, then))
    assert lease.state(tmp_path) == "dead"
    for name, text in ((marks.FILE, "{}"), ("of another", "")):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path, (then, then))
        assert lease.state(tmp_path) == "unknown"
        (tmp_path / name).unlink()


def test_a_rehearsal_that_is_known_to_have_ended_is_dead(tmp_path: Path) -> None:
    lease.write(tmp_path, lease.Lease("shop", 60, ended=True))
    assert lease.read(tmp_path) == (lease.Lease("shop", 60, ended=True), "dead")


def test_a_lease_from_the_future_is_unknown(tmp_path: Path) -> None:
    lease.write(tmp_path, lease.Lease("shop", 60))
    aged(tmp_path, -61)
    assert lease.state(tmp_path) == "unknown"
