"""Snapshot: each attempt has facts of its own."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from typing_extensions import override

from blocks.engines.abilities import KnowsDangers
from blocks.errors import TransientError
from blocks.evidence.findings import Findings, finding
from tasks.reporting.clock import StageClock
from tasks.snapshot import snapshot


class Engine(KnowsDangers):
    """The source changes from survey to survey; the first backup breaks off."""

    def __init__(self) -> None:
        self.surveys, self.captured = 1, list[Any]()

    def survey(self, source: Any) -> Any:  # noqa: ARG002 (a stand-in)
        self.surveys += 1
        return {"survey": self.surveys}

    def capture(self, source: Any, sink: Any, facts: Any, steps: Any) -> Any:  # noqa: ARG002 (a stand-in)
        self.captured.append(facts)
        if len(self.captured) == 1:
            raise TransientError("the connection was lost")
        return SimpleNamespace(facts=facts)

    @override
    def dangers(self, facts: Any, source: Any) -> Any:
        yield finding("source-not-archiving", "east/db1", f"at {facts['survey']}")


def test_a_source_is_surveyed_again_for_another_attempt() -> None:
    engine = Engine()
    plan = SimpleNamespace(
        engine=engine,
        source=SimpleNamespace(name="east", secret=lambda _: SecretStr("")),
        keys=SimpleNamespace(signing_key="key"),
    )
    rehearsal: Any = SimpleNamespace(
        plan=plan, source=plan.source, clock=StageClock(), findings=Findings()
    )
    writer: Any = SimpleNamespace(begin=lambda _: None, finish=lambda captured, _: captured)
    survey: Any = SimpleNamespace(facts={"survey": 1})
    with pytest.raises(TransientError):
        snapshot.fn(rehearsal, survey, writer)
    assert snapshot.fn(rehearsal, survey, writer).facts == {"survey": 2}
    assert engine.captured == [{"survey": 1}, {"survey": 2}]
    (found,) = rehearsal.findings.all()
    assert (found.id, found.evidence) == ("source-not-archiving", "at 2"), "as it came to be"
    assert found.stage == "preflight"
