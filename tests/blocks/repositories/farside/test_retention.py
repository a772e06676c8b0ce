"""Which sets a retention keeps, and why."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.artifact.manifest import SetHeader
from blocks.repositories.farside.retention import Retention, judge

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def taken(set_id: str, days: float) -> SetHeader:
    """A set, so many days old."""
    return SetHeader(
        set_id=set_id,
        plan="shop",
        engine="postgres",
        source="east",
        taken_at=NOW - timedelta(days=days),
        recipients=(),
        sealed_bytes=1,
        manifest_bytes=1,
    )


WEEK = [taken(f"r{9 - age}", age) for age in range(5)]
"""r9 of today, r8 of yesterday, ... r5 of four days ago."""


def kept(retention: Retention, *verified: str) -> dict[str, str | None]:
    return {item.header.set_id: item.kept for item in judge(WEEK, retention, verified, NOW)}


@pytest.mark.parametrize(
    ("retention", "verified", "reasons"),
    [
        (Retention(last=2), ["r9"], ["by last: 2", "by last: 2", None, None, None]),
        (Retention(last=9), [], ["by last: 9"] * 5),
        (Retention(days=2), ["r9"], ["by days: 2", "by days: 2", None, None, None]),
        (
            Retention(last=1, days=3),
            ["r9"],
            ["by last: 1", "by days: 3", "by days: 3", None, None],
        ),
        # What must not be lost, whatever the plan says.
        (
            Retention(last=1),
            ["r5", "r6"],
            ["by last: 1", None, None, "as the newest verified", None],
        ),
        (Retention(last=1), ["gone"], ["by last: 1", None, None, None, None]),
    ],
)
def test_a_set_is_kept_if_either_keeps_it(
    retention: Retention, verified: list[str], reasons: list[str | None]
) -> None:
    assert list(kept(retention, *verified).values()) == reasons


def test_sets_that_are_all_too_old() -> None:
    old = [taken("r2", 40), taken("r3", 30), taken("r1", 50)]
    for verified, reasons in (
        ((), {"r3": "as the newest", "r2": None, "r1": None}),
        (("r3",), {"r3": "as the newest verified", "r2": None, "r1": None}),
        (("r1",), {"r3": "as the newest", "r2": None, "r1": "as the newest verified"}),
    ):
        judged = judge(old, Retention(days=7), verified, NOW)
        assert {item.header.set_id: item.kept for item in judged} == reasons


def test_a_clock_that_was_ahead_costs_no_later_set_its_place() -> None:
    """Sets of a week with a wrong clock: what is taken since is the newest all the same."""
    ahead = [taken(f"a{days}", -days) for days in range(300, 307)]
    for verified in ("a303",), ("r6",):
        judged = judge([*ahead, *WEEK], Retention(last=2), verified, NOW)
        reasons = {item.header.set_id: item.kept for item in judged}
        assert [reasons[item.set_id] for item in ahead] == ["as their clock was ahead"] * 7
        assert reasons["r9"] == reasons["r8"] == "by last: 2"
        assert reasons["r7"] is reasons["r5"] is None
        assert reasons["r6"] == ("as the newest verified" if "r6" in verified else None)


@given(
    ages=st.lists(st.integers(-2, 60), max_size=12),
    last=st.none() | st.integers(1, 14),
    days=st.none() | st.integers(1, 60),
    verified=st.sets(st.integers(0, 11)),
)
def test_whatever_there_is(
    ages: list[int], last: int | None, days: int | None, verified: set[int]
) -> None:
    if last is None and days is None:
        days = 1
    sets = [taken(f"r{number:02}", age) for number, age in enumerate(ages)]
    ids = {f"r{number:02}" for number in verified}
    judged = judge(sets, Retention(last=last, days=days), ids, NOW)
    assert {item.header.set_id for item in judged} == {item.set_id for item in sets}
    kept = [item.header for item in judged if item.kept is not None]
    gone = [item.header for item in judged if item.kept is None]
    assert len(kept) >= min(len(sets), last or 1)
    if proven := [item for item in sets if item.set_id in ids]:
        newest = max(proven, key=lambda item: (item.taken_at, item.set_id))
        assert newest in kept
    for item in gone:
        assert item.taken_at <= max(other.taken_at for other in kept)
        assert days is None or NOW - item.taken_at >= timedelta(days=days)
        assert last is None or sum(other.taken_at >= item.taken_at for other in kept) >= last


@pytest.mark.parametrize(
    "given",
    [{}, {"last": 0}, {"days": 0}, {"last": -1}, {"last": True}, {"days": 1.5}, {"weeks": 1}],
)
def test_what_says_nothing_that_could_be_meant(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Retention(**given)  # type: ignore[arg-type]
