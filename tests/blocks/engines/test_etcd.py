"""etcd in the lab: three members, restored into as many others, into one, and into five."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import yaml
from conformance import EngineConformance
from pydantic import SecretStr

from blocks.engines.etcd import Etcd
from blocks.engines.kv import checks
from blocks.engines.kv.client import Etcdctl
from blocks.evidence.record import Check, CheckStatus, Record
from blocks.plan import Plan, load_plan
from deployments import lab
from deployments.lab import processes
from deployments.lab.domains import ETCD
from deployments.lab.etcd import SETTINGS
from deployments.lab.places import Places


class Conformance(EngineConformance):
    known_findings: ClassVar = frozenset({("revision-reused", "west")})
    runbook_variables: ClassVar = {"DATA": "{place}/data"}
    runbook_secrets: ClassVar = {"PASSWORD": "etcd-shop-password"}
    runbook_proof: ClassVar = (
        '"$BIN/etcdctl" --endpoints "$CLIENT" --cacert "$CA" --user shop get --prefix'
        ' /shop/settings/ --limit=1 --keys-only --write-out=fields < "$PASSWORD"',
    )
    runbook_end = 'kill -9 "${ETCD:-}"'
    proven = r'"Count" : 500\n'
    members: ClassVar[int]

    @pytest.fixture(scope="class")
    def plan_path(self, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
        lab.up(places.root, parts=[ETCD])
        document = yaml.safe_load(lab.plan_path(places.root, "etcd").read_text())
        path = tmp_path_factory.mktemp("plans") / "plan.yaml"
        path.write_text(yaml.safe_dump(with_members(document, self.members)))
        return path

    def test_has_the_shape_of_the_plan(self, rehearsed: Record) -> None:
        assert rehearsed.topology.observed is not None
        assert len(rehearsed.topology.observed) == self.members
        actual = {check.name: check.actual for check in rehearsed.checks}
        assert actual["key-space"] == f"the same on {self.members} members"
        assert ("failover" in actual) is (self.members > 2)

    def test_what_was_lost_is_known(self, rehearsed: Record) -> None:
        assert rehearsed.transactions_lost is not None
        assert rehearsed.recovered_until is not None


class TestThree(Conformance):
    plan_name = "etcd"
    members = 3


class TestOne(Conformance):
    plan_name = "etcd"
    members = 1


class TestFive(Conformance):
    plan_name = "etcd"
    members = 5


@pytest.fixture
def plan(places: Places) -> Iterator[Plan]:
    """The lab's plan, with everything of it up."""
    lab.up(places.root, parts=[ETCD])
    loaded = load_plan(lab.plan_path(places.root, "etcd"))
    yield loaded
    loaded.source.close()
    loaded.recovery.close()


def engine_of(plan: Plan) -> Etcd:
    assert isinstance(plan.engine, Etcd)
    return plan.engine


def living(plan: Plan, password: str = "") -> Etcdctl:
    """The live source, asked as the engine asks it."""
    source = engine_of(plan).source
    secret = SecretStr(password) if password else plan.source.secret(source.password)
    host = plan.source.host(source.host)
    return Etcdctl(host, source.bin_dir, source.endpoints, source.ca_file, source.user, secret)


def failed(check: Check, *words: str) -> None:
    assert check.status is CheckStatus.FAILED, check
    for word in words:
        assert word in str(check.actual), check


def test_every_check_can_fail(plan: Plan) -> None:
    """The living source is not what should have come of it."""
    root, engine = living(plan), engine_of(plan)
    facts = dict(engine.survey(plan.source))
    failed(checks.identity(root, facts), "the cluster has the source's id", "member kv1 has an id")
    failed(checks.membership(root, engine.target), "kv1 is at https://")
    other = engine.target.model_copy(update={"members": engine.target.members[:2]})
    failed(checks.membership(root, other), "kv3 is a member")
    failed(
        checks.logins(root, {**facts, "users": ["gone"], "roles": ["lost"]}), "user gone", "lost"
    )
    now = round(time.time())
    lease = {**facts, "leases": {"4711": 3600}, "snapshot": {"at": now}}
    failed(checks.leases(root, lease), "lease 1267 is missing")
    ended = {**lease, "leases": {"4711": 1}, "snapshot": {"at": now - 60}}
    assert checks.leases(root, ended).status is CheckStatus.PASSED
    wrong = living(plan, "not the password")
    failed(checks.login(wrong, engine.application), "authentication failed")
    # Nobody serves where the restored cluster is going to be.
    failed(checks.leader(root, engine.target), "0 leaders")
    facts["snapshot"] = {"revision": facts["revision"], "hash": "1", "at": now}
    there = engine.target.model_copy(
        update={
            "members": tuple(
                member.model_copy(update={"address": urlsplit(url).hostname})
                for member, url in zip(engine.target.members, engine.source.endpoints, strict=True)
            )
        }
    )
    failed(checks.key_space(root, there, facts), "2379 has ")
    failed(checks.quorum_write(wrong, engine.application, there, "r0"), "authentication")
    assert checks.leader(root, there).status is CheckStatus.PASSED


def test_all_keys_are_found_page_by_page(plan: Plan) -> None:
    root = living(plan)
    keys = [item.key for item in root.all("/shop/settings/")]
    assert len(set(keys)) == len(keys) == SETTINGS
    every = [item.key for item in root.all("")]
    assert len(set(every)) == len(every) > 1000
    assert set(keys) < set(every)


def test_a_dead_member_keeps_nobody_from_a_backup(plan: Plan, places: Places) -> None:
    processes.kill_service(places, "east-etcd-kv1")
    try:
        facts = engine_of(plan).survey(plan.source)
        assert len(facts["members"]) == 3
    finally:
        lab.up(places.root)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("etcd Version: 3.5.1\nGit SHA: e8732fb5f", (3, 5)),
        ("etcd Version: 3.4.23\n", (3, 4)),
        ("sh: etcd: not found", (0, 0)),
    ],
)
def test_version(said: str, version: tuple[int, int]) -> None:
    assert checks.version_of(said) == version


def with_members(document: Any, count: int) -> Any:
    """The lab's plan with another number of members."""
    changed = copy.deepcopy(document)
    members = changed["engine"]["target"]["members"]
    first = members[0]
    hosts = changed["recovery"]["hosts"][:count]
    changed["engine"]["target"]["members"] = [
        {
            key: value.replace("/kv1/", f"/{host['name']}/") if isinstance(value, str) else value
            for key, value in first.items()
        }
        | {"host": host["name"], "address": host["address"]}
        for host in hosts
    ]
    return changed
