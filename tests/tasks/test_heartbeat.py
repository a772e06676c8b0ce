"""The heartbeat's ledger is read from its end, and never whole."""

import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks import heartbeat
from tasks.heartbeat import Lost, acknowledged_after

AT = "2026-07-01T12:00:00+00:00"


def ledger(folder: Path, ids: range | list[int], tail: str = "") -> Path:
    path = folder / "ledger"
    path.write_text("".join(f"{tick}\t{AT}\n" for tick in ids) + tail)
    return path


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
@pytest.mark.parametrize("newest", [0, 1, 42, 99, 100, 500])
def test_what_was_acknowledged_after_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, newest: int
) -> None:
    monkeypatch.setattr(heartbeat, "_BLOCK", block)
    path = ledger(tmp_path, range(1, 101))
    assert acknowledged_after(path, newest).rows == max(0, 100 - newest)


def test_a_torn_last_line_does_not_count(tmp_path: Path) -> None:
    assert acknowledged_after(ledger(tmp_path, range(1, 5), "5\t2026"), 2).rows == 2
    assert acknowledged_after(ledger(tmp_path, range(1, 5), f"5\t{AT}"), 2).rows == 2


@pytest.mark.parametrize("zone", ["+00:00", "", "Z"])
def test_what_a_source_acknowledges_behind_the_fence_is_not_lost(tmp_path: Path, zone: str) -> None:
    path = tmp_path / "ledger"
    path.write_text("".join(f"{tick}\t2026-07-01T12:00:{tick:02}{zone}\n" for tick in range(1, 60)))
    moment = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    until = moment.replace(second=30)
    assert acknowledged_after(path, 10, until) == Lost(20, until)
    assert acknowledged_after(path, 40, until) == Lost(0, None)
    assert acknowledged_after(path, 58) == Lost(1, moment.replace(second=59))


def test_writers_may_overtake_each_other(tmp_path: Path) -> None:
    assert acknowledged_after(ledger(tmp_path, [1, 2, 4, 3, 6, 5]), 4).rows == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no acknowledged row"),
        ("1\tnow", "no acknowledged row"),
        ("junk\n", "which is no id"),
        ("-1\tnow\n", "which is no id"),
        ("x" * 9_000_000, "too long"),
    ],
)
def test_what_is_no_ledger(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "ledger"
    path.write_text(text)
    with pytest.raises(ValueError, match=why):
        acknowledged_after(path, 0)


def test_a_long_ledger_takes_no_more_memory(tmp_path: Path) -> None:
    path = ledger(tmp_path, range(1, 1_000_001))
    tracemalloc.start()
    try:
        assert acknowledged_after(path, 999_990).rows == 10
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
