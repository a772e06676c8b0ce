"""How long recovery takes at production's size."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.evidence.record import Stage, StageState, Step
from blocks.plan.values import parse_duration, parse_size
from tasks.reporting.projection import at_production, measured


def stage(name: str, **seconds: float) -> Stage:
    now = datetime.now(UTC)
    steps = tuple(Step(n.replace("_", " "), now, now, s) for n, s in seconds.items())
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


def test_several_rehearsals_give_an_interval_and_the_slowest_counts() -> None:
    fast = measured((stage("restore", fetch_and_extract=4),), 4.0, 10**9)
    slow = measured((stage("restore", fetch_and_extract=8),), 8.0, 10**9)
    assert fast is not None
    assert slow is not None
    assert at_production(plan("10GB", "80s"), [fast, slow]) == []
    (found,) = at_production(plan("10GB", "79s"), [fast, slow])
    assert "recovered in 40.0 s to 80.0 s (from 2 rehearsals" in found.evidence


@pytest.mark.parametrize(("rta", "bytes"), [(None, 1), (1.0, None), (1.0, 0)])
def test_nothing_is_projected_from_what_was_not_measured(rta: Any, bytes: Any) -> None:
    assert measured((stage("restore", fetch_and_extract=8),), rta, bytes) is None
    assert measured((stage("restore", promote=8),), 1.0, 1) is None
