"""etcd in the lab: three members, restored into as many others, into one, and into five."""

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from conformance import EngineConformance

from blocks.evidence.record import Record
from deployments import lab
from deployments.lab.domains import ETCD
from deployments.lab.places import Places


class Conformance(EngineConformance):
    known_findings: ClassVar = frozenset({("revision-reused", "west")})
    runbook_variables: ClassVar = {"DATA": "{place}/data"}
    runbook_secrets: ClassVar = {"PASSWORD": "etcd-shop-password"}
    runbook_proof: ClassVar = (
        '"$BIN/etcdctl" --endpoints "$CLIENT" --cacert "$CA" --user shop get --prefix'
        ' /shop/settings/ --count-only --write-out=fields < "$PASSWORD"',
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
