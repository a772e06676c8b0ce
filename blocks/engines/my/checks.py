"""What is asked of a restored Galera cluster."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from blocks.engines.base import checked, listed
from blocks.engines.my import survey
from blocks.engines.my.client import LoginRefused, Mariadb, NotAllowed, identifier
from blocks.engines.my.clusters import TargetCluster, address_and_port
from blocks.engines.my.survey import local
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import Check, CheckStatus

_INDEX = re.compile(r"\b[Ii]ndex '?([^' ]+)'? (?:is|contains)")
_ROWS = {"PRIMARY", "GEN_CLUST_INDEX"}
"""InnoDB's indexes that hold the rows themselves."""
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


def synced(nodes: Nodes) -> Check:
    """Every node is a whole member of the one primary component."""
    wrong = []
    for host, node in nodes.items():
        try:
            status = node.status()
        except TransientError as error:
            wrong.append(f"{host}: {error.message}")
            continue
        if why := survey.why_not(status):
            wrong.append(f"{host}: {why}")
        size = status.get("wsrep_cluster_size")
        if size != str(len(nodes)):
            wrong.append(f"{host} sees {size} of {len(nodes)} nodes")
    expected, right = f"{len(nodes)} nodes, each Synced", f"{len(nodes)} Synced"
    return checked("synced", expected, wrong, right, finding="node-count-differs")


def membership(nodes: Nodes, target: TargetCluster) -> Check:
    """Each node knows, and looks for, those of the recovery inventory alone.

    One that is missing is not of the cluster (`synced`), one at another port is in another place.
    """
    ours = {node.address for node in target.nodes}

    def of_node(node: Mariadb) -> Iterator[str]:
        for place in node.status().get("wsrep_incoming_addresses", "").split(","):
            if place and address_and_port(place)[0] not in ours:
                yield f"knows {place}"
        named = node.value("", "SELECT @@wsrep_cluster_address")
        if named != f"gcomm://{target.peers}":
            yield f"looks for {named}"

    wrong = _of_each(nodes, of_node)
    expected = f"only {', '.join(sorted(ours))}"
    right = f"no others on {len(nodes)} nodes"
    return checked("membership", expected, wrong, right, finding="peer-list-stale")


def identity(nodes: Nodes, facts: Mapping[str, Any], cluster: str) -> Check:
    """One history with a name of its own: no node can join the source, nor be joined by it."""
    uuids = set[str]()

    def of_node(node: Mariadb) -> Iterator[str]:
        status = node.status()
        own = {status["wsrep_cluster_state_uuid"], status["wsrep_local_state_uuid"]}
        uuids.update(own)
        if facts["state_uuid"] in own:
            yield f"the history is the source's, {facts['state_uuid']}"
        name = node.value("", "SELECT @@wsrep_cluster_name")
        if name != cluster:
            yield f"it is of the cluster {name}"
        noted = node.value("", "SELECT COUNT(*) FROM mysql.wsrep_cluster_members")
        if int(noted) > len(nodes):
            yield f"it has noted {noted} members"

    wrong = _of_each(nodes, of_node)
    if len(uuids) > 1:
        wrong.append(f"there are {len(uuids)} histories")
    expected, right = "a history and a name of its own", f"history {min(uuids)}"
    return checked("identity", expected, wrong, right, finding="node-identity-reused")


def definitions(node: Mariadb, facts: Mapping[str, Any]) -> Check:
    """Tables, indexes, views, routines, triggers and events are those of the manifest.

    What the source did not show is compared with nothing: where all else is right, nobody knows.
    """
    found, whole = survey.definitions(node), facts["definitions"]
    # Older sets have the columns of views, too: what these are defined by tells as much.
    views = {name.replace("view", "table", 1) for name in whole if name.startswith("view ")}
    wanted = {name: digest for name, digest in whole.items() if name not in views}
    hidden = facts.get("hidden", {})
    unseen = [name for name, digest in wanted.items() if digest == "unseen"]
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    for name in sorted(found.keys() - wanted.keys()):
        if name.split(" ")[0] in hidden:
            unseen.append(name)
        else:
            wrong.append(f"{name} was not in the source")
    same = [name for name in wanted.keys() & found.keys() if found[name] == wanted[name]]
    wrong += [
        f"{name} differs"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name] != "unseen"
    ]
    right = f"{len(same)} objects, all the same"
    if not wrong and (unseen or not same):
        text = f"{right}; the source showed nothing of {listed(sorted(unseen)) or 'any object'}"
        return Check("schema-digest", CheckStatus.UNKNOWN, "the manifest's", text)
    return checked("schema-digest", "the manifest's", wrong, right, finding="incomplete-restore")


def row_counts(node: Mariadb, facts: Mapping[str, Any]) -> Check:
    """Every table is there with as many rows as were counted at the source.

    Where it counted none (a large table, or one that was written to) its own estimate has to do:
    no fewer rows than half of it, for it comes from a few pages. A table that had EMPTIED rows and
    has none now fails as well. Tables in memory are empty.
    """
    short, total, counted_there = list[str](), 0, 0
    present = {(item["schema"], item["name"]) for item in survey.tables(node)}
    wanted, unknown = local(facts["tables"]), list[str]()
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
        exact, estimate = item.get("exact"), item["rows"]
        if item["engine"] == "MEMORY":
            continue
        if exact is not None:
            counted_there += 1
            if counted != exact:
                short.append(f"{label} has {counted} rows, where the source had {exact}")
        elif estimate is None:
            unknown.append(f"{label} has {counted} rows, and the source had no estimate")
        elif counted < estimate // ESTIMATE - EMPTIED or (counted == 0 and estimate >= EMPTIED):
            short.append(f"{label} has {counted} of about {estimate} rows")
    expected = "as many rows as were counted at the source, or as its estimates allow"
    right = f"{total:,} rows in {len(wanted)} tables: {counted_there} as counted at the source"
    right += f", {len(wanted) - counted_there} by its estimates"
    if not short and (unknown or not wanted):
        text = listed(unknown) or "the source showed no table: nothing was compared"
        return Check("row-counts", CheckStatus.UNKNOWN, expected, text)
    return checked("row-counts", expected, short, right, finding="incomplete-restore")


def table_checks(nodes: Nodes) -> Check:
    """Every page and index of every table is sound, on each node: each has its own copy."""
    said, done = dict[str, list[str]](), 0

    def of_node(node: Mariadb) -> Iterator[str]:
        nonlocal done
        for some in _batches(local(survey.tables(node))):
            names = ", ".join(map(_place, some))
            for table, _, kind, text in node.rows(f"CHECK TABLE {names} EXTENDED", timeout=HOURS):
                if (kind, text) == ("status", "OK"):
                    done += 1
                elif kind != "note":
                    said.setdefault(table, []).append(text)
                    yield f"{table}: {text}"

    wrong = _of_each(nodes, of_node)
    expected = "CHECK TABLE EXTENDED finds nothing, on each node"
    right = f"{done} tables checked, all sound"
    if not wrong and not done:
        return Check("table-checks", CheckStatus.UNKNOWN, expected, "there is no table to check")
    id = "index-corrupt" if all(map(_is_of_index, said.values())) else "page-corrupt"
    return checked("table-checks", expected, wrong, right, finding=id)


def _is_of_index(said: Iterable[str]) -> bool:
    """Whether what CHECK TABLE says of a table is only of indexes that can be made anew."""
    named = {found[1] for text in said for found in _INDEX.finditer(text)}
    return bool(named) and not named & _ROWS


def agree(nodes: Nodes) -> Check:
    """The nodes hold the same rows: each was restored by itself."""
    expected = "the same checksum of each table on all nodes"
    if len(nodes) < 2:
        return Check("nodes-agree", CheckStatus.UNKNOWN, expected, "there is one node")
    sums: dict[str, dict[str, str]] = {}
    for host, node in nodes.items():
        for some in _batches(local(survey.tables(node))):
            names = ", ".join(map(_place, some))
            for table, found in node.rows(f"CHECKSUM TABLE {names} EXTENDED", timeout=HOURS):
                sums.setdefault(table, {})[host] = found
    # Of a table that a node cannot read there is none: `table_checks` tells why.
    unread = {table for table, found in sums.items() if "NULL" in found.values()}
    wrong = [
        f"{table}: " + ", ".join(f"{found.get(host, 'nothing')} on {host}" for host in nodes)
        for table, found in sums.items()
        if len(found) < len(nodes) or len(set(found.values()) - {"NULL"}) > 1
    ]
    if unread and not wrong:
        text = f"no checksum of {', '.join(sorted(unread))}"
        raise PermanentError(text, operation="nodes-agree")
    if not wrong and not sums:
        return Check("nodes-agree", CheckStatus.UNKNOWN, expected, "there is no table to compare")
    right = f"{len(sums)} tables, the same on {len(nodes)}"
    return checked("nodes-agree", expected, wrong, right, finding="incomplete-restore")


def accounts(node: Mariadb, facts: Mapping[str, Any]) -> Check:
    """Every user and role of the manifest is there."""
    found = set(survey.accounts(node))
    wrong = [f"{name} is missing" for name in facts["accounts"] if name not in found]
    right = f"{len(facts['accounts'])} users, roles"
    return checked("logins", "the manifest's users", wrong, right, finding="login-missing")


def access(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """Each account is let in by what it was at the source, and none is there besides.

    But for those that farside made for itself, which get in by a node's own socket alone.
    """
    node = next(iter(nodes.values()))
    expected = "no account is let in by less than at the source"
    wanted = facts.get("demands")
    if not wanted:
        text = "the source did not show by what its accounts are let in"
        return Check("access", CheckStatus.UNKNOWN, expected, text)
    found, own = survey.demands(node), {f"{item.user}@localhost" for item in nodes.values()}
    wrong = [
        f"{name} is let in by {has}; at the source by {wanted.get(name, 'nothing: it is new')}"
        for name, has in sorted(found.items())
        if name not in own and wanted.get(name) != has
    ]
    secure = facts["settings"].get("require_secure_transport")
    if secure == "ON" and node.value("", "SELECT @@require_secure_transport") != "1":
        wrong.append("connections without TLS are let in; at the source they were not")
    right = f"{len(found)} accounts, as at the source"
    return checked("access", expected, wrong, right, finding="service-more-open")


def isolation(nodes: Nodes) -> Check:
    """No event or plugin acts by itself; no node follows another server or is asked to call one."""

    def of_node(node: Mariadb) -> Iterator[str]:
        scheduler = node.value("", "SELECT @@event_scheduler")
        if scheduler == "ON":
            yield f"the event scheduler is {scheduler}"
        for row in node.rows("SHOW ALL SLAVES STATUS"):
            yield f"it replicates from {row[3]}"
        notified = node.value("", "SELECT @@wsrep_notify_cmd")
        if notified not in ("", "NULL"):
            yield f"it runs {notified}"
        for item in survey.acting(survey.active_plugins(node)):
            yield f"the plugin {item['name']} ({item['type']}) runs"

    wrong = _of_each(nodes, of_node)
    expected = "no event scheduler, no replication, no notification, no plugin with its own work"
    right = f"nothing acts by itself on {len(nodes)} nodes"
    return checked("isolation", expected, wrong, right, finding="restored-jobs-fire")


def plugins(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """What the source's tables, or who may read them, depend on is loaded on each node."""
    wanted = {item["name"] for item in survey.needed(facts["plugins"])}

    def of_node(node: Mariadb) -> Iterator[str]:
        active = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS = 'ACTIVE'"
        for name in sorted(wanted - {row[0] for row in node.rows(active)}):
            yield f"the plugin {name} is not active"

    wrong = _of_each(nodes, of_node)
    expected, right = "the source's, as far as its data needs them", f"{len(wanted)} active"
    return checked("plugins", expected, wrong, right, finding="extension-missing")


def login(application: Mariadb, database: str) -> Check:
    """The application's own user connects to the first node, and trusts it."""
    expected, wrong, right = f"{application.user} connects to {database}", list[str](), ""
    try:
        right = application.value(database, "SELECT CONCAT(CURRENT_USER(), ' in ', DATABASE())")
    except LoginRefused as error:
        wrong.append(error.message)
    return checked("login", expected, wrong, right, finding="login-missing")


def application_write(application: Mariadb, database: str, statement: str) -> Check:
    """The application's own write, as its own user, committed."""
    name, expected = "application-write", f"{application.user} commits a write in {database}"
    script = f"BEGIN;\n{statement.strip().rstrip(';')};\nSELECT ROW_COUNT();\nCOMMIT;"
    wrong, changed = list[str](), 0
    try:
        changed = int(application.script(database, script).split()[-1])
        if changed < 1:
            wrong.append("the plan's statement wrote nothing")
    except NotAllowed as error:
        wrong.append(error.message)
    except LoginRefused as error:
        actual = f"could not run: {error.message}"
        return Check(name, CheckStatus.UNKNOWN, expected, actual)
    except PermanentError as error:
        wrong.append(error.message)
    right = f"{changed} rows written"
    return checked(name, expected, wrong, right, finding="usable-not-restored")


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
    right = f"{len(nodes)} rows, read at {len(nodes)} nodes"
    return checked("committed-write", expected, wrong, right, finding="usable-not-restored")


def whole(nodes: Nodes) -> None:
    """Raise TransientError unless every node takes part.

    Of such a cluster one may die; of another one too many may be dead already.
    """
    found = synced(nodes)
    if found.status is not CheckStatus.PASSED:
        raise TransientError(f"it is not whole: {found.actual}", operation="failover")


def survives(others: Nodes, id: str, dead: str) -> Check:
    """With one node dead, the others are the cluster, and take a write."""
    expected = f"the others take writes when {dead} has died"
    began, wrong, right = time.monotonic(), list[str](), ""
    while True:
        try:
            sizes = {node.status().get("wsrep_cluster_size", "") for node in others.values()}
            if sizes == {str(len(others))}:
                written = committed_write(others, id)
                right = f"{time.monotonic() - began:.1f} s after its death: {written.actual}"
                if written.status is not CheckStatus.PASSED:
                    wrong.append(right)
                break
            said = f"the cluster's size is {', '.join(sorted(sizes))}"
        except TransientError as error:
            said = error.message
        if time.monotonic() - began > SURVIVAL_SECONDS:
            wrong.append(said)
            break
        time.sleep(0.2)
    return checked("failover", expected, wrong, right, finding="usable-not-restored")


def _of_each(nodes: Nodes, wrong_with: Callable[[Mariadb], Iterable[str]]) -> list[str]:
    """What is wrong with each node.

    One that does not answer is the finding of `synced`; here its error is raised if nothing else
    is wrong, for then nobody knows.
    """
    wrong, silent = list[str](), list[TransientError]()
    for host, node in nodes.items():
        try:
            wrong += [f"{host}: {text}" for text in wrong_with(node)]
        except TransientError as error:
            silent.append(error)
    if silent and not wrong:
        raise silent[0]
    return wrong


def _place(table: Mapping[str, str]) -> str:
    return f"{identifier(table['schema'])}.{identifier(table['name'])}"


def _batches(tables: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (tables[start : start + _AT_ONCE] for start in range(0, len(tables), _AT_ONCE))
