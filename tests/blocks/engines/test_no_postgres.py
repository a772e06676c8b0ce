"""Sites whose server has no database `postgres`, or lets nobody into it."""

from collections.abc import Iterator

import pytest

from blocks.engines.checks import run_check
from blocks.engines.postgres import application, checks, references, standbys, survey
from blocks.engines.postgres.last_look import last_look
from blocks.engines.postgres.position import end_of_log
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, Psql
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION, UNHURRIED
from blocks.errors import PermanentError
from blocks.evidence.record import CheckStatus
from blocks.ownership import Belongings
from tests.blocks.engines.servers import Server, bare, server

NOBODY = "ALTER DATABASE {} ALLOW_CONNECTIONS false"
WITHOUT = {
    "dropped": ("DROP DATABASE postgres",),
    "shut": (NOBODY.format("postgres"),),
    "shop shut too": ("DROP DATABASE postgres",),
}


@pytest.fixture(scope="module", params=WITHOUT)
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Server, str]]:
    with server() as made:
        made.run("CREATE DATABASE shop; CREATE ROLE clerk LOGIN")
        for statement in WITHOUT[request.param]:
            made.run(statement, "shop")
        if "too" in request.param:
            made.run(NOBODY.format("shop"), "template1")
            yield made, "template1"
        else:
            yield made, "shop"


def _psql(made: Server, options: str) -> Psql:
    return made.psql(options=options).entering("shop")


def test_the_source_is_looked_at(site: tuple[Server, str]) -> None:
    made, chosen = site
    source = _psql(made, PATIENT_WITH_PRODUCTION)
    facts = survey.survey(source)
    assert facts.maintenance_database == chosen
    assert chosen in {row.name for row in facts.databases}
    assert last_look(source).has("databases", *bare(chosen)) is True
    assert end_of_log(source, lambda _: False)


def test_the_restored_server_is_verified(site: tuple[Server, str]) -> None:
    made, _ = site
    facts = survey.survey(_psql(made, PATIENT_WITH_PRODUCTION))
    control = _psql(made, UNHURRIED)
    for check in (
        run_check(checks.roles(control, facts, last_look(control))),
        run_check(application.committed_write(control, "r20261127-120000-abcdef")),
        run_check(standbys.serving(control, "primary")),
    ):
        assert check.status is CheckStatus.PASSED, check
    names, _ = references.databases(control)
    assert references.texts(control, names, Belongings(places=("192.0.2.7",))).unread == []


def test_one_that_is_named_is_never_another(site: tuple[Server, str]) -> None:
    with pytest.raises(PermanentError):
        _psql(site[0], UNHURRIED).value("postgres", "SELECT 1")


def test_it_is_chosen_once(site: tuple[Server, str]) -> None:
    made, chosen = site
    control = _psql(made, UNHURRIED)
    assert control.value(CLUSTER, "SELECT current_database()") == chosen
    assert control.chosen == [chosen]


def test_who_may_enter_none_is_refused(site: tuple[Server, str]) -> None:
    stranger = site[0].psql("stranger", UNHURRIED).entering("shop")
    with pytest.raises(LoginRefused):
        stranger.value(CLUSTER, "SELECT 1")
