"""A secret is proven on a value, or not at all."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.engines.checks import run_check
from blocks.engines.postgres.psql import LoginRefused
from blocks.evidence.findings import Findings
from blocks.evidence.record import CheckStatus
from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from tasks.inspect.app_secrets import opens


def opened(value: Any, *argv: str, secret: str = "key", findings: Findings | None = None) -> Any:
    """The check of a secret whose query yields `value`."""
    recovery = SimpleNamespace(secret=lambda _: SecretStr(secret), host=lambda _: LocalHost())
    query = value if callable(value) else lambda *_: value
    rehearsal: Any = SimpleNamespace(
        plan=SimpleNamespace(recovery=recovery),
        source=SimpleNamespace(belongings=Belongings(suffixes=("east.example",))),
        findings=Findings() if findings is None else findings,
    )
    item: Any = SimpleNamespace(
        name="card", secret="card-key", database="shop", sql="SELECT 1", open_argv=argv
    )
    service: Any = SimpleNamespace(host="db1", query=query)
    return run_check(opens(rehearsal, service, item))


@pytest.mark.parametrize("argv", [("true",), ("false",)])
def test_a_query_without_a_value_proves_nothing(argv: tuple[str, ...]) -> None:
    """No row and NULL: a program that opens nothing may well say that all is in order."""
    check = opened("", *argv)
    assert check.status is CheckStatus.FAILED
    assert check.finding == "app-secret-missing"
    assert "no value" in check.actual


def test_a_value_is_opened_or_not() -> None:
    assert opened("sealed", "grep", "-q", "sealed").status is CheckStatus.PASSED
    assert opened("sealed", "grep", "-q", "other").status is CheckStatus.FAILED
    assert opened("sealed", "/no/such/program").status is CheckStatus.UNKNOWN


def test_what_keeps_the_query_from_an_answer_says_nothing_of_the_secret() -> None:
    """A role that is refused is one finding, of `login`."""

    def refused(*_: object) -> str:
        raise LoginRefused("no")

    assert LoginRefused.finding is not None
    check = opened(refused, "true")
    assert (check.status, check.actual) == (CheckStatus.UNKNOWN, "could not run: no")


def test_a_secret_that_leads_to_the_source_is_named_without_its_value() -> None:
    found = Findings()
    opened("x", "true", secret="https://user:hunter2@kms.east.example/key", findings=found)
    (item,) = found.all()
    assert (item.id, item.subject) == ("address-hard-coded", "secret card-key")
    assert item.evidence == "its value names kms.east.example"
