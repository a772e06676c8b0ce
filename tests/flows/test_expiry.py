"""`python -m flows.sweep --expire`, as an operator runs it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.artifact.manifest import header_of, sign
from blocks.domain import FailureDomain
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.repositories.farside.layout import HEADER, MANIFEST
from blocks.repositories.farside.listing import set_ids
from blocks.repositories.farside.reader import SetReader
from flows import sweep
from tests import mechanisms
from tests.flows.conftest import World

OLD = "r20200101-000000-0ddba1"


def retain(document: Any) -> None:
    document["retention"] = {"days": 300}


def age(plan: Plan, domain: FailureDomain) -> None:
    """A copy of a set of the plan's, of years ago, without its data."""
    assert plan.keys.signing_key is not None
    key = plan.source.secret(plan.keys.signing_key).get_secret_value()
    newest = set_ids(domain.store, plan.name)[-1]
    manifest = SetReader(domain, plan.binding, newest, OLD).manifest()
    taken = datetime(2020, 1, 1, tzinfo=UTC)
    envelope = sign(replace(manifest, set_id=OLD, taken_at=taken), key)
    header = replace(header_of(manifest, len(envelope)), set_id=OLD, taken_at=taken)
    for name, data in ((HEADER, sign(header, key)), (MANIFEST, envelope), ("base.000", b"x")):
        domain.store.put(f"sets/{plan.name}/{OLD}/{name}", data)


@mechanisms.WHOLE
def test_an_old_set_goes_and_nothing_else(world: World) -> None:
    path = world.plan(retain)
    plan = load_plan(path)
    before = [[info.key for info in side.store.objects("sets/")] for side in domains(plan)]
    for domain in domains(plan):
        age(plan, domain)
    words = (str(path), "--results", str(world.results))
    assert world.start(*words, module="flows.sweep").end().out == "nothing to remove\n"
    swept = world.start(*words, "--expire", module="flows.sweep").end()
    assert swept.code == 0, swept.text
    for name in ("west", "east"):
        assert f"expired    set {OLD} (taken 2020-01-01 00:00 UTC, " in swept.out
        assert f"\nkept       sets in {name}: " in swept.out
    assert swept.out.count("expired ") == 2
    after = [[info.key for info in side.store.objects("sets/")] for side in domains(plan)]
    assert after == before
    assert world.left() == []


@pytest.mark.parametrize("ahead", [timedelta(days=-3650), timedelta(), timedelta(days=3650)])
def test_the_clock_that_is_behind_decides(ahead: timedelta) -> None:
    """By one that is ten years ahead every set would be too old."""
    store = SimpleNamespace(now=lambda: datetime.now(UTC) + ahead)
    plan: Any = SimpleNamespace(recovery=SimpleNamespace(store=store))
    decided = sweep._earliest_clock(plan) - datetime.now(UTC) - min(ahead, timedelta())
    assert abs(decided) < timedelta(minutes=1)


def domains(plan: Plan) -> tuple[FailureDomain, FailureDomain]:
    return plan.source, plan.recovery
