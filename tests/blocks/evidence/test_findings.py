"""Findings: stable ids, one cause one finding."""

from dataclasses import replace

import pytest

from blocks.engines.etcd.findings import EtcdFinding
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.registry import catalogue
from blocks.errors import FarsideError
from blocks.evidence.catalogue import Category, FindingId, Severity, id_of_code, register
from blocks.evidence.findings import Findings, finding

PROMISED = [
    "key-only-in-source",
    "sealed-to-source-only",
    "key-stale",
    "key-rotated-away",
    "key-chain-in-source",
    "app-secret-missing",
    "login-missing",
    "ca-unknown",
    "ssh-trust-missing",
    "credential-from-source",
    "tool-missing",
    "engine-version",
    "extension-missing",
    "library-preloaded",
    "locale-changed",
    "setting-too-low",
    "tool-fetched-from-source",
    "control-plane-in-source",
    "disk-too-small",
    "clock-skew",
    "address-hard-coded",
    "path-hard-coded",
    "name-resolves-to-source",
    "node-count-differs",
    "node-identity-reused",
    "peer-list-stale",
    "placement-dropped",
    "port-taken",
    "target-occupied",
    "store-region-hard-coded",
    "rto-missed",
    "rpo-missed",
    "bandwidth-insufficient",
    "copy-behind",
    "log-gap",
    "copy-is-cold",
    "usable-not-restored",
    "many-at-once",
    "object-corrupt",
    "object-missing",
    "manifest-forged",
    "set-of-another-plan",
    "incomplete-restore",
    "index-corrupt",
    "archive-into-production",
    "restored-jobs-fire",
    "fence-leaks",
    "leftovers",
]


def test_the_ids_that_records_and_drills_rely_on_are_in_the_catalogue() -> None:
    assert set(PROMISED) <= set(catalogue())


@pytest.mark.parametrize("finding_id", sorted(catalogue()))
def test_every_row_says_what_broke_and_what_to_do(finding_id: str) -> None:
    row = catalogue()[finding_id]
    assert row.id == finding_id
    assert row.title
    assert not row.title.endswith(".")
    assert row.remedy.endswith(".")
    found = finding(finding_id, "subject", "evidence", "verify")
    assert (found.category, found.severity) == (row.category, row.severity)
    assert (found.remedy, found.title) == (row.remedy, row.title)


def test_one_cause_is_one_finding_with_all_its_evidence_and_its_worst_severity() -> None:
    found = Findings()
    for port in range(7):
        evidence = f"port {port}"
        found.add(finding("fence-leaks", "10.0.0.5", evidence, "declare", severity=Severity.MEDIUM))
    found.add(finding("fence-leaks", "10.0.0.5", "port 6", "verify"))
    found.add(finding("clock-skew", "db1", "9 s", "preflight"))
    found.add(finding("fence-leaks", "10.0.0.6", "port 22", "declare"))
    first, second, third = found.all()
    assert (first.subject, first.severity, first.stage) == ("10.0.0.5", "critical", "declare")
    assert first.evidence == "port 0; port 1; port 2; port 3; port 4; and 2 more"
    assert second.subject == "10.0.0.6"
    assert third.id == "clock-skew"
    assert first == finding("fence-leaks", "10.0.0.5", "anything", "anywhere")


def test_the_tiers_are_recovery_impossible_or_wrong_worse_on_the_day_and_the_rest() -> None:
    tiers = {
        severity: {
            finding_id for finding_id, row in catalogue().items() if row.severity is severity
        }
        for severity in Severity
    }
    assert {"tool-missing", "object-corrupt", "fence-leaks"} <= tiers[Severity.CRITICAL]
    assert {"source-used", "address-hard-coded", "rto-missed"} <= tiers[Severity.HIGH]
    assert tiers[Severity.MEDIUM] == {"leftovers", "revision-reused"}


def test_an_engine_brings_findings_of_its_own() -> None:
    assert catalogue()["setting-too-low"].category is Category.TOOLING
    assert not {*PostgresFinding, *EtcdFinding} & {*FindingId}
    assert {*PostgresFinding, *EtcdFinding, *FindingId} == set(catalogue())


def test_two_assumptions_cannot_share_an_id() -> None:
    row = catalogue()["clock-skew"]
    register(row)
    with pytest.raises(ValueError, match="clock-skew"):
        register(replace(row, title="another one"))
    assert catalogue()["clock-skew"] == row


def test_errors_name_findings_of_the_catalogue() -> None:
    """Those of the backup format and the agent by strings: they import no catalogue."""
    known, errors = catalogue(), [FarsideError]
    for error in errors:
        errors += error.__subclasses__()
    named = {error.finding for error in errors if isinstance(error.finding, str)}
    assert {"manifest-forged", "log-gap", "host-unreachable"} <= named
    assert named <= set(known)


def test_an_id_that_does_not_exist_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        finding("no-such-thing", "x", "y", "verify")


def test_error_codes_of_hosts_lead_to_findings() -> None:
    assert id_of_code("object-corrupt") == "object-corrupt"
    assert id_of_code("age-no-identity") == "key-stale"
    assert id_of_code("no-space") == "disk-too-small"
    assert id_of_code("network") is None
    for code in ("object-missing", "age-malformed", "tool-missing"):
        assert id_of_code(code) in catalogue()


def test_what_endangers_production_stops_a_rehearsal_and_nothing_else_does() -> None:
    stops = {finding_id for finding_id, row in catalogue().items() if row.stops}
    assert stops >= {"recovery-is-source", "source-used", "fence-leaks", "work-dir-untrusted"}
    assert not stops & {"leftovers", "clock-skew", "target-occupied", "key-stale"}
    assert finding("recovery-is-source", "west/db1", "it is 10.1.0.5", "preflight").stops
    assert not finding("clock-skew", "west/db1", "9 s", "preflight").stops
