"""What is asked of a restored Galera cluster."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blocks.engines.checks import listed
from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.galera import details as made
from blocks.engines.galera import privileges as granted
from blocks.engines.galera import sequences as going_on
from blocks.engines.galera import survey
from blocks.engines.galera.last_look import LastLook, Moved, label
from blocks.engines.galera.mariadb import LoginRefused, Mariadb, NotAllowed, identifier
from blocks.engines.galera.survey import local
from blocks.engines.galera.tally import DAMAGED, Tally
from blocks.engines.legacy import checked
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import Check, CheckStatus

HOURS = 24 * 3600.0
EMPTIED = 100
"""A table of fewer rows may be empty a moment later (a queue)."""
_AT_ONCE = 100
# Not InnoDB's own statistics: an estimate of pages that were read at random.
ESTIMATE = 2
"""How many times too high an estimate of rows may be."""
Nodes = Mapping[str, Mariadb]
"""The restored nodes by host, each asked by its own socket."""


def definitions(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """Tables, indexes, views, routines, triggers and events of each node are the manifest's.

    What the source did not show is compared with nothing: where all else is right, the result is
    unknown.
    """
    tally = Tally()
    for host, node in nodes.items():
        with tally.looking(host):
            _hold_definitions(tally, host, facts, survey.definitions(node))
            if "details" in facts:  # older sets have none
                _hold_details(tally, host, facts, made.digests(node))
    right = f"{tally.seen} objects on {_number(nodes)}, all the same"
    return tally.check("schema-digest", "the manifest's", right, finding="incomplete-restore")


def _hold_definitions(
    tally: Tally, host: str, facts: Mapping[str, Any], there: Mapping[str, str]
) -> None:
    """Hold the digests of a node against the manifest's."""
    whole, hidden, last = facts["definitions"], facts.get("hidden", {}), LastLook.of(facts)
    # Older sets have the columns of views, too: what these are defined by tells as much.
    views = {name.replace("view", "table", 1) for name in whole if name.startswith("view ")}
    wanted = {name: digest for name, digest in whole.items() if name not in views}
    for name in sorted(wanted.keys() | there.keys()):
        first, found = wanted.get(name), there.get(name)
        if "unseen" in (first, last.had("definitions", name, first)) or (
            first is None and name.split(" ")[0] in hidden
        ):
            tally.unseen.append(f"{host}: {name}: the source did not show it")
            continue
        tally.seen += found is not None
        said = "is missing" if found is None else "differs" if first else "was not in the source"
        last.compare(tally, "definitions", name, f"{host}: {name} {said}", found, first)


def _hold_details(
    tally: Tally, host: str, facts: Mapping[str, Any], there: Mapping[str, str]
) -> None:
    """Hold how objects are made that are there, and were."""
    last = LastLook.of(facts)
    for name, first in sorted(facts["details"].items()):
        if (found := there.get(name)) is None:
            continue
        if "unseen" in (first, last.had("details", name, first)):
            tally.unseen.append(f"{host}: {name}: the source did not show how it is made")
            continue
        text = f"{host}: {name} is not made as it was (keys, options, or who defined it)"
        last.compare(tally, "details", name, text, found, first)


def row_counts(node: Mariadb, facts: Mapping[str, Any]) -> Check:
    """Every table is there with as many rows as were counted at the source.

    Where it counted none (a large table, or one that was written to) its own estimate has to do:
    no fewer rows than half of it, for it comes from a few pages. A table that had EMPTIED rows and
    has none now fails as well. Tables in memory are empty.
    """
    tally, last, total, counted_there = Tally(), LastLook.of(facts), 0, 0
    present = {label(item) for item in survey.names(node)}
    wanted = local(facts["tables"])
    for item in wanted:
        name, moved = label(item), last.table(label(item))
        if name not in present:
            had = NOT_ASKED if moved is None else not moved.dropped
            tally.compare(name, f"{name} is missing", False, True, had)
            tally.seen += 1
            continue
        if item.get("broken"):
            tally.unseen.append(_broken(name, item))
            continue
        with tally.looking(name):
            counted = int(node.value("", f"SELECT COUNT(*) FROM {place_of(item)}", timeout=HOURS))
            tally.seen, total = tally.seen + 1, total + counted
            exact, estimate = item.get("exact"), item["rows"]
            if item["engine"] == "MEMORY":
                continue
            if exact is not None:
                counted_there += 1
                if counted != exact:
                    tally.fail(f"{name} has {counted} rows, where the source had {exact}")
            elif estimate is None:
                tally.unseen.append(f"{name} has {counted} rows, and the source had no estimate")
            else:
                # Of other engines, a table may lose all its rows with none of them counted.
                deleted = last.deleted if item["engine"] == "INNODB" else None
                _hold_estimate(tally, name, counted, estimate, moved, deleted)
    expected = "as many rows as were counted at the source, or as its estimates allow"
    right = f"{total:,} rows in {len(wanted)} tables: {counted_there} as counted at the source"
    right += f", {len(wanted) - counted_there} by its estimates"
    if not (tally.wrong or tally.unseen or tally.seen):
        text = "the source showed no table: nothing was compared"
        return Check("row-counts", CheckStatus.UNKNOWN, expected, text)
    return tally.check("row-counts", expected, right, finding="incomplete-restore")


def sequences(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """Every sequence goes on where it was, or further, on each node: none gives a value twice."""
    tally, last, wanted = Tally(), LastLook.of(facts), facts.get("sequences")
    expected = "every sequence of the manifest, no value behind"
    if wanted is None:
        text = "the source was not asked where its sequences go on"
        return Check("sequences", CheckStatus.UNKNOWN, expected, text)
    for host, node in nodes.items():
        with tally.looking(host):
            there = going_on.read(node)
            tally.seen += 1
            for name, first in sorted(wanted.items()):
                had = last.had("sequences", name, first)
                going_on.hold(tally, host, name, there.get(name), first, had)
    right = f"all {len(wanted)} on {_number(nodes)}"
    return tally.check("sequences", expected, right, finding="incomplete-restore")


def _hold_estimate(
    tally: Tally, name: str, counted: int, estimate: int, moved: Moved | None, deleted: int | None
) -> None:
    """Hold a number of rows against the source's estimate, less those that it deleted itself.

    `deleted` is how many it deleted from all tables; None is any number.
    """
    least = max(0, estimate - moved.fewer) if moved else estimate
    text = f"{name} has {counted} of about {estimate} rows"
    if not _is_short(counted, least):
        if _is_short(counted, estimate):
            tally.changed.append(name)
    elif moved is None:
        tally.unseen.append(f"{text}: lost, or deleted since the survey; it was not asked again")
    elif moved.remade:
        tally.unseen.append(f"{text}: the source emptied it, or made it anew, since the survey")
    elif moved.written and (deleted is None or not _is_short(counted + deleted, least)):
        tally.unseen.append(f"{text}: the source may have deleted them since the survey")
    else:
        tally.fail(text)


def _is_short(counted: int, least: int) -> bool:
    return counted < least // ESTIMATE - EMPTIED or (counted == 0 and least >= EMPTIED)


def _broken(name: str, table: Mapping[str, Any]) -> str:
    return f"{name}: the source could not open it either (error {table['broken']})"


def table_checks(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """Every page and index of every table is sound, on each node: each has its own copy.

    Those of the server itself, too, by which it knows accounts, routines and events.
    """
    broken = {label(item): item for item in facts["tables"] if item.get("broken")}
    tally, rows_damaged = Tally(), False
    for host, node in nodes.items():
        with tally.looking(host):
            for some in batches(local(survey.names(node, survey.CHECKED))):
                said = _said_of(node, some)
                tally.seen += sum(not found.wrong for found in said.values())
                for item in some:
                    name = label(item)
                    found = said.get(name, _SOUND)
                    text = f"{host}: {name}: {listed(found.wrong)}"
                    if not found.wrong:
                        continue
                    if name in broken:
                        tally.unseen.append(_broken(f"{host}: {name}", broken[name]))
                    elif found.ran or survey.why_closed(node, item) in DAMAGED:
                        tally.fail(text)
                        rows_damaged |= not _reads_rows(node, item)
                    else:
                        tally.unseen.append(text)
    expected = "CHECK TABLE EXTENDED finds nothing, on each node"
    if not (tally.wrong or tally.unseen or tally.seen):
        return Check("table-checks", CheckStatus.UNKNOWN, expected, "there is no table to check")
    id = "page-corrupt" if rows_damaged else "index-corrupt"
    right = f"{tally.seen} tables checked, all sound"
    return tally.check("table-checks", expected, right, finding=id)


@dataclass(slots=True)
class _Said:
    """The errors and warnings of CHECK TABLE about a table, and whether it could judge it."""

    wrong: list[str] = field(default_factory=list)
    ran: bool = True


_SOUND = _Said()


def _said_of(node: Mariadb, tables: Sequence[Any]) -> dict[str, _Said]:
    """By table; the last row of each is the judgement: an error, or a status.

    An error that a status follows is why it could not be checked. What only has notes was not.
    """
    said, errors = dict[str, _Said](), set[str]()
    query = f"CHECK TABLE {', '.join(map(place_of, tables))} EXTENDED"
    for table, _, kind, text in node.rows(query, timeout=HOURS):
        match kind.lower():
            case "error" | "warning":
                found = said.setdefault(table, _Said())
                found.wrong.append(text)
                if kind.lower() == "error":
                    errors.add(table)
                    found.ran = True
            case "status":
                said.setdefault(table, _Said()).ran = table not in errors
    return said


def _reads_rows(node: Mariadb, table: Mapping[str, Any]) -> bool:
    """Whether all rows can be read, so that only indexes that can be rebuilt are damaged."""
    try:
        query = f"CHECKSUM TABLE {place_of(table)} EXTENDED"
        return all(found != "NULL" for _, found in node.rows(query, timeout=HOURS))
    except PermanentError:
        return False


def accounts(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """Every user and role of the manifest is there, on each node."""
    tally, last = Tally(), LastLook.of(facts)
    for host, node in nodes.items():
        with tally.looking(host):
            there = set(survey.accounts(node))
            tally.seen += 1
            for name in facts["accounts"]:
                found, text = True if name in there else None, f"{host}: {name} is missing"
                last.compare(tally, "accounts", name, text, found, True)
    right = f"{len(facts['accounts'])} users, roles on {_number(nodes)}"
    return tally.check("logins", "the manifest's users", right, finding="login-missing")


def access(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """On each node an account is let in by what it was at the source, and none is there besides.

    But for those that farside made for itself, which get in by a node's own socket alone.
    """
    tally, last, own = Tally(), LastLook.of(facts), _own(nodes)
    expected = "no account is let in by less than at the source"
    wanted = facts.get("demands")
    if not wanted:
        text = "the source did not show by what its accounts are let in"
        return Check("access", CheckStatus.UNKNOWN, expected, text)
    secure = facts["settings"].get("require_secure_transport") == "ON"
    for host, node in nodes.items():
        with tally.looking(host):
            for name, has in sorted(survey.demands(node).items()):
                tally.seen += 1
                if name not in own:
                    first = wanted.get(name)
                    at_source = "at the source by " + (first or "nothing: it is new")
                    text = f"{host}: {name} is let in by {has}; {at_source}"
                    last.compare(tally, "demands", name, text, has, first)
            if secure and node.value("", "SELECT @@require_secure_transport") != "1":
                tally.fail(
                    f"{host}: connections without TLS are let in; at the source they were not"
                )
    right = f"{tally.seen} accounts on {_number(nodes)}, as at the source"
    return tally.check("access", expected, right, finding="service-more-open")


def privileges(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """On each node every account and role may do what it might at the source, and nothing else."""
    tally, last, own = Tally(), LastLook.of(facts), _own(nodes)
    expected = "every account and role may do what it might at the source"
    wanted = facts.get("privileges")
    if not wanted:
        text = "the source did not show what was granted"
        return Check("privileges", CheckStatus.UNKNOWN, expected, text)
    for host, node in nodes.items():
        with tally.looking(host):
            there = granted.digests(node) or {}
            for name in sorted((wanted.keys() | there.keys()) - own):
                first, found = wanted.get(name), there.get(name)
                tally.seen += 1
                said = "are gone" if found is None else "differ" if first else "are new"
                text = f"{host}: the privileges of {name} {said}"
                last.compare(tally, "privileges", name, text, found, first)
    right = f"of {len(wanted)} on {_number(nodes)}, as at the source"
    return tally.check("privileges", expected, right, finding="incomplete-restore")


def _own(nodes: Nodes) -> set[str]:
    """The accounts that farside made for itself on each node."""
    return {f"{item.user}@localhost" for item in nodes.values()}


def _number(nodes: Nodes) -> str:
    return "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"


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

    wrong = of_each(nodes, of_node)
    expected = "no event scheduler, no replication, no notification, no plugin with its own work"
    right = f"nothing acts by itself on {len(nodes)} nodes"
    return checked("isolation", expected, wrong, right, finding="restored-jobs-fire")


def plugins(nodes: Nodes, facts: Mapping[str, Any]) -> Check:
    """What the source's tables, or who may read them, depend on is loaded on each node."""
    wanted = {item["name"]: item["type"] for item in survey.needed(facts["plugins"])}
    tally, last = Tally(), LastLook.of(facts)
    active = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS = 'ACTIVE'"
    for host, node in nodes.items():
        with tally.looking(host):
            there = {row[0] for row in node.rows(active)}
            tally.seen += 1
            for name, kind in sorted(wanted.items()):
                found, text = kind if name in there else None, f"the plugin {name} is not active"
                last.compare(tally, "plugins", name, f"{host}: {text}", found, kind)
    expected, right = "the source's, as far as its data needs them", f"{len(wanted)} active"
    return tally.check("plugins", expected, right, finding="extension-missing")


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


def of_each(nodes: Nodes, wrong_with: Callable[[Mariadb], Iterable[str]]) -> list[str]:
    """What is wrong with each node.

    One that does not answer is the finding of `synced`; here its error is raised if nothing else
    is wrong, for then it is unknown.
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


def place_of(table: Mapping[str, str]) -> str:
    return f"{identifier(table['schema'])}.{identifier(table['name'])}"


def batches(tables: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (tables[start : start + _AT_ONCE] for start in range(0, len(tables), _AT_ONCE))
