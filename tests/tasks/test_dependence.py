"""What was used of the source becomes findings that are the same in every rehearsal."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.artifact.job import Mention
from blocks.domain import FailureDomain
from blocks.evidence.findings import Findings, Severity, finding
from blocks.evidence.uses import new_ledger
from blocks.fences import Attempt, Observed
from blocks.hosts import SSHHost
from blocks.stores import S3Store
from tasks import dependence
from tasks.clock import StageClock


def domain(name: str, net: int, **more: Any) -> FailureDomain:
    return FailureDomain(
        name=name,
        networks=[IPv4Network(f"10.{net}.0.0/16")],
        names=[f"{name}.example"],
        paths=[f"/mnt/{name}"],
        hosts=[SSHHost(name="db1", address=f"10.{net}.0.1", user="x", identity_file=Path("/k"))],
        store=S3Store(endpoint=more.pop("endpoint", f"https://10.{net}.0.9:9000"), bucket="b"),
    )


@pytest.fixture
def rehearsal() -> Any:
    return SimpleNamespace(
        id="r20260701-120000-1a2b3c",
        source=domain("east", 1),
        recovery=domain("west", 2),
        findings=Findings(),
        clock=StageClock(),
        plan=SimpleNamespace(),
    )


def test_what_farside_used_of_the_source_after_its_loss(rehearsal: Any) -> None:
    with new_ledger() as ledger:
        ledger.enter("preflight")
        ledger.note("host", "db1", "east")
        ledger.enter("restore")
        ledger.note("object", "s3://backups/sets/shop/r20260701-120000-1a2b3c/base.000", "east")
        ledger.note("key", "identity", "east")
        ledger.note("key", "identity", "west")
        ledger.note("tool", "db1:/opt/pg/bin/psql", "west", "/mnt/east/pg/bin/psql, 18.0")
        ledger.note("name", "files.example.org", "west", "10.1.7.7")
        ledger.note("address", "10.9.9.9:443", "")
        found = dependence.uses_of_source(rehearsal)
    assert [(item.id, item.subject) for item in found] == [
        ("store-region-hard-coded", "s3://backups"),
        ("key-chain-in-source", "identity"),
        ("tool-fetched-from-source", "db1:/opt/pg/bin/psql"),
        ("name-resolves-to-source", "files.example.org"),
        ("use-unattributed", "10.9.9.9:443"),
    ]
    assert "r20260701-120000-1a2b3c/base.000" in found[0].evidence


def test_a_credential_out_of_a_directory_of_the_source(rehearsal: Any) -> None:
    with new_ledger() as ledger:
        ledger.enter("preflight")
        ledger.note("credential", "ssh key SHA256:two", "west", "/home/op/west")
        ledger.note("credential", "S3 access key W", "west", "/mnt/east/s3.ini, profile default")
        (found,) = dependence.misplaced(rehearsal)
    assert (found.id, found.subject) == ("credential-from-source", "S3 access key W")
    assert found.severity is Severity.HIGH


def test_a_credential_that_opens_both_domains(rehearsal: Any, tmp_path: Path) -> None:
    for domain, key in ((rehearsal.source, "one"), (rehearsal.recovery, "two")):
        file = tmp_path / f"{domain.name}.ini"
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=s\n")
        domain.store.credentials_file = file
    assert list(dependence.shared_credentials(rehearsal)) == []
    rehearsal.recovery.store.credentials_file = rehearsal.source.store.credentials_file
    (found,) = dependence.shared_credentials(rehearsal)
    assert (found.id, found.subject) == ("credential-from-source", "S3 access key one")
    assert found.severity is Severity.MEDIUM


def test_a_recovery_store_at_an_address_of_the_source(rehearsal: Any) -> None:
    assert list(dependence.store_of_source(rehearsal)) == []
    rehearsal.recovery = domain("west", 2, endpoint="https://s3.east.example")
    (found,) = dependence.store_of_source(rehearsal)
    assert (found.id, found.subject) == ("store-region-hard-coded", "s3.east.example:443")


@pytest.mark.parametrize("id", ["address-hard-coded", "peer-list-stale"])
def test_a_call_is_one_cause_with_what_names_its_address(rehearsal: Any, id: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)

    def attempt(address: str, process: str) -> Attempt:
        return Attempt(at=at, host="db1", address=address, port=5432, pid=7, process=process)

    attempts = [
        attempt("10.1.0.1", "postgres: shop"),
        attempt("10.1.0.2", "curl https://10.1.0.2"),
        attempt("10.1.0.10", "its address begins as the one that is known does"),
        attempt("10.1.0.3", f"python3 /var/tmp/farside/{rehearsal.id}/helper-1.pyz probe"),
    ]
    rehearsal.plan = SimpleNamespace(
        fence=SimpleNamespace(
            attempts=lambda gap: Observed(tuple(attempts)) if gap == rehearsal.id else Observed()
        ),
        gap=lambda id: id,
    )
    known = finding(id, "shop: function f()", "line 1 names 10.1.0.1:5432", "verify")
    rehearsal.findings.add(known)
    with rehearsal.clock.stage("key fetch"):
        found, unseen = dependence.calls_to_source(rehearsal)
    assert unseen == ()
    assert [(item.id, item.subject) for item in found] == [
        (id, "shop: function f()"),
        ("key-chain-in-source", "10.1.0.2:5432"),
        ("key-chain-in-source", "10.1.0.10:5432"),
    ]


def test_lines_of_a_hosts_files(rehearsal: Any) -> None:
    host = rehearsal.recovery.hosts[0]
    lines = [
        Mention(path="/etc/hosts", line=3, text="10.1.0.1"),
        Mention(path="/home/x/.pgpass", line=1, text="db.east.example"),
        Mention(path="/etc/fstab", line=9, text="/mnt/east"),
    ]
    found = list(dependence.mentions(rehearsal, host, lines))
    assert [(item.id, item.subject) for item in found] == [
        ("name-resolves-to-source", "west/db1 /etc/hosts"),
        ("address-hard-coded", "west/db1 /home/x/.pgpass"),
        ("path-hard-coded", "west/db1 /etc/fstab"),
    ]
