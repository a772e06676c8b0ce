"""What was used of the source becomes findings that are the same in every rehearsal."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.agent.protocol.results import Mention, OriginFacts
from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Findings, finding
from blocks.evidence.uses import new_ledger
from blocks.fences.fence import Attempt, Observed
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store
from blocks.vaults.host import HostVault
from tasks.inspect import ownership
from tasks.knocks import Knocks
from tasks.reach import Reach
from tasks.reporting.clock import StageClock

ID = "r20260701-120000-1a2b3c"


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
    now = datetime.now(UTC)

    def issued(**_: Any) -> dict[str, Any]:
        return {"target": {"members": [{"cert_file": "/etc/tls/db1.pem", "key_file": "/k"}]}}

    return SimpleNamespace(
        id=ID,
        source=domain("east", 1),
        recovery=domain("west", 2),
        findings=Findings(),
        clock=StageClock(),
        reach=Reach(knocks=Knocks(ID, Counter(), frozenset(), now, now)),
        plan=SimpleNamespace(
            engine=SimpleNamespace(predicted_nodes=[], model_dump=issued), accepted=()
        ),
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
        found = ownership.uses_of_source(rehearsal)
    assert [(item.id, item.subject) for item in found] == [
        ("store-region-hard-coded", "s3://backups"),
        ("key-chain-in-source", "identity"),
        ("tool-fetched-from-source", "db1:/opt/pg/bin/psql"),
        ("name-resolves-to-source", "files.example.org"),
        ("use-unattributed", "10.9.9.9:443"),
    ]
    assert "r20260701-120000-1a2b3c/base.000" in found[0].evidence


def test_a_use_after_the_loss_is_not_accepted_wholesale(rehearsal: Any) -> None:
    """Whoever accepts that keys are in the source has accepted no broken isolation."""
    rehearsal.plan.accepted = [
        SimpleNamespace(finding="key-chain-in-source", subject=None),
        SimpleNamespace(finding="name-resolves-to-source", subject="files.example.org"),
    ]
    with new_ledger() as ledger:
        ledger.enter("restore")
        ledger.note("key", "identity", "east")
        ledger.note("name", "files.example.org", "west", "10.1.7.7")
        found = ownership.uses_of_source(rehearsal)
    assert [(item.id, item.subject) for item in found] == [
        ("source-used", "identity"),
        ("name-resolves-to-source", "files.example.org"),
    ]


def test_a_credential_out_of_a_directory_of_the_source(rehearsal: Any) -> None:
    with new_ledger() as ledger:
        ledger.enter("preflight")
        ledger.note("credential", "ssh key SHA256:two", "west", "/home/op/west")
        ledger.note("credential", "S3 access key W", "west", "/mnt/east/s3.ini, profile default")
        (found,) = ownership.misplaced(rehearsal)
    assert (found.id, found.subject) == ("credential-from-source", "S3 access key W")
    assert found.severity is Severity.HIGH


def test_a_credential_that_opens_both_domains(rehearsal: Any, tmp_path: Path) -> None:
    for domain, key in ((rehearsal.source, "one"), (rehearsal.recovery, "two")):
        file = tmp_path / f"{domain.name}.ini"
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=s\n")
        domain.store.credentials_file = file
    assert list(ownership.shared_credentials(rehearsal)) == []
    rehearsal.recovery.store.credentials_file = rehearsal.source.store.credentials_file
    (found,) = ownership.shared_credentials(rehearsal)
    assert (found.id, found.subject) == ("credential-from-source", "S3 access key one")
    assert found.severity is Severity.MEDIUM


@pytest.mark.parametrize("endpoint", ["https://s3.east.example", "https://0x0a010009"])
def test_a_recovery_store_at_an_address_of_the_source(rehearsal: Any, endpoint: str) -> None:
    assert list(ownership.parts_of_source(rehearsal)) == []
    rehearsal.recovery = domain("west", 2, endpoint=endpoint)
    (found,) = ownership.parts_of_source(rehearsal)
    subject = f"{endpoint.removeprefix('https://')}:443"
    assert (found.id, found.subject, found.stops) == ("store-region-hard-coded", subject, True)


@pytest.mark.parametrize("address", ["10.1.7.7", "db.east.example", "0x0a010005"])
def test_a_recovery_host_whose_name_leads_to_the_source(rehearsal: Any, address: str) -> None:
    rehearsal.recovery.hosts[0].address = address
    (found,) = ownership.parts_of_source(rehearsal)
    assert (found.id, found.subject, found.stops) == ("recovery-is-source", "west/db1", True)
    rehearsal.recovery = domain("west", 2)
    node = SimpleNamespace(host="db1", role="primary", address=address)
    rehearsal.plan.engine.predicted_nodes = [node]
    assert [item.id for item in ownership.parts_of_source(rehearsal)] == ["recovery-is-source"]


@pytest.mark.parametrize("finding_id", ["address-hard-coded", "peer-list-stale"])
def test_a_call_is_one_cause_with_what_names_its_address(rehearsal: Any, finding_id: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)

    def attempt(address: str, process: str) -> Attempt:
        return Attempt(at=at, host="db1", address=address, port=5432, pid=7, process=process)

    attempts = [
        attempt("10.1.0.1", "postgres: shop"),
        attempt("10.1.0.2", "curl https://10.1.0.2"),
        attempt("10.1.0.10", "its address begins as the one that is known does"),
        attempt("10.1.0.3", f"python3 /var/tmp/farside/{rehearsal.id}/agent-1.pyz probe"),
    ]
    rehearsal.plan = SimpleNamespace(
        fence=SimpleNamespace(
            tells=True,
            attempts=lambda gap: Observed(tuple(attempts)) if gap == rehearsal.id else Observed(),
        ),
        gap=lambda rehearsal_id: rehearsal_id,
        accepted=[],
    )
    known = finding(finding_id, "shop: function f()", "line 1 names 10.1.0.1:5432", "verify")
    rehearsal.findings.add(known)
    with rehearsal.clock.stage("key fetch"):
        found, unseen = ownership.calls_to_source(rehearsal)
    assert unseen == ()
    assert [(item.id, item.subject) for item in found] == [
        (finding_id, "shop: function f()"),
        ("key-chain-in-source", "10.1.0.2:5432"),
        ("key-chain-in-source", "10.1.0.10:5432"),
    ]


@pytest.mark.parametrize("finding_id", ["address-hard-coded", "key-chain-in-source"])
def test_what_is_accepted_wholesale_hides_no_call(rehearsal: Any, finding_id: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)
    call = Attempt(at=at, host="db1", address="10.1.0.1", port=5432, pid=7, process="curl")
    rehearsal.plan = SimpleNamespace(
        fence=SimpleNamespace(tells=True, attempts=lambda _: Observed((call,))),
        gap=lambda rehearsal_id: rehearsal_id,
        accepted=[SimpleNamespace(finding=finding_id, subject=None)],
    )
    if finding_id == "address-hard-coded":
        rehearsal.findings.add(
            finding(finding_id, "function f()", "line 1 names 10.1.0.1", "verify")
        )
    with rehearsal.clock.stage("verify" if finding_id == "address-hard-coded" else "key fetch"):
        (found,), _ = ownership.calls_to_source(rehearsal)
    assert (found.id, found.subject) == ("source-used", "10.1.0.1:5432")


def test_lines_of_a_hosts_files(rehearsal: Any) -> None:
    host = rehearsal.recovery.hosts[0]
    lines = [
        Mention(path="/etc/hosts", line=3, text="10.1.0.1"),
        Mention(path="/home/x/.pgpass", line=1, text="db.east.example"),
        Mention(path="/etc/fstab", line=9, text="/mnt/east"),
    ]
    tool = OriginFacts(kind="tool", of="psql", path="/opt/psql", origin="its line 2 names 10.1.0.1")
    lines += [
        Mention(path="/etc/tls/db1.pem", line=1, text="crl.east.example"),
        Mention(path=tool.path, line=2, text="10.1.0.1"),
    ]
    facts: Any = SimpleNamespace(mentions=lines, origins=[tool], directories=())
    found = list(ownership.mentions(rehearsal, host, facts))
    assert [(item.id, item.subject) for item in found] == [
        ("name-resolves-to-source", "west/db1 /etc/hosts"),
        ("address-hard-coded", "west/db1 /home/x/.pgpass"),
        ("path-hard-coded", "west/db1 /etc/fstab"),
        ("ca-in-source", "west/db1 /etc/tls/db1.pem"),
    ]
    (told,) = ownership.origins(rehearsal, host, facts)
    assert (told.id, told.evidence) == ("tool-linked-to-source", f"used by psql: {tool.origin}")


def test_commands_are_looked_into_where_they_run() -> None:
    """A vault's own on its machine, the others where the service is restored."""
    db1, keys, db2 = (
        SSHHost(name=name, address=f"{name}.west.example", user="x", identity_file=Path("/k"))
        for name in ("db1", "keys", "db2")
    )
    vault = HostVault(host=keys, directory="/secrets", read_argv=["/opt/unlock"])
    document = {"engine": {"restore_argv": ["/opt/restore"], "source": {"backup_argv": ["/b"]}}}
    plan: Any = SimpleNamespace(
        recovery=SimpleNamespace(vault=vault), model_dump=lambda **_: {**document}
    )
    assert ownership.commands(plan, db1, target=True) == ("/opt/restore",)
    assert ownership.commands(plan, keys, target=False) == ("/opt/unlock",)
    assert ownership.commands(plan, db2, target=False) == ()


BEHIND = timedelta(minutes=-7)


@dataclass
class Watched:
    """A rehearsal that has knocked at the source's endpoints, and what its fence tells."""

    rehearsal: Any
    told: list[Attempt] = field(default_factory=list)
    doubts: tuple[FarsideError, ...] = ()
    tells: bool = True

    def __post_init__(self) -> None:
        began = self.rehearsal.clock.now()
        places = Counter({("10.1.0.1", 22): 2, ("10.1.0.1", 5432): 1})
        self.rehearsal.reach.knocks = Knocks(
            ID, places, frozenset({("10.1.0.1", 22)}), began, began + timedelta(seconds=3)
        )
        self.rehearsal.plan = SimpleNamespace(
            fence=self, gap=lambda rehearsal_id: rehearsal_id, accepted=[]
        )

    def attempts(self, _: object) -> Observed:
        return Observed(tuple(sorted(self.told, key=lambda item: item.at)))

    def tell(self, port: int, seconds: float, process: str | None = None, **more: Any) -> None:
        """A call so long after the knocks began, as the fence's clock has it: in whole seconds."""
        at = self.rehearsal.reach.knocks.began + timedelta(seconds=seconds)
        told = {"address": "10.1.0.1", "process": process} | more
        at = at.replace(microsecond=0)
        self.told.append(Attempt.model_validate({"at": at, "host": "db1", "port": port} | told))

    def found(self) -> list[str]:
        calls, self.doubts = ownership.calls_to_source(self.rehearsal)
        return sorted(f"{item.id} {item.subject}" for item in calls)


@pytest.fixture
def watched(rehearsal: Any) -> Watched:
    return Watched(rehearsal)


def probe(rehearsal: Any) -> str:
    return f"python3 /var/tmp/farside/{rehearsal.id}/agent-1.pyz probe"


@pytest.mark.parametrize("skew", [0.0, BEHIND.total_seconds(), 3600.0])
def test_an_unnamed_call_is_farsides_own_only_as_often_as_it_knocked(
    watched: Watched, skew: float
) -> None:
    for port, seconds in ((22, 0.1), (22, 0.2), (5432, 0.2), (22, 0.3), (111, 0.3)):
        watched.tell(port, seconds + skew)
    assert watched.found() == ["source-used 10.1.0.1:111", "source-used 10.1.0.1:22"]
    assert watched.doubts == ()


def test_knocks_that_the_fence_did_not_tell_of_hide_no_other_call(watched: Watched) -> None:
    watched.tell(22, 0.5)
    watched.tell(22, 120)
    assert watched.found() == ["source-used 10.1.0.1:22"]


def test_by_a_clock_that_is_off_few_knocks_may_be_the_calls_of_another(watched: Watched) -> None:
    """Of 22 it must have told, too: whether another called is not known, nor that none did."""
    watched.tell(5432, -420)
    assert watched.found() == []
    (problem,) = watched.doubts
    assert "no call of farside's own to 10.1.0.1:22" in problem.message
    watched.tell(22, -420)
    assert (watched.found(), watched.doubts) == ([], ())


def test_where_a_tool_names_some_knocks_only_their_time_is_that_of_the_others(
    watched: Watched,
) -> None:
    watched.tell(22, -420, probe(watched.rehearsal))
    watched.tell(22, -419)
    watched.tell(5432, 1)
    assert watched.found() == ["source-used 10.1.0.1:5432"]


def test_an_address_is_one_however_the_fence_spells_it(watched: Watched) -> None:
    watched.tell(22, 0.5, address="::ffff:10.1.0.1")
    assert (watched.found(), watched.doubts) == ([], ())


def test_a_fence_that_tells_of_no_knock_cannot_tell_who_calls(watched: Watched) -> None:
    assert watched.found() == []
    (problem,) = watched.doubts
    assert "none of farside's own calls" in problem.message
    watched.tell(22, 30, "curl 10.1.0.1")
    assert watched.found() == ["source-used 10.1.0.1:22"]
    assert len(watched.doubts) == 1, "what it tells of is a call all the same"


@pytest.mark.parametrize("why", ["it does not tell", "nothing answered before", "nothing asked"])
def test_where_no_knock_must_be_told_of_none_is_missing(watched: Watched, why: str) -> None:
    watched.tells = why != "it does not tell"
    if why == "nothing answered before":
        known = watched.rehearsal.reach
        known.knocks = replace(known.knocks, denied=frozenset())
    elif why == "nothing asked":
        watched.rehearsal.reach.knocks = None
    assert (watched.found(), watched.doubts) == ([], ())


@pytest.mark.parametrize("skew", [0.0, BEHIND.total_seconds()])
def test_the_stage_of_a_call_is_told_by_the_rehearsals_clock(watched: Watched, skew: float) -> None:
    watched.tell(22, skew - 40)
    watched.tell(111, skew + 5)
    early, known = timedelta(seconds=40), watched.rehearsal.reach
    known.knocks = replace(
        known.knocks, began=known.knocks.began - early, ended=known.knocks.ended - early
    )
    with watched.rehearsal.clock.stage("key fetch"):
        assert watched.found() == ["key-chain-in-source 10.1.0.1:111"]


def test_a_fence_whose_clock_says_nothing_is_no_error(watched: Watched) -> None:
    watched.told.append(
        Attempt.model_validate(
            {"at": "0001-01-01T00:00:00Z", "host": "a", "address": "10.1.0.1", "port": 22}
        )
    )
    watched.told.append(watched.told[0].model_copy(update={"port": 111}))
    assert watched.found() == ["source-used 10.1.0.1:111"]
    last = {"at": datetime.max.replace(tzinfo=UTC), "port": 112}
    watched.told.append(watched.told[0].model_copy(update=last))
    assert watched.found() == ["source-used 10.1.0.1:111", "source-used 10.1.0.1:112"]


def test_words_of_the_commands_of_a_plan() -> None:
    part = {
        "verify": [{"name": "n", "argv": ["ask", "/w/q.py"]}],
        "vault": {"read_argv": ["unlock", "-c", "/w/agent.conf"], "directory": "/w/vault"},
        "destroy_argv": [],
        "programs": ["tar"],
    }
    assert list(ownership.words_of(part)) == [
        *(("verify[0].argv", word) for word in ("ask", "/w/q.py")),
        *(("vault.read_argv", word) for word in ("unlock", "-c", "/w/agent.conf")),
    ]


def test_a_command_of_the_plan_that_names_the_source(rehearsal: Any) -> None:
    document = {
        "recovery": {"vault": {"read_argv": ["env", "KMS=https://kms.east.example/", "unlock"]}},
        "secrets": [{"open_argv": ["sh", "-c", "PGHOST=10.1.0.4; exec open /mnt/east/key"]}],
    }
    rehearsal.plan.model_dump = lambda **_: document
    assert [
        (item.id, item.subject, item.evidence) for item in ownership.in_commands(rehearsal)
    ] == [
        (
            "address-hard-coded",
            "plan recovery.vault.read_argv",
            "the command names kms.east.example",
        ),
        ("address-hard-coded", "plan secrets[0].open_argv", "the command names 10.1.0.4"),
        ("path-hard-coded", "plan secrets[0].open_argv", "the command names /mnt/east"),
    ]
