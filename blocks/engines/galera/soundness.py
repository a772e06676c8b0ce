"""Whether every page and index of every table is sound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from blocks.engines.checks import Answer, CheckSpec, listed
from blocks.engines.galera import survey
from blocks.engines.galera.facts import GaleraFacts, TableName, local
from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.galera.nodes import HOURS, Nodes, batches
from blocks.engines.galera.tally import DAMAGED, Tally, unopened
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import CheckStatus


def table_checks(nodes: Nodes, facts: GaleraFacts) -> CheckSpec:
    """Every page and index of every table is sound, on each node: each has its own copy.

    Those of the server itself, too, by which it knows accounts, routines and events.
    """

    def run() -> Answer:
        broken = {item.label: item.broken for item in facts.tables if item.broken}
        tally, is_damaged = Tally(), False
        for host, node in nodes.items():
            with tally.looking(host):
                for some in batches(local(survey.names(node, survey.CHECKED))):
                    is_damaged |= _check(tally, host, node, some, broken)
        if not (tally.wrong or tally.unseen or tally.seen):
            return Answer(CheckStatus.UNKNOWN, "there is no table to check")
        found = tally.answer(f"{tally.seen} tables checked, all sound")
        return replace(found, finding=FindingId.PAGE_CORRUPT) if is_damaged else found

    expected = "CHECK TABLE EXTENDED finds nothing, on each node"
    return CheckSpec("table-checks", expected, run, finding=FindingId.INDEX_CORRUPT, grows=True)


def _check(
    tally: Tally,
    host: str,
    node: Mariadb,
    tables: Sequence[TableName],
    broken: Mapping[str, int],
) -> bool:
    """Check some tables of a node; whether rows of one cannot be read.

    `broken` are those that the source could not open, with the number of its error.
    """
    said, is_damaged = _said_of(node, tables), False
    tally.seen += sum(not found.wrong for found in said.values())
    for item in tables:
        name = item.label
        found = said.get(name, _SOUND)
        if not found.wrong:
            continue
        text = f"{host}: {name}: {listed(found.wrong)}"
        if name in broken:
            tally.unseen.append(unopened(f"{host}: {name}", broken[name]))
        elif found.ran or survey.why_closed(node, item) in DAMAGED:
            tally.fail(text)
            is_damaged |= not _reads_rows(node, item)
        else:
            tally.unseen.append(text)
    return is_damaged


@dataclass(slots=True)
class _Said:
    """The errors and warnings of CHECK TABLE about a table, and whether it could judge it."""

    wrong: list[str] = field(default_factory=list)
    ran: bool = True


_SOUND = _Said()


def _said_of(node: Mariadb, tables: Sequence[TableName]) -> dict[str, _Said]:
    """By table; the last row of each is the judgement: an error, or a status.

    An error that a status follows is why it could not be checked. What only has notes was not.
    """
    said, errors = dict[str, _Said](), set[str]()
    query = f"CHECK TABLE {', '.join(item.place for item in tables)} EXTENDED"
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


def _reads_rows(node: Mariadb, table: TableName) -> bool:
    """Whether all rows can be read, so that only indexes that can be rebuilt are damaged."""
    try:
        query = f"CHECKSUM TABLE {table.place} EXTENDED"
        return all(found != "NULL" for _, found in node.rows(query, timeout=HOURS))
    except PermanentError:
        return False
