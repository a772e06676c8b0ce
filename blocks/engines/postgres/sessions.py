"""The settings with which a session begins, and what its client takes from its environment."""

_SETTINGS = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "client_min_messages": "warning",
    "standard_conforming_strings": "on",
    "escape_string_warning": "off",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    "row_security": "off",
    "constraint_exclusion": "off",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": r"read\ committed",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "local_preload_libraries": "",
    "jit": "off",
}


AMBIENT = (("hostaddr", ""), ("target_session_attrs", "any"), ("channel_binding", "prefer"))
"""Of a connection, what an account's environment or service file would else decide: even where
to."""
_OF_SESSIONS = ("PGOPTIONS", "PGDATESTYLE", "PGTZ", "PGGEQO")
_OF_CONNECTIONS = (
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE"),
    *("PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGTARGETSESSIONATTRS"),
    *("PGLOADBALANCEHOSTS", "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR"),
    *("PGREQUIREAUTH", "PGREQUIREPEER", "PGREQUIRESSL", "PGCHANNELBINDING"),
    *("PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION", "PGOAUTHDEBUG", "PGKRBSRVNAME"),
    *("PGGSSENCMODE", "PGGSSLIB", "PGGSSDELEGATION"),
    *(f"PGSSL{name}" for name in (
        *("MODE", "NEGOTIATION", "COMPRESSION", "SNI", "CERT", "KEY", "CERTMODE", "ROOTCERT"),
        *("CRL", "CRLDIR", "MINPROTOCOLVERSION", "MAXPROTOCOLVERSION"),
    )),
)  # fmt: skip
"""What libpq 18 and all before it take from the environment. Connection strings do not do for
these: each version refuses what only later ones know."""
OF_SITE = ("env", *(f"-u{name}" for name in _OF_SESSIONS))
ALONE = (*OF_SITE, *(f"-u{name}" for name in _OF_CONNECTIONS))
"""What a client or server of a restored service stands behind: what the account demands of the
site's own servers (TLS, Kerberos, a way to log in) is not for one without them."""


def _options(**more: str) -> str:
    return " ".join(f"-c {name}={value}" for name, value in {**_SETTINGS, **more}.items())


LOCK_SECONDS = 60
"""How long a lock of a restored service is waited for: what came along prepared holds its own for
ever, and nothing else that runs there has one for long."""
UNHURRIED = _options(
    statement_timeout="0",
    lock_timeout=f"{LOCK_SECONDS}s",
    session_replication_role="replica",
    zero_damaged_pages="off",
    ignore_checksum_failure="off",
)
"""Options of a superuser's session: its own settings, in force from its start.

They win over those of roles, databases and the server. No object of a user's is found by an
unqualified name, no trigger of a user's fires (an event trigger may forbid all DDL), no damaged
page is passed over, and what a site sets for its applications cuts no long question short.
"""
PATIENT_WITH_PRODUCTION = _options(
    lock_timeout="5s",
    statement_timeout="50s",
    client_connection_check_interval="5s",
    work_mem="4MB",
    max_parallel_workers_per_gather="0",
)
"""The same for the source: never wait in production's queue, and leave no session there when
nobody asks any more."""


def _where_known(name: str, value: str) -> str:
    """A statement that sets what not every version has."""
    return (
        f"SELECT pg_catalog.set_config(name, '{value}', false) FROM pg_catalog.pg_settings"
        f" WHERE name OPERATOR(pg_catalog.=) '{name}' \\g /dev/null\n"
    )


NO_TEMPORARY_LIMIT = (
    "SELECT pg_catalog.set_config('temp_file_limit', '-1', false)"
    " WHERE pg_catalog.has_parameter_privilege('temp_file_limit', 'SET') \\g /dev/null\n"
)
NO_TRANSACTION_TIMEOUT = _where_known("transaction_timeout", "0")
# Else a table's owner could put a view, which runs the owner's functions, in the place of a table
# that an administrator is about to read.
NO_VIEWS = _where_known("restrict_nonsystem_relation_kind", "view, foreign-table")
# Any bytes are text in SQL_ASCII, and the server would refuse to show as UTF-8 what is none. In
# UTF8 the bytes are the same either way; but psql leaves out what is no UTF-8 of a name that came
# from a database of another encoding, and so makes it another name.
AS_STORED = (
    "SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)"
    " WHERE pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) ANY ('{SQL_ASCII,UTF8}')"
    " \\g /dev/null\n"
)
UNHURRIED_LATER = (
    f"SET statement_timeout = 0; SET lock_timeout = '{LOCK_SECONDS}s';\n{NO_TRANSACTION_TIMEOUT}"
)
"""A preamble for an application's long question: all else is as in any session of its own."""
LOGIN_TRIGGERS_SINCE = 17
"""The major version from which on event triggers fire at a login, and can be turned off."""
NO_LOGIN_TRIGGERS = " -c event_triggers=off"
SEEING_DEFAULTS = "SET search_path = pg_catalog, pg_temp; SET ROLE NONE;\n"

NO_EVENT_TRIGGERS = "UPDATE pg_catalog.pg_event_trigger SET evtenabled = 'D';\n"
"""Of a transaction that is rolled back: not even an event trigger that always fires does.

One may forbid all DDL, farside's own as well.
"""

AS_OWNER = """\
CREATE FUNCTION pg_temp.farside_as_owner(owner name, command text,
                                         path text DEFAULT 'pg_catalog, pg_temp') RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $as$
DECLARE answer jsonb;
BEGIN
  EXECUTE format('CREATE FUNCTION pg_temp.farside_owned() RETURNS jsonb LANGUAGE plpgsql'
    ' SECURITY DEFINER SET search_path = %s AS %L', path,
    format('DECLARE answer jsonb; BEGIN EXECUTE %L INTO answer; RETURN answer; END', command));
  EXECUTE format('ALTER FUNCTION pg_temp.farside_owned() OWNER TO %I', owner);
  EXECUTE 'SELECT pg_temp.farside_owned()' INTO answer;
  EXECUTE 'DROP FUNCTION pg_temp.farside_owned()';
  RETURN answer;
END $as$;
"""
"""Defines `pg_temp.farside_as_owner(owner name, command text)`: the jsonb that `command` yields.

`path`, a third argument, is a search_path for `command`, of quoted names.

For code that users wrote, such as index expressions, in an administrator's session. `command` runs
as `owner` in a SECURITY DEFINER function, so that it cannot return to the administrator's role, as
it could after SET ROLE. Use it inside a transaction that is rolled back: what such code leaves for
the commit (deferred triggers, held cursors) would run as the administrator.
"""
