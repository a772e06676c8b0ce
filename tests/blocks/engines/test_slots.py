"""A rehearsal's slot on a server that the source's address does not lead to any more."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.engines.engine import LeftElsewhere
from blocks.engines.postgres import burden, slots, survey, wal
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.ids import began, name_of
from deployments.lab.accounts import service_account
from tests.blocks.engines.servers import Server, server


def id_of(began: datetime) -> str:
    return f"r{began:%Y%m%d-%H%M%S}-abcdef"


BEFORE = id_of(datetime.now(UTC) - timedelta(days=1))
AFTER = id_of(datetime.now(UTC) + timedelta(days=1))


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.1)


def asking(site: Server) -> Psql:
    return site.psql("looks", PATIENT_WITH_PRODUCTION)


@pytest.fixture(scope="module")
def old() -> Iterator[Server]:
    """A primary, with a slot of a rehearsal's."""
    with server(15) as made:
        made.run("CREATE ROLE looks LOGIN REPLICATION IN ROLE pg_monitor")
        made.run(f"SELECT pg_create_physical_replication_slot('{name_of(BEFORE)}')")
        yield made


@pytest.fixture(scope="module")
def standby(old: Server) -> Iterator[Server]:
    """Its standby."""
    with server(15) as made:
        made.ctl("stop", "-m", "fast")
        take = ["rm", "-rf", str(made.data)]
        subprocess.run(take, check=True, **service_account().identity)
        conninfo = f"host=127.0.0.1 port={old.port} user=postgres"
        take = [f"{made.bin_dir}/pg_basebackup", "-d", conninfo, "-D", str(made.data)]
        subprocess.run(
            [*take, "-R", "-c", "fast"], check=True, cwd="/", **service_account().identity
        )
        with (made.data / "postgresql.conf").open("a") as file:
            file.write(f"port = {made.port}\n")
        made.ctl("start")
        yield made


@pytest.fixture(scope="module")
def new(standby: Server) -> Server:
    """It, promoted: where the address leads after a switchover."""
    standby.ctl("promote")
    return standby


def test_a_standbys_backup_without_a_slot_holds_its_log(
    old: Server, standby: Server, tmp_path: Path
) -> None:
    """It begins at the last restart point, segments before what is followed from then on."""
    old.run("CREATE TABLE big AS SELECT repeat('x', 100) FROM generate_series(1, 300000)")
    end = old.run("SELECT pg_current_wal_lsn()")
    reached = f"SELECT pg_last_wal_replay_lsn() >= '{end}'"
    until(lambda: standby.run(reached) == "t")
    facts = survey.survey(asking(standby))
    assert facts.in_recovery
    assert burden.holding(facts, "x") == []
    argv = [f"{standby.bin_dir}/pg_basebackup", "-D", str(tmp_path / "base"), "-c", "fast"]
    argv += ["-d", f"host=127.0.0.1 port={standby.port} user=postgres"]
    subprocess.run([*argv, "-X", burden.log_in_base(facts)], check=True, timeout=60)
    label = (tmp_path / "base" / "backup_label").read_text()
    begins = re.search(r"START WAL LOCATION: .* \(file (\w+)\)", label)
    assert begins
    assert begins[1] < wal.segment_of(wal.parse_lsn(end), 1, facts.wal_segment_size)
    assert (tmp_path / "base" / "pg_wal" / begins[1]).exists()


def test_the_server_that_has_it_is_known(old: Server) -> None:
    assert slots.server_of(asking(old), name_of(BEFORE)) == old.run(
        "SET TimeZone = 'UTC'; SELECT pg_postmaster_start_time()"
    )


def test_behind_an_address_of_two_servers_it_may_not_be_there(new: Server) -> None:
    with pytest.raises(LeftElsewhere, match="more than one server answers"):
        slots.server_of(asking(new), name_of(BEFORE))


def test_after_a_switchover_its_end_is_unknown(old: Server, new: Server) -> None:
    made_on = slots.server_of(asking(old), name_of(BEFORE))
    assert not slots.drop(new.psql(), name_of(BEFORE))
    with pytest.raises(LeftElsewhere, match="not the one on which it was made") as caught:
        slots.check_gone(asking(new), BEFORE, made_on)
    statement = str(caught.value.hint).partition(": ")[2]
    with pytest.raises(LeftElsewhere, match=r"the primary changed on 20"):
        slots.check_gone(asking(new), BEFORE, None)
    assert old.run(f"{statement}; SELECT count(*) FROM pg_replication_slots") == "0"


@pytest.mark.parametrize("rehearsal_id", ["r1", "x", "r1-2-3-4", "r20269901-000000-abcdef"])
def test_what_is_no_id_of_a_rehearsal_has_no_slot(new: Server, rehearsal_id: str) -> None:
    assert began(rehearsal_id) is None
    slots.check_gone(asking(new), rehearsal_id, None)


def test_where_the_primary_is_the_one_that_it_was_it_is_gone(old: Server, new: Server) -> None:
    slots.check_gone(asking(old), BEFORE, None)
    slots.check_gone(asking(new), AFTER, None)
    slot = name_of(BEFORE)
    old.run(f"SELECT pg_create_physical_replication_slot('{slot}')")
    made_on = slots.server_of(asking(old), slot)
    assert slots.drop(old.psql(), slot)
    slots.check_gone(asking(old), BEFORE, made_on)
