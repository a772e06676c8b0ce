"""East's databases under load: consistent at every moment, and followed by the standby."""

import time

import psycopg

from tests.deployments.lab.conftest import LabUnderTest


def connect(running: LabUnderTest) -> "psycopg.Connection[tuple[object, ...]]":
    source = running.plan["engine"]["source"]
    password = (running.places.secrets("east") / "postgres-password").read_text()
    return psycopg.connect(
        host=source["address"],
        port=source["port"],
        user="postgres",
        password=password,
        dbname="shop",
        autocommit=True,
    )


def test_the_plans_checks_hold_under_load(running: LabUnderTest) -> None:
    with connect(running) as connection:
        history = "SELECT count(*) FROM pgbench_history"
        before = connection.execute(history).fetchone()
        deadline = time.monotonic() + 10
        while connection.execute(history).fetchone() == before:
            assert time.monotonic() < deadline, "there is no load"
            time.sleep(0.1)
        for check in running.plan["checks"]:
            row = connection.execute(check["sql"]).fetchone()
            assert row is not None
            answer = str(row[0])[0].lower() if isinstance(row[0], bool) else str(row[0])
            assert (check["name"], answer) == (check["name"], check["expected"])


def test_the_plans_check_sees_half_a_transaction(running: LabUnderTest) -> None:
    [check] = [c for c in running.plan["checks"] if c["name"] == "pgbench-balances"]
    with connect(running) as connection, connection.transaction(force_rollback=True):
        connection.execute("UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1")
        assert connection.execute(check["sql"]).fetchone() == (False,)


def test_the_standby_follows(running: LabUnderTest) -> None:
    with connect(running) as connection:
        deadline = time.monotonic() + 10
        query = "SELECT application_name, state FROM pg_stat_replication"
        while connection.execute(query).fetchall() != [("db2", "streaming")]:
            assert time.monotonic() < deadline, connection.execute(query).fetchall()
            time.sleep(0.1)


def test_the_servers_keep_what_they_acknowledge(running: LabUnderTest) -> None:
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "wal_level": "replica",
        "server_encoding": "UTF8",
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    with connect(running) as connection:
        names = list(wanted)
        query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
        found = connection.execute(query, [names]).fetchall()
        assert {str(name): value for name, value in found} == wanted
