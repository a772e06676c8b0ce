"""The loss, and what is looked at just before it."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import declare
from tasks.reporting.clock import StageClock


def test_what_the_fence_told_before_is_noted_before_the_declaration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, done = StageClock(), list[tuple[str, datetime]]()

    def note(name: str) -> Any:
        return lambda *_: done.append((name, clock.now()))

    fence = SimpleNamespace(remember=note("remember"), cut=note("cut"), marks=frozenset())
    source = SimpleNamespace(name="east", store=None, close=lambda: None)
    recovery = SimpleNamespace(name="west")
    rehearsal = SimpleNamespace(
        id="r1",
        fresh=False,
        clock=clock,
        lease=SimpleNamespace(note_fence=note("lease"), leave=lambda _: None),
        plan=SimpleNamespace(
            fence=fence,
            gap=lambda rehearsal_id: rehearsal_id,
            source=source,
            recovery=recovery,
            engine=SimpleNamespace(),
        ),
    )
    for name in ("listing", "note_end_of_log"):
        monkeypatch.setattr(declare, name, lambda _: None)
    monkeypatch.setattr(declare, "leaks", lambda *_, **__: SimpleNamespace(leaking=()))
    declared = declare.declare.fn(rehearsal, None, None)
    assert [name for name, _ in done] == ["remember", "lease", "cut"]
    assert done[0][1] <= declared.at <= done[2][1]
