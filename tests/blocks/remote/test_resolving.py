"""Names that lead to the source, and what is said of those that nobody has resolved."""

import sys

import pytest

from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from blocks.remote import resolving

HERE = Belongings(networks=("127.0.0.0/8",))


def test_all_are_resolved_however_many_and_what_is_beyond_a_limit_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, unseen = LocalHost(name="here", python=sys.executable), list[str]()
    used = {f"no{number}.invalid": "x" for number in range(7)} | {"localhost": "function f()"}
    monkeypatch.setattr(resolving, "NAMES", 3)
    (found,) = resolving.leading_to(host, "r0", used, HERE, unseen)
    assert (found.id, found.subject) == ("name-resolves-to-source", "localhost")
    assert unseen == ["where 7 names lead that /here does not resolve, in x"]
    unseen.clear()
    monkeypatch.setattr(resolving, "MOST", 5)
    assert list(resolving.leading_to(host, "r0", used, HERE, unseen)) == []
    assert unseen == [
        "where 3 of 8 names lead that it uses as hosts",
        "where 5 names lead that /here does not resolve, in x",
    ]


def test_a_short_name_that_only_the_source_has_and_nothing_answers_to() -> None:
    host = LocalHost(name="here", python=sys.executable)
    used = {"No-Such-App": "function f()", "other.invalid": "x", "localhost": "y"}
    east = Belongings(aliases=("localhost", "no-such-app"))
    unseen = list[str]()
    (found,) = resolving.leading_to(host, "r0", used, east, unseen)
    assert (found.id, found.subject) == ("address-hard-coded", "No-Such-App")
    assert unseen == ["where 1 names lead that /here does not resolve, in x"]


def test_a_part_of_a_password_that_looks_like_a_host_is_not_told() -> None:
    host, unseen = LocalHost(name="here", python=sys.executable), list[str]()
    text = "dblink('amqp://app:pa@hunter2@mq.invalid/ password=hunter3:1234')"
    used = resolving.used_by([("function f()", text)], HERE)
    assert list(resolving.leading_to(host, "r0", used, HERE, unseen)) == []
    assert "function f()" in unseen[0]
    assert "hunter" not in unseen[0]
