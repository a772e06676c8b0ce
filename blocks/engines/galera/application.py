"""Whether the application gets in, and what is written commits."""

from collections.abc import Callable
from contextlib import suppress

from blocks.engines.checks import Answer, CheckSpec, judged, unknown
from blocks.engines.galera.mariadb import LoginRefused, Mariadb, NotAllowed, identifier
from blocks.engines.galera.nodes import Nodes
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.catalogue import FindingId


def login(application: Callable[[], Mariadb], user: str, database: str) -> CheckSpec:
    """The application's own user connects to the first node, and trusts it."""

    def run() -> Answer:
        wrong, right, asked = list[str](), "", "SELECT CONCAT(CURRENT_USER(), ' in ', DATABASE())"
        try:
            right = application().value(database, asked)
        except LoginRefused as error:
            wrong.append(error.message)
        return judged(wrong, right)

    return CheckSpec(
        "login", f"{user} connects to {database}", run, finding=FindingId.LOGIN_MISSING
    )


def application_write(
    application: Callable[[], Mariadb], user: str, database: str, statement: str
) -> CheckSpec:
    """The application's own write, as its own user, committed."""

    def run() -> Answer:
        script = f"BEGIN;\n{statement.strip().rstrip(';')};\nSELECT ROW_COUNT();\nCOMMIT;"
        wrong, changed = list[str](), 0
        try:
            changed = int(application().script(database, script).split()[-1])
            if changed < 1:
                wrong.append("the plan's statement wrote nothing")
        except NotAllowed as error:
            wrong.append(error.message)
        except LoginRefused as error:
            return unknown(error.message)
        except PermanentError as error:
            wrong.append(error.message)
        return judged(wrong, f"{changed} rows written")

    expected = f"{user} commits a write in {database}"
    return CheckSpec("application-write", expected, run, finding=FindingId.USABLE_NOT_RESTORED)


def committed_write(nodes: Nodes, rehearsal_id: str) -> CheckSpec:
    """What is committed at any node is read at every other, then removed."""

    def run() -> Answer:
        wrong = list[str]()
        first = next(iter(nodes.values()))
        database = identifier(f"farside-{rehearsal_id}")
        table = f"{database}.probe"
        made = f"CREATE OR REPLACE TABLE {table} (at VARCHAR(200) PRIMARY KEY);"
        first.script("", f"CREATE DATABASE IF NOT EXISTS {database}; {made}")
        synced = "SET SESSION wsrep_sync_wait = 1;"
        try:
            for host, node in nodes.items():
                try:
                    node.script("", f"{synced} INSERT INTO {table} VALUES ('{host}');")
                except PermanentError as error:
                    wrong.append(f"{host}: {error.message}")
            for host, node in nodes.items():
                found = node.script("", f"{synced} SELECT at FROM {table} ORDER BY at;").split()
                wrong += [f"{host} does not see what {by} wrote" for by in nodes if by not in found]
        finally:
            first.script("", f"DROP DATABASE {database};")
        # Until it is gone from each: their definitions are compared later.
        for node in nodes.values():
            with suppress(FarsideError):
                node.script("", f"{synced} SELECT 1;")
        return judged(wrong, f"{len(nodes)} rows, read at {len(nodes)} nodes")

    expected = "a row committed at each node is read at all"
    return CheckSpec("committed-write", expected, run, finding=FindingId.USABLE_NOT_RESTORED)
