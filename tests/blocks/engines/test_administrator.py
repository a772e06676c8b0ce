"""An administrator's sessions of a restored server run nothing that the site's users defined."""

from collections.abc import Iterator

import pytest

from blocks.engines.pg import position, replication
from blocks.engines.pg.psql import Psql
from blocks.engines.pg.replication import Replica
from blocks.engines.pg.servers import Application, BackupTool, SourceServer, TargetServer
from blocks.engines.postgres import Postgres
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


def restored(site: Server) -> tuple[Psql, TargetServer]:
    """It as a restored server, asked as the engine itself asks one."""
    near = {"host": "here", "address": "127.0.0.1", "port": site.port, "bin_dir": site.bin_dir}
    target = TargetServer(**near, data_dir=str(site.data))
    engine = Postgres(
        source=SourceServer(**near, password="p"),
        backup=BackupTool(host="here", bin_dir=site.bin_dir, role="taker", password="p"),
        target=target,
        application=Application(role="shop", database="postgres", password="p"),
    )
    return engine._administrator(site.psql().host, target, "127.0.0.1", "postgres"), target


def test_what_a_restore_asks_is_answered_by_the_server_itself(site: Server) -> None:
    control, place = restored(site)
    node = replication.observed(control)
    assert node is not None
    assert node.role == "primary"
    assert replication.following(control) == {}
    assert replication._replayed(control) == "promoted"
    Replica.new("r20260101_000000_abcdef").create(control)
    replication.be_synchronous(control, [place])
    assert position.end_of_replay(control) is None
    assert not sprung(site)


def test_the_trap_works_where_a_session_is_not_guarded(site: Server) -> None:
    """Else the test above would show nothing."""
    replication.observed(site.psql(options=""))
    assert sprung(site)


def test_nobody_forgets_what_guards_a_session(site: Server) -> None:
    host = site.psql().host
    with pytest.raises(TypeError, match="options"):
        Psql(host, site.bin_dir, "127.0.0.1", site.port, "postgres")  # type: ignore[call-arg]
