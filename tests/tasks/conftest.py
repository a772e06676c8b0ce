"""Records to compute from."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from blocks.evidence.findings import finding
from blocks.evidence.record import (
    STAGES,
    BackupSetSummary,
    Check,
    CheckStatus,
    Node,
    PlanSummary,
    Record,
    RunbookStep,
    Stage,
    StageState,
    Step,
    Topology,
    Verdict,
)
from blocks.evidence.uses import Use
from blocks.plan.model import Plan
from tests.conftest import S3
from tests.tasks.sites import RECORD_KEY, Site, document, domain

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So long after the rehearsal's start."""
    return NOON + timedelta(seconds=seconds)


def stage(name: str, start: float, end: float, size: int | None = None, **more: object) -> Stage:
    """A completed stage."""
    basis = Stage(name, StageState.COMPLETED, at(start), at(end), round(end - start, 3), 1, size)
    return replace(basis, **more)  # type: ignore[arg-type]


def step(name: str, start: float, end: float, size: int | None = None) -> Step:
    """A step."""
    return Step(name, at(start), at(end), round(end - start, 3), size)


@pytest.fixture
def verified() -> Record:
    """A rehearsal as it should be."""
    return Record(
        rehearsal_id="r20260701-120000-1a2b3c",
        plan=PlanSummary("Shop DB", "ab" * 32, "postgres", "east", "west"),
        verdict=Verdict.VERIFIED,
        started_at=NOON,
        ended_at=at(31.2),
        declared_at=at(18),
        usable_at=at(30),
        recovered_until=at(17.5),
        rta_seconds=12.0,
        rto_seconds=60.0,
        rpa_seconds=0.5,
        rpo_seconds=10.0,
        transactions_lost=3,
        backup_set=BackupSetSummary("s-99aa", at(2), 48_200_000, "fresh", 171_000_000),
        stages=(
            stage("preflight", 0, 1.4),
            stage("snapshot", 1.5, 8.9, 48_200_000),
            stage("transfer", 9, 12.1, 48_200_000, attempts=2),
            stage("declare", 17.9, 19),
            stage("key fetch", 19, 19.4),
            stage(
                "restore",
                19.5,
                26,
                171_000_000,
                steps=(step("fetch+extract", 19.6, 22, 171_000_000), step("replay", 22, 26)),
            ),
            stage("verify", 26, 30),
            stage("teardown", 30.2, 31.1),
        ),
        checks=(
            Check("page checksums", CheckStatus.PASSED, "0 bad pages", "0 bad pages"),
            Check("balances", CheckStatus.PASSED, "t", "t", "branches against history"),
        ),
        uses=(
            Use("snapshot", at(2), "host", "db1", "east"),
            Use("key fetch", at(19.1), "key", "farside-age-identity", "west"),
            Use("restore", at(20), "name", "pool.example", ""),
        ),
        topology=Topology(
            (Node("db1", "primary", "10.1.0.1", 5432),), (Node("db1", "primary", "10.1.0.1", 5432),)
        ),
        not_verified=("tables that are unlogged",),
        runbook=(RunbookStep("Open the base", ('curl "$URL" | age -d -i key',), "west/db1"),),
        versions={"farside": "0.1.0"},
    )


@pytest.fixture
def failed(verified: Record) -> Record:
    """A restore that met a flipped byte, and a name with all that Markdown takes amiss."""
    message = "west/db1: base.tar.zst.age: part 3 is not what was written (next: transfer again)"
    return replace(
        verified,
        rehearsal_id="r20260702-120000-4d5e6f",
        verdict=Verdict.FAILED,
        started_at=at(86_400),
        usable_at=None,
        recovered_until=None,
        rta_seconds=None,
        rpa_seconds=None,
        transactions_lost=None,
        stages=(
            *verified.stages[:5],
            stage("restore", 19.5, 24, state=StageState.FAILED, error=message),
            Stage("verify", StageState.SKIPPED),
            stage("teardown", 24, 25),
        ),
        checks=(
            Check("balances", CheckStatus.FAILED, "t", "f"),
            Check("heart|beat", CheckStatus.UNKNOWN, "no gap", None, "permission denied"),
        ),
        findings=(
            finding("clock-skew", "db1", "7 s", "preflight"),
            finding("object-corrupt", "base_<b>.000", "part 3:\nSHA-256 61fa | 88ab", "restore"),
        ),
        not_verified=(),
        runbook=(),
    )


@pytest.fixture
def cancelled(verified: Record) -> Record:
    """A rehearsal that was stopped before it knew anything."""
    return replace(
        verified,
        rehearsal_id="r20260703-120000-778899",
        verdict=Verdict.COULD_NOT_VERIFY,
        started_at=at(2 * 86_400),
        ended_at=None,
        declared_at=None,
        usable_at=None,
        recovered_until=None,
        rta_seconds=None,
        rpa_seconds=None,
        transactions_lost=None,
        backup_set=None,
        stages=tuple(Stage(name, StageState.SKIPPED) for name in STAGES),
        checks=(),
        findings=(),
        not_verified=(),
        runbook=(),
    )


@pytest.fixture
def many(verified: Record) -> Callable[[int], list[Record]]:
    """Makes any number of records."""
    return lambda count: [
        replace(verified, rehearsal_id=f"r{n}", started_at=at(n)) for n in range(count)
    ]


@pytest.fixture
def site(s3: S3, s3_far: S3, tmp_path: Path) -> Iterator[Site]:
    prefix = uuid4().hex
    vault = tmp_path / "vault"
    vault.mkdir(mode=0o700)
    (vault / "record-key").write_text(RECORD_KEY)
    (vault / "record-key").chmod(0o600)
    held = {"kind": "host", "host": {"kind": "local"}, "directory": str(vault)}
    east = domain("east", s3, tmp_path, prefix)
    west = domain("west", s3_far, tmp_path, prefix, vault=held)
    plan = Plan.model_validate(document(east, west))
    # At one address, which no plan may give to both domains.
    plan = plan.model_copy(update={"source": east, "recovery": west})
    yield Site(plan, tmp_path)
    for side in (east, west):
        side.close()
