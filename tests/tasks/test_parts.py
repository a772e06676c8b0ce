"""Parts of a teardown: one that fails or hangs keeps no other from running."""

import threading
from collections.abc import Callable, Iterable

import pytest

from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Finding
from tasks import parts
from tasks.parts import Part, left_over, run_parts
from tasks.reporting.clock import StageClock


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_PAUSE", 0.0)


def run(*given: Part) -> tuple[list[Finding], list[str]]:
    """What the parts found, and the steps in the record."""
    clock = StageClock()
    with clock.stage("teardown") as stage:
        found = run_parts(given, stage)
    steps = {s.name: s for s in clock.stages()}["teardown"].steps
    return found, [step.name for step in steps]


def part(
    name: str, do: Callable[[], Iterable[Finding]], *after: str, seconds: float = 30.0
) -> Part:
    return Part(name, f"west {name}", do, seconds, after)


def notes(order: list[str], name: str) -> Callable[[], Iterable[Finding]]:
    """Note that the part ran."""

    def do() -> Iterable[Finding]:
        order.append(name)
        return ()

    return do


def fails(error: BaseException) -> Callable[[], Iterable[Finding]]:
    def do() -> Iterable[Finding]:
        raise error

    return do


@pytest.mark.parametrize(
    "error",
    [
        PermanentError("refused"),
        TransientError("busy"),
        AssertionError("a bug"),
        KeyboardInterrupt(),
        SystemExit(3),
    ],
)
def test_a_part_that_fails_is_a_finding_and_keeps_no_other_from_running(
    error: BaseException,
) -> None:
    ran: list[str] = []
    found, steps = run(
        part("fence", fails(error)),
        part("slot", notes(ran, "slot"), "fence"),
        part("hosts", notes(ran, "hosts")),
    )
    assert sorted(ran) == ["hosts", "slot"]
    assert [(item.id, item.subject, item.severity) for item in found] == [
        ("leftovers", "west fence", Severity.HIGH)
    ]
    assert set(steps) == {"fence", "slot", "hosts"}


def test_a_part_that_hangs_is_left_behind() -> None:
    ran: list[str] = []
    never = threading.Event()

    def hangs() -> Iterable[Finding]:
        never.wait()
        return ()

    try:
        found, _ = run(
            part("fence", hangs, seconds=0.2),
            part("slot", notes(ran, "slot"), "fence"),
        )
    finally:
        never.set()
    assert ran == ["slot"]
    (item,) = found
    assert item.subject == "west fence"
    assert "did not end within 0.2 s" in item.evidence


def test_a_part_begins_when_those_before_it_have_ended() -> None:
    order: list[str] = []
    gate = threading.Event()

    def first() -> Iterable[Finding]:
        gate.wait(30)
        order.append("first")
        return ()

    def beside() -> Iterable[Finding]:
        order.append("beside")
        gate.set()
        return ()

    run(
        part("second", notes(order, "second"), "first", "not there"),
        part("first", first),
        part("beside", beside),
    )
    assert order == ["beside", "first", "second"]


def test_what_is_transient_is_tried_once_more() -> None:
    tries: list[int] = []

    def do() -> Iterable[Finding]:
        tries.append(1)
        if len(tries) == 1:
            raise TransientError("busy")
        return ()

    assert run(part("fence", do))[0] == []
    assert len(tries) == 2


def test_what_was_found_before_a_failure_is_kept() -> None:
    def do() -> Iterable[Finding]:
        yield left_over("west store", "an upload")
        raise PermanentError("refused")

    assert [item.subject for item in run(part("objects", do))[0]] == ["west store", "west objects"]
