"""Whether the application can log in and write."""

from collections.abc import Callable, Sequence

from blocks.engines.checks import listed
from blocks.engines.legacy import checked
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, Psql, SqlError
from blocks.engines.postgres.survey import write_probe
from blocks.errors import PermanentError
from blocks.evidence.record import Check, CheckStatus


def login(
    application: Psql, databases: Sequence[str], lacking: Sequence[str] = (), refused: str = ""
) -> Check:
    """The application's own role gets into its databases, with the recovery vault's password.

    `lacking` are libraries that such sessions are made to load, and that are not on this host:
    they are why the role is refused, whatever the server says. `refused` is why the source itself
    refuses it: then the result is unknown.
    """
    wrong = []
    expected = f"{application.role} logs in to {listed(databases)}"
    for database in databases:
        try:
            found = application.value(database, "SELECT session_user::text")
            if found != application.role:
                wrong.append(f"{database}: it is {found} there")
        except LoginRefused as error:
            if refused:
                actual = f"could not run: the source does not let it in either ({refused})"
                return Check("login", CheckStatus.UNKNOWN, expected, actual)
            wrong.append(error.message)
    broken = "library-preloaded" if lacking else "login-missing"
    role, places = application.role, listed(databases)
    return checked(
        "login",
        expected,
        wrong,
        f"{role} logged in to {places}",
        finding=broken,
        subjects=tuple(lacking),
    )


def committed_write(control: Psql, rehearsal_id: str) -> Check:
    """A row is committed, read back in another session, and removed again."""
    write, read, undo = write_probe(rehearsal_id)
    control.script(CLUSTER, write)
    found = control.value(CLUSTER, read)
    control.script(CLUSTER, undo)
    return checked(
        "committed-write",
        "a committed row is read back in another session",
        [] if found == rehearsal_id else [f"read back {found!r}"],
        f"read back {found!r}",
        finding="usable-not-restored",
    )


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
) -> Check:
    """The application's own write, as its own role, committed.

    `read_only` is the setting by which the source itself lets such sessions only read, if any.
    Whether the grants are the source's tells `same_grants`: then it lacks the same ones.
    """
    expected = f"{application.role} commits a write in {database}"
    # A statement that writes nothing is given no transaction id.
    script = (
        f"BEGIN;\n{statement.strip().rstrip(';')};\n"
        "SELECT coalesce(pg_current_xact_id_if_assigned()::text, 'none');\nCOMMIT;"
    )
    wrong, right = list[str](), ""
    try:
        transaction = application.script(database, script).strip().splitlines()[-1]
        if transaction == "none":
            wrong.append("the plan's statement wrote nothing")
        else:
            state = application.value(database, f"SELECT pg_xact_status('{transaction}')")
            right = f"transaction {transaction} is {state}"
            if state != "committed":
                wrong.append(right)
    except LoginRefused:
        actual = "could not run: the application cannot log in"
        return Check("application-write", CheckStatus.UNKNOWN, expected, actual)
    except PermanentError as error:
        if read_only and isinstance(error, SqlError) and error.sqlstate == _READ_ONLY:
            actual = f"could not run: the source refuses it as well ({read_only})"
            return Check("application-write", CheckStatus.UNKNOWN, expected, actual)
        if isinstance(error, SqlError) and error.sqlstate == _LACKING and same_grants():
            actual = f"could not run: the source's own grants do not allow it ({error.message})"
            return Check("application-write", CheckStatus.UNKNOWN, expected, actual)
        wrong.append(error.message)
    return checked("application-write", expected, wrong, right, finding="usable-not-restored")
