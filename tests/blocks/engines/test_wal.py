"""Log arithmetic: names, order, gaps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.artifact.manifest import Part, SealedObject, Volume
from blocks.engines.postgres import wal

SIZE = 16 * 2**20
FIRST = "000000010000000000000002"


def stored(name: str) -> SealedObject:
    return SealedObject(name, 1, 1, (Volume(name, 1, (Part(1, "00"),)),))


@pytest.mark.parametrize(
    ("lsn", "name"),
    [
        ("0/0", "000000010000000000000000"),
        ("0/16E2430", "000000010000000000000001"),
        ("0/FF000028", "0000000100000000000000FF"),
        ("1/0", "000000010000000100000000"),
        ("16/B374D848", "0000000100000016000000B3"),  # PostgreSQL's own documentation
    ],
)
def test_segment_names_are_postgresqls(lsn: str, name: str) -> None:
    assert wal.segment_of(wal.parse_lsn(lsn), 1, SIZE) == name


@given(st.integers(0, 2**50), st.sampled_from([2**20, SIZE, 2**30]), st.integers(1, 99))
def test_following_segment_holds_the_next_bytes(lsn: int, size: int, timeline: int) -> None:
    here = wal.segment_of(lsn, timeline, size)
    assert wal.following(here, size) == wal.segment_of(lsn + size, timeline, size)
    assert wal.parse_lsn(wal.format_lsn(lsn)) == lsn


@pytest.mark.parametrize("far", ["00000001FFFFFFFFFFFFFFFF", "00000001FFFFFFFF000000FF"])
def test_a_segment_that_is_far_away_takes_no_time(far: str) -> None:
    found = wal.gaps([FIRST, far], FIRST, FIRST, SIZE)
    assert found[0] == wal.following(FIRST, SIZE)
    assert len(found) == wal.MOST_GAPS


@given(
    st.sampled_from([2**20, SIZE, 2**30]),
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2**20), st.integers(0, 30)), max_size=5),
)
def test_runs_are_all_segments_and_no_others(size: int, ranges: list[tuple[int, int, int]]) -> None:
    names = {
        wal.segment_of((first + n) * size, timeline, size)
        for timeline, first, count in ranges
        for n in range(count)
    }
    odd = {"00000002.history": "wal/00000002.history.zst.age", "x": "x", FIRST: f"wal/{FIRST}x"}
    odd["0000000100000000FFFFFFFF"] = "wal/0000000100000000FFFFFFFF.zst.age"
    files = {name: stored(f"wal/{name}.zst.age") for name in names}
    files |= {file: stored(name) for file, name in odd.items()}
    found, others = wal.runs(files, size)
    assert [
        wal.segment_of(number * size, int(timeline, 16), size)
        for timeline, first, last in found
        for number in range(first, last + 1)
    ] == sorted(names - {FIRST})
    assert set(others) == set(odd)
    assert len(found) <= len(ranges) + 1


@given(st.integers(0, 2**45), st.integers(2, 40), st.data())
def test_every_gap_is_seen(lsn: int, count: int, data: st.DataObject) -> None:
    names = [wal.segment_of(lsn + n * SIZE, 1, SIZE) for n in range(count)]
    lost = data.draw(st.sets(st.sampled_from(names[:-1])))
    found = wal.gaps([name for name in names if name not in lost], names[0], names[0], SIZE)
    assert found == sorted(lost)


def test_no_log_at_all_is_a_gap() -> None:
    assert wal.gaps([], FIRST, FIRST, SIZE) == [FIRST]


def test_a_log_that_ends_before_the_backup_does_has_a_gap() -> None:
    last = wal.following(wal.following(FIRST, SIZE), SIZE)
    assert wal.gaps([FIRST], FIRST, last, SIZE) == [wal.following(FIRST, SIZE), last]


def test_a_later_timeline_stands_in_for_an_earlier_one() -> None:
    names = ["000000010000000000000002", "000000020000000000000003"]
    assert wal.gaps(names, names[0], names[0], SIZE) == []


def test_the_complete_segment_wins_then_the_newest_partial() -> None:
    one, two = "000000010000000000000001", "000000010000000000000002"
    objects = [
        stored(f"wal/{one}.partial-000009.zst.age"),
        stored(f"wal/{one}.zst.age"),
        stored(f"wal/{two}.partial-000010.zst.age"),
        stored(f"wal/{two}.partial-000011.zst.age"),
        stored("wal/00000002.history.zst.age"),
        stored("base.tar.zst.age"),
    ]
    assert {file: item.name for file, item in wal.needed(objects).items()} == {
        one: f"wal/{one}.zst.age",
        two: f"wal/{two}.partial-000011.zst.age",
        "00000002.history": "wal/00000002.history.zst.age",
    }
    assert list(wal.needed(objects, two)) == [two, "00000002.history"]


def test_a_partial_state_is_no_complete_segment() -> None:
    """Segments are stored in order: a later complete one stands for all before it."""
    later = wal.following(FIRST, SIZE)
    assert wal.is_complete(f"wal/{FIRST}.zst.age", FIRST)
    assert wal.is_complete(f"wal/{later}.zst.age", FIRST)
    assert not wal.is_complete(f"wal/{later}.partial-000001.zst.age", FIRST)
    assert not wal.is_complete("wal/00000002.history.zst.age", FIRST)
    assert wal.holds(f"wal/{FIRST}.partial-000001.zst.age", FIRST)
    assert not wal.holds(f"wal/{FIRST}.zst.age", later)
