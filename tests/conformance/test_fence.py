"""What `blocks/fences/fence.py` says of every fence: the source is cut off, and back again."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from blocks.fences.fence import Attempt, Fence, Gap
from tests.conformance import worlds
from tests.conformance.conftest import ID
from tests.conformance.table import FENCES, Implementation
from tests.conformance.worlds import FenceUnderTest

pytestmark = pytest.mark.slow(3)
OTHER = "r20260101-000000-bbbbbb"


@pytest.fixture(params=FENCES, ids=str)
def world(request: pytest.FixtureRequest) -> FenceUnderTest:
    kind: Implementation = request.param
    made = kind.made(request)
    assert isinstance(made, FenceUnderTest)
    assert isinstance(made.make(), kind.block)
    return made


@pytest.fixture
def gap(world: FenceUnderTest) -> Gap:
    return world.gap


@pytest.fixture
def fence(world: FenceUnderTest) -> Fence:
    return world.make()


def told(fence: Fence, gap: Gap, at_least: int = 1) -> Sequence[Attempt]:
    """The calls that were caught; there are so many soon."""
    give_up = time.monotonic() + 20
    while True:
        seen = fence.attempts(gap)
        assert seen.unseen == ()
        if len(seen.attempts) >= at_least or time.monotonic() > give_up:
            return seen.attempts
        time.sleep(0.2)


def test_a_check_changes_nothing(world: FenceUnderTest, fence: Fence, gap: Gap) -> None:
    assert world.call()
    for _ in range(2):
        fence.check(gap)
    assert world.call()


def test_cut_and_lift_are_idempotent(world: FenceUnderTest, fence: Fence, gap: Gap) -> None:
    fence.check(gap)
    fence.remember(gap)
    before = datetime.now(UTC)
    first, second = fence.cut(gap), fence.cut(gap)
    assert before <= first <= second <= datetime.now(UTC), "taken before anything is done"
    assert not world.call()
    raised = replace(gap, raised={ID: fence.marks})
    for _ in range(2):
        assert fence.lift(raised) == frozenset()
        assert world.call()


def test_to_lift_what_is_not_cut_has_no_effect(
    world: FenceUnderTest, fence: Fence, gap: Gap
) -> None:
    assert fence.lift(gap) == frozenset()
    assert fence.lift(replace(gap, rehearsal_id=None)) == frozenset()
    assert world.call()


def test_calls_are_told_with_place_and_time(world: FenceUnderTest, fence: Fence, gap: Gap) -> None:
    assert fence.tells
    assert world.call(), "before the loss: none of what is told"
    fence.remember(gap)
    fence.cut(gap)
    assert told(fence, gap, 0) == ()
    assert not world.call()
    caught = told(fence, gap)
    assert {(item.host, item.address, item.port) for item in caught} == {
        ("db1", worlds.SOURCE, worlds.PORT)
    }
    assert [item.at for item in caught] == sorted(item.at for item in caught)
    assert all(item.at.tzinfo for item in caught)


def test_what_was_told_already_is_not_told_again(
    world: FenceUnderTest, fence: Fence, gap: Gap
) -> None:
    fence.cut(gap)
    world.call()
    told(fence, gap)
    fence.lift(replace(gap, raised={ID: fence.marks}))
    again = world.make()
    again.remember(gap)
    again.cut(gap)
    assert told(again, gap, 0) == ()


def test_another_rehearsals_end_leaves_it(world: FenceUnderTest, fence: Fence, gap: Gap) -> None:
    fence.cut(gap)
    another = replace(gap, rehearsal_id=OTHER, spared=frozenset({ID}), raised={ID: fence.marks})
    assert world.make().lift(another) <= {ID}
    assert not world.call()


@pytest.mark.parametrize("ended", [None, frozenset[str](), frozenset({ID})])
def test_a_sweep_spares_the_living(
    world: FenceUnderTest, fence: Fence, gap: Gap, ended: frozenset[str] | None
) -> None:
    fence.cut(gap)
    swept = replace(
        gap,
        rehearsal_id=None,
        spared=frozenset({ID}),
        ended=ended,
        raised={ID: fence.marks},
    )
    assert world.make().lift(swept) <= {ID}
    assert not world.call()


def test_a_sweep_leaves_what_is_not_known_to_have_ended(
    world: FenceUnderTest, fence: Fence, gap: Gap
) -> None:
    fence.cut(gap)
    swept = replace(gap, rehearsal_id=None, ended=frozenset(), raised={ID: fence.marks})
    assert world.make().lift(swept) == {ID}
    assert not world.call()


@pytest.mark.parametrize("ended", [None, frozenset({ID})])
def test_a_sweep_lifts_what_the_dead_have_raised(
    world: FenceUnderTest, fence: Fence, gap: Gap, ended: frozenset[str] | None
) -> None:
    """Another process does, which knows nothing but the leases."""
    fence.cut(gap)
    assert not world.call()
    swept = replace(gap, rehearsal_id=None, ended=ended, raised={ID: fence.marks})
    assert world.make().lift(swept) == frozenset()
    assert world.call()


def test_what_it_says_of_itself(fence: Fence) -> None:
    assert isinstance(fence.tells, bool)
    assert isinstance(fence.shuts_names, bool)
    assert isinstance(fence.is_on_hosts, bool)
    assert fence.untried == (), "each of these is tried at preflight"
    assert all(isinstance(mark, str) for mark in fence.marks)


def test_a_plan_keeps_it_as_it_is(fence: Fence) -> None:
    assert type(fence).model_validate(fence.model_dump(mode="json")) == fence
