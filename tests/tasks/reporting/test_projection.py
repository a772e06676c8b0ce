"""How long recovery takes at production's size."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.evidence.record import Stage, StageState, Step
from blocks.plan.values import parse_duration, parse_size
from tasks.reporting.projection import at_production, measured

GROWING = ("fetch and extract", "fetch and open", "restore snapshot")


def stage(name: str, **seconds: float) -> Stage:
    now = datetime.now(UTC)
    spelt = {name.replace("_", " "): s for name, s in seconds.items()}
    steps = tuple(
        Step(name, now, now, s, grows=name.rpartition(": ")[2] in GROWING)
        for name, s in spelt.items()
    )
    return Stage(name, StageState.COMPLETED, steps=steps)


def plan(size: str, rto: str, link: int | None = None) -> Any:
    return SimpleNamespace(
        name="shop",
        production=SimpleNamespace(size=parse_size(size), link=link),
        objectives=SimpleNamespace(rto=parse_duration(rto)),
    )


def test_what_grows_is_scaled_and_the_rest_is_not() -> None:
    stages = (stage("transfer", base=99), stage("restore", fetch_and_extract=8, promote=2))
    run = measured(stages, 10.0, 10**9)
    assert run is not None
    assert (run.at(10**9), run.at(10**10)) == (10.0, 82.0)
    assert run.bytes_in(82.0) == 10**10
    assert at_production(plan("10GB", "90s"), [run]) == []
    (found,) = at_production(plan("10GB", "60s", link=10**7), [run])
    assert found.id == "bandwidth-insufficient"
    assert "it breaks above 7.25 GB" in found.evidence
    assert "a full copy over the link takes up to 0:16:40" in found.evidence


def test_of_nodes_side_by_side_the_slowest_counts() -> None:
    seconds = {"kv1: fetch and open": 3.0, "kv2: fetch and open": 4.0, "kv2: restore snapshot": 1.0}
    run = measured((stage("restore", **seconds), stage("verify", leader=1)), 10.0, 10**9)
    assert run is not None
    assert run.growing == 5.0


def test_steps_say_themselves_whether_they_grow() -> None:
    """Of a cluster, and of a system restored by commands: no table of names has to know them."""
    now = datetime.now(UTC)

    def timed(stage: str, *steps: tuple[str, float, bool]) -> Stage:
        made = tuple(Step(name, now, now, s, grows=grows) for name, s, grows in steps)
        return Stage(stage, StageState.COMPLETED, steps=made)

    cluster = (
        timed(
            "restore",
            ("ga1: fetch and extract", 5, True),
            ("ga2: fetch and extract", 4, True),
            ("ga1: replay log", 3, True),
            ("ga2: replay log", 6, True),
            ("ga1: new identity", 9, False),
        ),
        timed("verify", ("login", 1, False), ("row-counts", 2, True), ("nodes-agree", 4, True)),
    )
    commands = (timed("restore", ("fetch and open", 1, True), ("restore", 7, True)),)
    run, other = measured(cluster, 40.0, 10**9), measured(commands, 10.0, 10**9)
    assert run is not None
    assert other is not None
    assert (run.growing, other.growing) == (17.0, 8.0)


def test_a_record_that_does_not_say_what_grows_projects_nothing() -> None:
    now = datetime.now(UTC)
    older = Stage("restore", StageState.COMPLETED, steps=(Step("fetch and extract", now, now, 8),))
    assert measured((older,), 10.0, 10**9) is None


def test_several_rehearsals_give_an_interval_and_the_slowest_counts() -> None:
    fast = measured((stage("restore", fetch_and_extract=4),), 4.0, 10**9)
    slow = measured((stage("restore", fetch_and_extract=8),), 8.0, 10**9)
    assert fast is not None
    assert slow is not None
    assert at_production(plan("10GB", "80s"), [fast, slow]) == []
    (found,) = at_production(plan("10GB", "79s"), [fast, slow])
    assert "recovered in 40.0 s to 80.0 s (from 2 rehearsals" in found.evidence


@pytest.mark.parametrize(("rta", "size"), [(None, 1), (1.0, None), (1.0, 0)])
def test_nothing_is_projected_from_what_was_not_measured(rta: Any, size: Any) -> None:
    assert measured((stage("restore", fetch_and_extract=8),), rta, size) is None
    assert measured((stage("restore", promote=8),), 1.0, 1) is None
