"""A record has a size, however much a source mentions."""

from dataclasses import replace
from datetime import UTC, datetime

from blocks.evidence import bounds
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import finding
from blocks.evidence.record import Check, CheckStatus, PlanSummary, Record, Verdict
from blocks.evidence.uses import Use
from blocks.evidence.verdict import exit_code

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
MANY = 100_000


def test_a_source_that_is_mentioned_everywhere() -> None:
    found = [
        finding("address-hard-coded", f"key /pods/{n}", "10.1.0.5", "verify") for n in range(MANY)
    ]
    uses = [Use("verify", NOW, "address", f"10.1.{n}", "east") for n in range(MANY)]
    checks = [
        Check(
            "x", CheckStatus.FAILED, "a", "b" * 10**6, subjects=tuple(f"s{n}" for n in range(MANY))
        )
    ]
    record = Record(
        rehearsal_id="r1",
        plan=PlanSummary("shop", "", "postgres", "east", "west"),
        verdict=Verdict.FAILED,
        started_at=NOW,
        ended_at=None,
        findings=bounds.findings(found),
        uses=bounds.uses(uses),
        checks=bounds.checks(checks),
        not_verified=bounds.lines(f"row {n}" for n in range(MANY)),
    )
    assert len(record.to_json()) < 200_000
    last = record.findings[-1]
    assert last.subject == bounds.THE_REST
    assert last.evidence.startswith(f"{MANY - bounds.FINDINGS:,} more, such as key /pods/")
    assert record.uses[-1].name == f"{MANY - bounds.USES + 1:,} more"
    assert record.not_verified[-1] == f"and {MANY - bounds.LINES:,} more"
    assert (record.checks[0].actual or "").endswith("... (1,000,000 characters)")


def test_the_worst_of_what_is_only_counted_still_counts() -> None:
    mild = [
        finding("leftovers", f"path {n}", "x", "verify", severity=Severity.INFO) for n in range(60)
    ]
    worst = finding("leftovers", "last", "it serves", "verify", severity=Severity.CRITICAL)
    found = bounds.findings([*mild, worst])
    assert len(found) == bounds.FINDINGS + 1
    assert (found[0].severity, found[0].subject) == (Severity.CRITICAL, bounds.THE_REST)
    assert "last: it serves" in found[0].evidence
    record = Record(
        rehearsal_id="r1",
        plan=PlanSummary("shop", "", "postgres", "east", "west"),
        verdict=Verdict.VERIFIED,
        started_at=NOW,
        ended_at=None,
        findings=found,
    )
    assert exit_code(record) == 1


def test_what_is_short_stays_as_it_is() -> None:
    few = [finding("clock-skew", f"west/db{n}", "9 s", "preflight") for n in range(3)]
    assert bounds.findings(few) == tuple(few)
    assert [item.evidence for item in bounds.findings(few)] == ["9 s"] * 3
    check = Check("x", CheckStatus.PASSED, "a", None)
    assert bounds.checks([check, replace(check, name="y")]) == (check, replace(check, name="y"))
    assert bounds.lines(["a"]) == ("a",)
