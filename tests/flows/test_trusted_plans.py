"""Which saved plans a worker runs: a block can be changed by whoever reaches Prefect's API."""

from pathlib import Path

import pytest

from blocks.plan.loading import PlanError, load_plan
from blocks.plan.model import Plan
from blocks.settings import trusted_plans
from flows import site
from tests.blocks.plan.test_plan import save, text

__all__ = ["text"]


def test_a_saved_plan_runs_only_where_its_digest_is_known(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_plan(save(tmp_path, text))
    monkeypatch.setattr(Plan, "load", lambda _name: plan)
    monkeypatch.delenv("FARSIDE_TRUSTED_PLANS", raising=False)
    assert trusted_plans() is None
    assert site.saved("shop") is plan
    monkeypatch.setenv("FARSIDE_TRUSTED_PLANS", f"other, {plan.digest}")
    assert site.saved("shop") is plan
    monkeypatch.setenv("FARSIDE_TRUSTED_PLANS", "")
    with pytest.raises(PlanError, match=plan.digest):
        site.saved("shop")
    changed = load_plan(save(tmp_path, text.replace("raise_argv: [a]", "raise_argv: [evil]")))
    monkeypatch.setattr(Plan, "load", lambda _name: changed)
    monkeypatch.setenv("FARSIDE_TRUSTED_PLANS", plan.digest)
    with pytest.raises(PlanError, match="FARSIDE_TRUSTED_PLANS"):
        site.saved("shop")
