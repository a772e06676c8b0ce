"""An administrator's sessions of a restored server run nothing that the site's users defined."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.engines.checks import run_check
from blocks.engines.postgres import checks, position, standbys, survey
from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import NO_LOOK
from blocks.engines.postgres.plan import Application, TargetServer
from blocks.engines.postgres.psql import Psql, RefusedByCode
from blocks.engines.postgres.servers import Servers
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.engines.postgres.standbys import Replica
from blocks.evidence.record import Check, CheckStatus
from tests import mechanisms
from tests.blocks.engines.servers import Server, server

pytestmark = mechanisms.SERVERS

TRAP = """
CREATE ROLE mallory;
CREATE TABLE public.sprung (name text);
CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.sprung VALUES (current_user); RETURN false; END';
CREATE FUNCTION public.pg_reload_conf() RETURNS boolean LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.sprung VALUES (current_user); RETURN true; END';
CREATE FUNCTION public.host(inet) RETURNS text LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.sprung VALUES (current_user); RETURN 1; END';
CREATE VIEW public.pg_stat_replication AS
  SELECT 'db2' AS application_name, inet '10.0.0.1' AS client_addr, 'streaming' AS state,
         'quorum' AS sync_state, pg_lsn '0/1' AS replay_lsn;
"""


@pytest.fixture(params=[15, pytest.param(18, marks=pytest.mark.slow)])
def site(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose sessions find what users defined before its own."""
    with server(request.param, "search_path = 'public, pg_catalog'") as made:
        made.run(TRAP)
        yield made


def sprung(site: Server) -> bool:
    return site.run("SELECT count(*) > 0 FROM public.sprung") == "t"


def restored(site: Server, major: int) -> tuple[Psql, TargetServer]:
    """It as a restored server, asked as the engine itself asks one."""
    near = {"host": "here", "address": "127.0.0.1", "port": site.port, "bin_dir": site.bin_dir}
    target = TargetServer(**near, data_dir=str(site.data))
    application = Application(role="shop", database="postgres", password="p")
    domain: Any = SimpleNamespace(host=lambda _: site.psql().host)
    sockets = {target.host: "127.0.0.1"}
    servers = Servers(domain, target, application, sockets, "postgres", major)
    return servers.control(), target


def test_what_a_restore_asks_is_answered_by_the_server_itself(site: Server) -> None:
    control, place = restored(site, int(site.run("SHOW server_version_num")) // 10000)
    node = standbys.observed(control)
    assert node is not None
    assert node.role == "primary"
    assert standbys.following(control) == {}
    assert standbys._replayed(control) == "promoted"
    Replica.new("r20260101_000000_abcdef").create(control)
    standbys.be_synchronous(control, [place])
    assert position.end_of_replay(control) is None
    assert not sprung(site)


def test_the_trap_works_where_a_session_is_not_guarded(site: Server) -> None:
    """Else the test above would show nothing."""
    standbys.observed(site.psql(options=""))
    assert sprung(site)


def test_nobody_forgets_what_guards_a_session(site: Server) -> None:
    host = site.psql().host
    with pytest.raises(TypeError, match="options"):
        Psql(host, site.bin_dir, "127.0.0.1", site.port, "postgres")  # type: ignore[call-arg]


# It writes as well: a table that was counted at the source would have other rows.
_AT_LOGIN = """
CREATE FUNCTION public.at_login() RETURNS event_trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF session_user <> 'clerk' THEN RAISE 'only by the network'; END IF;
    INSERT INTO public.sprung VALUES (session_user);
  END $$;
CREATE ROLE clerk LOGIN SUPERUSER;
CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION public.at_login();
ALTER EVENT TRIGGER at_login ENABLE ALWAYS;
"""


@pytest.fixture
def watched() -> Iterator[Server]:
    """A server that runs code of the site's at each login, which lets only one role in."""
    with server(18) as made:
        made.run(f"{TRAP}{_AT_LOGIN}")
        yield made


def _entered(control: Psql, facts: PostgresFacts, site: Server) -> Check:
    installed = Installation(control.host, site.bin_dir)
    return run_check(checks.Databases(control, facts, NO_LOOK, installed).check())


@pytest.mark.slow
def test_no_code_of_the_site_runs_at_an_administrators_login(watched: Server) -> None:
    control, _ = restored(watched, 18)
    facts = survey.survey(control)
    assert _entered(control, facts, watched).status is CheckStatus.PASSED
    assert control.seeing_defaults().value("postgres", "SELECT 1") == "1"
    with pytest.raises(RefusedByCode, match="only by the network"):
        watched.psql().value("postgres", "SELECT 1")
    assert watched.run("SELECT count(*) FROM public.sprung", role="clerk") == "1"


@pytest.mark.slow
def test_a_source_that_runs_code_at_each_login_is_looked_at(watched: Server) -> None:
    watched.run("CREATE ROLE looker LOGIN IN ROLE pg_monitor REPLICATION", role="clerk")
    site = replace(watched.psql(options=PATIENT_WITH_PRODUCTION), of_site=True)
    assert survey.survey(site).databases[0].unread == {}
    with pytest.raises(RefusedByCode, match="only by the network"):
        survey.survey(replace(site, role="looker"))


@pytest.mark.slow
def test_an_administrator_that_code_of_the_site_refuses_tells_nothing(watched: Server) -> None:
    watched.run("CREATE DATABASE shop", role="clerk")
    facts = survey.survey(restored(watched, 18)[0])
    check = _entered(replace(watched.psql(), chosen=["shop"]), facts, watched)
    assert check.status is CheckStatus.UNKNOWN, check
    assert "only by the network" in str(check.actual)
