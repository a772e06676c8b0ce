"""Whether the application can log in and write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from blocks.engines.checks import Answer, CheckSpec, judged, listed, unknown
from blocks.engines.postgres.probe import write_probe
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, Psql, SqlError
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId


@dataclass(frozen=True, slots=True)
class InTheWay:
    """What keeps an application from its databases, whatever its server says."""

    lacking: Sequence[str] = ()
    """Libraries that its sessions are made to load, and that are not on this host."""
    refused: str = ""
    """Why the source itself refuses it: then the result is unknown."""


def login(
    application: Psql, databases: Sequence[str], look: Callable[[], InTheWay] = InTheWay
) -> CheckSpec:
    """The application's own role gets into its databases, with the recovery vault's password.

    `look` may ask the host.
    """
    expected = f"{application.role} logs in to {listed(databases)}"
    run = partial(_login, application, databases, look)
    return CheckSpec("login", expected, run, FindingId.LOGIN_MISSING)


def _login(application: Psql, databases: Sequence[str], look: Callable[[], InTheWay]) -> Answer:
    wrong, known, role = list[str](), look(), application.role
    for database in databases:
        try:
            found = application.value(database, "SELECT session_user::text")
            if found != role:
                wrong.append(f"{database}: it is {found} there")
        except LoginRefused as error:
            if known.refused:
                return unknown(f"the source does not let it in either ({known.refused})")
            wrong.append(error.message)
    right = f"{role} logged in to {listed(databases)}"
    broken = FindingId.LIBRARY_PRELOADED if known.lacking else ""
    return replace(judged(wrong, right, subjects=tuple(known.lacking)), finding=broken)


def committed_write(control: Psql, rehearsal_id: str) -> CheckSpec:
    """A row is committed, read back in another session, and removed again."""
    return CheckSpec(
        "committed-write",
        "a committed row is read back in another session",
        partial(_committed_write, control, rehearsal_id),
        FindingId.USABLE_NOT_RESTORED,
    )


def _committed_write(control: Psql, rehearsal_id: str) -> Answer:
    write, read, undo = write_probe(rehearsal_id)
    control.script(CLUSTER, write)
    try:
        found = control.value(CLUSTER, read)
    finally:
        control.script(CLUSTER, undo)
    said = f"read back {found!r}"
    return judged([] if found == rehearsal_id else [said], said)


_READ_ONLY = "25006"
"""SQLSTATE of a write in a transaction that may only read."""
_LACKING = "42501"
"""SQLSTATE of what a role may not do."""


def application_write(
    application: Psql,
    database: str,
    statement: str,
    read_only: str | None = None,
    same_grants: Callable[[], bool] = lambda: False,
) -> CheckSpec:
    """The application's own write, as its own role, committed.

    `read_only` is the setting by which the source itself lets such sessions only read, if any.
    Whether the grants are the source's tells `same_grants`: then it lacks the same ones.
    """
    write = _Write(application, database, statement)
    return CheckSpec(
        "application-write",
        f"{application.role} commits a write in {database}",
        partial(_application_write, write, read_only, same_grants),
        FindingId.USABLE_NOT_RESTORED,
    )


# A statement that writes nothing is given no transaction id.
_DONE = "\nSELECT coalesce(pg_current_xact_id_if_assigned()::text, 'none');\n"


@dataclass(frozen=True, slots=True)
class _Write:
    """A statement that the application commits in a database."""

    application: Psql
    database: str
    statement: str

    def commit(self) -> Answer:
        """Failed unless a transaction is committed that wrote something. Raises as Psql.script."""
        script = f"BEGIN;\n{self.statement.strip().rstrip(';')};{_DONE}COMMIT;"
        transaction = self.application.script(self.database, script).strip().splitlines()[-1]
        if transaction == "none":
            return judged(["the plan's statement wrote nothing"], "")
        ask = f"SELECT pg_xact_status('{transaction}')"
        state = self.application.value(self.database, ask)
        right = f"transaction {transaction} is {state}"
        return judged([] if state == "committed" else [right], right)


def _application_write(
    write: _Write, read_only: str | None, same_grants: Callable[[], bool]
) -> Answer:
    try:
        return write.commit()
    except LoginRefused:
        return unknown("the application cannot log in")
    except PermanentError as error:
        if read_only and isinstance(error, SqlError) and error.sqlstate == _READ_ONLY:
            return unknown(f"the source refuses it as well ({read_only})")
        if isinstance(error, SqlError) and error.sqlstate == _LACKING and same_grants():
            return unknown(f"the source's own grants do not allow it ({error.message})")
        return judged([error.message], "")
