"""What of a source no check looks at, a phrase each."""

from collections import Counter
from collections.abc import Iterator

from blocks.agent.redaction import MASK
from blocks.engines.checks import listed
from blocks.engines.postgres import access, compare
from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.restored import ROWS_NOT_SEARCHED

_OF_STANDBYS = ("indexes of standbys against their tables: compared on the primary",)


def unverified(facts: PostgresFacts, role: str, *, standbys: bool) -> list[str]:
    """What no check looks at; `role` is the application's, `standbys` whether there are any."""
    return [
        *_of_contents(facts),
        *_of_server(facts, role),
        *(_OF_STANDBYS if standbys else ()),
        *_of_others(facts),
        "calls of triggers and functions to anybody but the source",
        "files and programs that functions name: only those in directories of the source",
        ROWS_NOT_SEARCHED,
    ]


def _of_contents(facts: PostgresFacts) -> Iterator[str]:
    methods: Counter[str] = Counter()
    for database in facts.databases:
        for row in database.index_methods:
            methods[row.method] += row.count
    for method, count in methods.items():
        yield f"{count} {method} indexes against their tables: only B-trees are compared"
    if names := compare.asleep(facts):
        yield f"what {', '.join(names)} does: it may start work, so it stays asleep"
    for setting, names in compare.loaded_by_all(facts).items():
        yield (
            f"what {', '.join(names)} does: loaded by the source's {setting}, which does not come"
            " along"
        )
    for database in facts.databases:
        for part, why in database.unread.items():
            yield f"{part} of database {database.name}: not readable at the source ({why})"


def _of_server(facts: PostgresFacts, role: str) -> Iterator[str]:
    for part, why in facts.unread.items():
        yield f"{part}: {why}"
    for row in facts.settings:
        if row.setting == MASK:
            yield f"setting {row.name}: named like a secret, so its value is in no set"
    for database in facts.databases:
        if count := sum(not table.readable for table in database.tables or ()):
            yield (
                f"exact rows of {count} tables of database {database.name}: not readable at the"
                f" source (GRANT pg_read_all_data)"
            )
    yield (
        f"who else than {role} may connect: pg_hba.conf of the source does not"
        " come along, and the restored server lets nobody else in"
    )
    if files := compare.outside(facts):
        yield f"files outside of the source's data directory, which no set holds: {listed(files)}"
    if compare.takes_tls(facts):
        yield "TLS: the source's server offers it, the restored one does not"
    if facts.in_recovery:
        yield "what else the source consists of: a standby does not know"


def _of_others(facts: PostgresFacts) -> Iterator[str]:
    for database in facts.closed_databases:
        why = "a broken-off DROP has left it" if database.invalid else "it takes no connections"
        yield f"database {database.name}: {why}"
    for row in facts.logins or ():
        yield f"logins by {row.method} ({access.place(row)}): restored are those by password"
