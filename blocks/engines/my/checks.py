"""What is asked of a restored Galera cluster."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from blocks.engines.my import survey
from blocks.engines.my.client import LoginRefused, Mariadb, identifier
from blocks.engines.my.clusters import TargetCluster
from blocks.engines.my.survey import OUTBOUND
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.record import Check, CheckStatus

HOURS = 24 * 3600.0
SURVIVAL_SECONDS = 60.0
EMPTIED = 100
"""A table of fewer rows may be empty a moment later (a queue)."""
_AT_ONCE = 100
# Not InnoDB's own statistics: an estimate of pages that were read at random.
ESTIMATE = 2
"""How many times too high an estimate of rows may be."""

Nodes = Mapping[str, Mariadb]
"""The restored nodes by host, each asked by its own socket."""


def _check(name: str, expected: str, wrong: Collection[str], else_: str) -> Check:
    status = CheckStatus.FAILED if wrong else CheckStatus.PASSED
    shown = [*list(wrong)[:5], *([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else ())]
    return Check(name, status, expected, "; ".join(shown) or else_)


def synced(nodes: Nodes) -> Check:
    """Every node is a whole member of the one primary component."""
    wrong = []
    for host, node in nodes.items():
        status = node.status()
        if why := survey.why_not(status):
            wrong.append(f"{host}: {why}")
        size = status.get("wsrep_cluster_size")
        if size != str(len(nodes)):
            wrong.append(f"{host} sees {size} of {len(nodes)} nodes")
    return _check("synced", f"{len(nodes)} nodes, each Synced", wrong, f"{len(nodes)} Synced")


def membership(nodes: Nodes, target: TargetCluster) -> Check:
    """Each node knows those of the recovery inventory, at its addresses, and no other."""
    wrong = []
    for host, node in nodes.items():
        known = frozenset(node.status().get("wsrep_incoming_addresses", "").split(","))
        wrong += [f"{host} does not know {place}" for place in sorted(target.endpoints - known)]
        wrong += [f"{host} knows {place}" for place in sorted(known - target.endpoints)]
        named = node.value("", "SELECT @@wsrep_cluster_address")
        if named != f"gcomm://{target.peers}":
            wrong.append(f"{host} looks for {named}")
    expected = ", ".join(sorted(target.endpoints))
    return _check("membership", expected, wrong, f"{len(nodes)} members, as in the plan")


def identity(nodes: Nodes, facts: Mapping[str, Any], cluster: str) -> Check:
    """One history with a name of its own: no node can join the source, nor be joined by it."""
    wrong, uuids = [], set[str]()
    for host, node in nodes.items():
        status = node.status()
        uuids |= {status["wsrep_cluster_state_uuid"], status["wsrep_local_state_uuid"]}
        name = node.value("", "SELECT @@wsrep_cluster_name")
        if name != cluster:
            wrong.append(f"{host} is of the cluster {name}")
        noted = node.value("", "SELECT COUNT(*) FROM mysql.wsrep_cluster_members")
        if noted != str(len(nodes)):
            wrong.append(f"{host} has noted {noted} members")
    if facts["state_uuid"] in uuids:
        wrong.append(f"the history is the source's, {facts['state_uuid']}")
    if len(uuids) > 1:
        wrong.append(f"there are {len(uuids)} histories")
    return _check("identity", "a history and a name of its own", wrong, f"history {min(uuids)}")


def definitions(node: Mariadb, facts: Mapping[str, Any]) -> Check:
    """Tables, indexes, views, routines, triggers and events are those of the manifest."""
    found, wanted = survey.definitions(node), facts["definitions"]
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    wrong += [f"{name} was not in the source" for name in sorted(found.keys() - wanted.keys())]
    wrong += [
        f"{name} differs"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name] != "unseen"
    ]
    return _check("schema-digest", "the manifest's", wrong, f"{len(found)} objects, all the same")


def row_counts(node: Mariadb, facts: Mapping[str, Any]) -> Check:
    """Every table is there, with no fewer rows than half of the source's own estimate.

    InnoDB's estimates come from a few pages: of small tables they are off by a factor of two. A
    table that had EMPTIED rows and has none now fails as well. Tables in memory are empty.
    """
    short, total = [], 0
    present = {(item["schema"], item["name"]) for item in survey.tables(node)}
    wanted = local(facts["tables"])
    for item in wanted:
        label = f"{item['schema']}.{item['name']}"
        if (item["schema"], item["name"]) not in present:
            short.append(f"{label} is missing")
            continue
        try:
            counted = int(node.value("", f"SELECT COUNT(*) FROM {_place(item)}", timeout=HOURS))
        except PermanentError as error:
            short.append(f"{label} cannot be read: {error.message}")
            continue
        total += counted
        if item["engine"] == "MEMORY":
            continue
        if counted < item["rows"] // ESTIMATE - EMPTIED or (
            counted == 0 and item["rows"] >= EMPTIED
        ):
            short.append(f"{label} has {counted} of about {item['rows']} rows")
    text = f"{total:,} rows in {len(wanted)} tables"
    return _check("row-counts", "no fewer rows than the source's estimates allow", short, text)


def table_checks(nodes: Nodes) -> Check:
    """Every page and index of every table is sound, on each node: each has its own copy."""
    wrong, done = [], 0
    for host, node in nodes.items():
        tables = local(survey.tables(node))
        for some in _batches(tables):
            names = ", ".join(map(_place, some))
            for row in node.rows(f"CHECK TABLE {names} EXTENDED", timeout=HOURS):
                if row[2:] == ["status", "OK"]:
                    done += 1
                elif row[2] != "note":
                    wrong.append(f"{host}: {row[0]}: {row[3]}")
    expected = "CHECK TABLE EXTENDED finds nothing, on each node"
    return _check("table-checks", expected, wrong, f"{done} tables checked, all sound")


def agree(nodes: Nodes) -> Check:
    """The nodes hold the same rows: each was restored by itself."""
    expected = "the same checksum of each table on all nodes"
    sums: dict[str, dict[str, str]] = {}
    for host, node in nodes.items():
        for some in _batches(local(survey.tables(node))):
            names = ", ".join(map(_place, some))
            for table, found in node.rows(f"CHECKSUM TABLE {names} EXTENDED", timeout=HOURS):
                sums.setdefault(table, {})[host] = found
    wrong = [
        f"{table}: " + ", ".join(f"{found.get(host, 'nothing')} on {host}" for host in nodes)
        for table, found in sums.items()
        if len(found) < len(nodes) or len(set(found.values())) > 1
    ]
    return _check("nodes-agree", expected, wrong, f"{len(sums)} tables, the same on {len(nodes)}")


def accounts(node: Mariadb, facts: Mapping[str, Any]) -> Check:
    """Every user and role of the manifest is there."""
    found = set(survey.accounts(node))
    wrong = [f"{name} is missing" for name in facts["accounts"] if name not in found]
    return _check("logins", "the manifest's users", wrong, f"{len(facts['accounts'])} users, roles")


def isolation(nodes: Nodes) -> Check:
    """No event fires, and no node follows another server or is asked to call one."""
    wrong = []
    for host, node in nodes.items():
        scheduler = node.value("", "SELECT @@event_scheduler")
        if scheduler == "ON":
            wrong.append(f"{host}: the event scheduler is {scheduler}")
        for row in node.rows("SHOW ALL SLAVES STATUS"):
            wrong.append(f"{host} replicates from {row[3]}")
        notified = node.value("", "SELECT @@wsrep_notify_cmd")
        if notified not in ("", "NULL"):
            wrong.append(f"{host} runs {notified}")
    expected = "no event scheduler, no replication, no notification"
    return _check("isolation", expected, wrong, f"nothing acts by itself on {len(nodes)} nodes")


def login(application: Mariadb, database: str) -> Check:
    """The application's own user connects to the first node, and trusts it."""
    expected = f"{application.user} connects to {database}"
    try:
        text = application.value(database, "SELECT CONCAT(CURRENT_USER(), ' in ', DATABASE())")
    except LoginRefused as error:
        return Check("login", CheckStatus.FAILED, expected, error.message)
    return Check("login", CheckStatus.PASSED, expected, text)


def application_write(application: Mariadb, database: str, statement: str) -> Check:
    """The application's own write, as its own user, committed."""
    expected = f"{application.user} commits a write in {database}"
    script = f"BEGIN;\n{statement.strip().rstrip(';')};\nSELECT ROW_COUNT();\nCOMMIT;"
    try:
        changed = application.script(database, script).split()[-1]
    except LoginRefused:
        actual = "could not run: the application cannot log in"
        return Check("application-write", CheckStatus.UNKNOWN, expected, actual)
    except PermanentError as error:
        return Check("application-write", CheckStatus.FAILED, expected, error.message)
    status = CheckStatus.PASSED if int(changed) > 0 else CheckStatus.FAILED
    return Check("application-write", status, expected, f"{changed} rows written")


def committed_write(nodes: Nodes, id: str) -> Check:
    """What is committed at any node is read at every other, then removed."""
    expected, wrong = "a row committed at each node is read at all", []
    first = next(iter(nodes.values()))
    database = identifier(f"farside-{id}")
    table = f"{database}.probe"
    made = f"CREATE OR REPLACE TABLE {table} (at VARCHAR(200) PRIMARY KEY);"
    first.script("", f"CREATE DATABASE IF NOT EXISTS {database}; {made}")
    try:
        for host, node in nodes.items():
            try:
                node.script(
                    "", f"SET SESSION wsrep_sync_wait = 1; INSERT INTO {table} VALUES ('{host}');"
                )
            except PermanentError as error:
                wrong.append(f"{host}: {error.message}")
        for host, node in nodes.items():
            read = f"SET SESSION wsrep_sync_wait = 1; SELECT at FROM {table} ORDER BY at;"
            found = node.script("", read).split()
            wrong += [f"{host} does not see what {by} wrote" for by in nodes if by not in found]
    finally:
        first.script("", f"DROP DATABASE {database};")
    return _check(
        "committed-write", expected, wrong, f"{len(nodes)} rows, read at {len(nodes)} nodes"
    )


def survives(others: Nodes, id: str, dead: str) -> Check:
    """With one node dead, the others are the cluster, and take a write."""
    expected = f"the others take writes when {dead} has died"
    began = time.monotonic()
    while True:
        try:
            sizes = {node.status().get("wsrep_cluster_size", "") for node in others.values()}
            if sizes == {str(len(others))}:
                written = committed_write(others, id)
                break
            said = f"the cluster's size is {', '.join(sorted(sizes))}"
        except TransientError as error:
            said = error.message
        if time.monotonic() - began > SURVIVAL_SECONDS:
            return Check("failover", CheckStatus.FAILED, expected, said)
        time.sleep(0.2)
    text = f"{time.monotonic() - began:.1f} s after the death of {dead}: {written.actual}"
    return Check("failover", written.status, expected, text)


def question(asked: Mariadb, name: str, database: str, sql: str, expected: str) -> Check:
    """A check of the plan: one value, and the only answer that passes; asked twice."""
    seconds = []
    try:
        for _ in range(2):
            began = time.monotonic()
            found = asked.value(database, sql, timeout=HOURS)
            seconds.append(round(time.monotonic() - began, 3))
    except FarsideError as error:
        return Check(name, CheckStatus.UNKNOWN, expected, f"could not run: {error.message}")
    status = CheckStatus.PASSED if found == expected else CheckStatus.FAILED
    return Check(name, status, expected, found, seconds=(seconds[0], seconds[1]))


def local(tables: Iterable[Any]) -> list[Any]:
    """Those of some tables whose rows are here: to read another server's would call it."""
    return [item for item in tables if item["engine"] not in OUTBOUND]


def _place(table: Mapping[str, str]) -> str:
    return f"{identifier(table['schema'])}.{identifier(table['name'])}"


def _batches(tables: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (tables[start : start + _AT_ONCE] for start in range(0, len(tables), _AT_ONCE))
