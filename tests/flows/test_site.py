"""The lab under a rehearsal that has lost its source: nobody else revives it, or calls it."""

from typing import Any

import pytest

from blocks.errors import PermanentError
from blocks.evidence.record import Verdict
from deployments import lab
from flows.site import opened, running_without_source
from tests import mechanisms
from tests.flows.conftest import World

SECONDS = 40
"""How long the first rehearsal verifies at least: others try to come in between meanwhile."""


def slow(document: Any) -> None:
    """A check that takes a while."""
    sql = f"SELECT count(*) FROM pg_sleep({SECONDS})"
    document["checks"].append({"name": "slow", "database": "shop", "sql": sql, "expected": "1"})


@mechanisms.WHOLE
def test_a_lost_lab_is_left_to_the_rehearsal_that_lost_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARSIDE_LAB", str(world.places.root))
    words = ("--select", "latest", "--rto", "1h", "--rpo", "24h")
    running = world.start(str(world.plan(slow)), *words)
    running.until("verify: started")
    assert lab.is_lost(world.places.root)
    swept = world.sweep("postgres")
    (rehearsal_id,) = running_without_source()
    assert (swept.code, swept.out) == (0, f"left alone {rehearsal_id}\n")
    for name in ("postgres", "standbys"):  # another plan's would give east back at its end
        with (
            pytest.raises(PermanentError, match=f"{rehearsal_id} runs in the lab now"),
            opened(name),
        ):
            pass
    assert lab.is_lost(world.places.root)
    assert running.process.poll() is None, "all of this was under way while it verified"
    first = running.end()
    assert (first.code, first.findings) == (0, [])
    assert first.record is not None
    assert first.record.verdict is Verdict.VERIFIED
    assert first.record.rehearsal_id == rehearsal_id
    assert running_without_source() == ()
    assert world.left() == []
