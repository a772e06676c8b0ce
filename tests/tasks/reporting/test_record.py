"""Accepted risks, applied where the record is put together."""

from datetime import date

import pytest

from blocks.evidence.findings import Finding, finding
from blocks.plan.model import AcceptedRisk
from tasks.reporting.record import accept

NOTIFY = finding("address-hard-coded", "shop: notify()", "10.1.0.5", "verify")
LAST = date(2026, 10, 31)


def risk(
    subject: str | None = None, until: date = LAST, finding_id: str = NOTIFY.id
) -> AcceptedRisk:
    return AcceptedRisk(finding=finding_id, subject=subject, reason="moved in Q1", until=until)


def accepted(risks: list[AcceptedRisk], on: date) -> Finding:
    (item,) = accept([NOTIFY], risks, on)
    return item


@pytest.mark.parametrize("subject", [None, NOTIFY.subject])
def test_the_last_day_still_counts_and_the_next_one_says_that_it_has_passed(
    subject: str | None,
) -> None:
    item = accepted([risk(subject)], LAST)
    assert item.accepted is not None
    assert (item.accepted.reason, item.accepted.until) == ("moved in Q1", LAST)
    assert item.evidence == NOTIFY.evidence
    late = accepted([risk(subject)], date(2026, 11, 1))
    assert late.accepted is None
    assert late.evidence == ("10.1.0.5; accepted until 2026-10-31 (moved in Q1): that has passed")


def test_another_cause_is_not_accepted_along() -> None:
    others = [risk("shop: other()"), risk(NOTIFY.subject, finding_id="path-hard-coded")]
    item = accepted(others, LAST)
    assert (item.accepted, item.evidence) == (None, NOTIFY.evidence)


def test_of_several_the_one_that_holds_longest_counts() -> None:
    item = accepted([risk(until=date(2026, 1, 1)), risk(NOTIFY.subject)], LAST)
    assert item.accepted is not None
    assert item.accepted.until == LAST
