"""Access rules of a source, tried on clients of the recovery domain."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from blocks.engines.postgres import access, privileges
from blocks.engines.postgres.access import from_source_only, untold
from blocks.engines.postgres.psql import CLUSTER
from blocks.engines.postgres.rows import Login, Rule, rows_of
from blocks.ownership import Belongings
from tests.blocks.engines.servers import server

EAST = Belongings(networks=("10.1.0.0/16",), suffixes=("east.example",))


def rule(address: str, mask: str = "", method: str = "scram-sha-256", **more: Any) -> Rule:
    said = {"database": ("all",), "users": ("all",)} | more
    return Rule(line=7, type="host", address=address, netmask=mask, method=method, **said)


B16, B24, B0 = "255.255.0.0", "255.255.255.0", "0.0.0.0"


@pytest.mark.parametrize(
    ("rules", "lacking"),
    [
        ([rule("10.1.3.0", B24)], True),
        ([rule("10.1.3.0", B24), rule("10.2.3.0", B24)], False),
        ([rule("10.1.3.0", B24), rule("10.2.0.0", B16, "reject"), rule("10.0.0.0", B0)], True),
        ([rule("10.1.3.0", B24), rule("10.2.9.0", B24, "reject"), rule("0.0.0.0", B0)], False),
        ([rule("samenet")], False),
        ([rule("all")], False),
        ([rule(".east.example")], True),
        ([rule("app.elsewhere.example")], False),
        ([rule("10.1.3.0", B24), rule("10.2.0.0", B16, users=["other"])], True),
        ([rule("10.1.3.0", B24), rule("10.2.0.0", B16, database=["other"])], True),
        ([rule("10.1.3.0", B24), rule("10.2.0.0", B16, users=["+staff"])], False),
        ([rule("10.1.3.0", B24), rule("10.2.0.0", B16, database=["/^sh"])], False),
        # The source lets nobody in from its own networks either.
        ([rule("192.0.2.0", B24)], False),
        ([], False),
    ],
)
def test_who_is_let_in(rules: list[Rule], lacking: bool) -> None:
    found = list(
        from_source_only(rules, "app", "shop", [IPv4Network("10.2.0.0/16")], ["10.2.0.5"], EAST)
    )
    assert [item.id for item in found] == ["access-from-source-only"] * lacking


def test_a_recovery_domain_without_networks_is_known_by_its_hosts() -> None:
    rules = [rule("10.1.3.0", B24)]
    assert list(from_source_only(rules, "app", "shop", [], [], EAST)) == []
    (found,) = from_source_only(rules, "app", "shop", [], ["10.2.0.5"], EAST)
    assert "pg_hba.conf:7 10.1.3.0" in found.evidence


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([rule("10.2.0.0", B16, "cert")], "pg_hba.conf:7 10.2.0.0"),
        ([rule("10.1.3.0", B24), rule("all", "", "cert")], "by one only (pg_hba.conf:7 all)"),
        ([rule("10.2.3.0", B24, "cert"), rule("10.2.0.0", B16)], ""),
        ([rule("192.0.2.0", B24)], "neither domain's"),
        ([rule("192.0.2.0", B24), rule("10.2.0.0", B16)], ""),
        ([rule("192.0.2.0", B24), rule("10.1.3.0", B24)], ""),  # that is a finding
        ([rule("10.1.3.0", B24)], ""),
        ([], ""),
    ],
)
def test_what_the_rules_leave_open(rules: list[Rule], said: str) -> None:
    found = list(untold(rules, "app", "shop", [IPv4Network("10.2.0.0/16")], ["10.2.0.5"], EAST))
    assert len(found) == bool(said)
    assert said in "".join(found)


@pytest.mark.slow
def test_files_that_are_included_keep_their_place_in_the_order() -> None:
    with server(18) as made:
        rules = made.data / "pg_hba.conf"
        rules.write_text("include first.conf\n" + rules.read_text())
        (made.data / "first.conf").write_text(
            "\n" * 200 + "host all app 10.1.0.0/16 radius radiusservers=10.1.1.4 radiussecrets=x\n"
        )
        made.run("SELECT pg_reload_conf()")
        seen = rows_of(Rule, made.psql().rows(CLUSTER, access.RULES))
        (row,) = made.psql().rows(CLUSTER, privileges._LOGINS)
    login = rows_of(Login, [row | {"options": "as text"}])[0]
    first, second = [access.place(rule) for rule in seen][:2]
    assert (first, second.partition(":")[0]) == ("first.conf:201", "pg_hba.conf")
    assert access.place(login) == "first.conf:201"
