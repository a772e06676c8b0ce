"""What the role that looks at a source may see: what it must, and what it can do without.

docs/plan.md documents a role that is no superuser. What only few roles may see is None in the facts
of a source, and `unread` names the statement that would show it.
"""

from typing import Any

from blocks.agent.redaction import redacted_command
from blocks.engines.postgres import access
from blocks.engines.postgres.psql import CLUSTER, Psql, identifier
from blocks.errors import PermanentError

_LACKING = """
SELECT statement
FROM (VALUES
  (pg_has_role('pg_read_all_settings', 'USAGE') AND pg_has_role('pg_read_all_stats', 'USAGE'),
   format('GRANT pg_monitor TO %I', current_user)),
  ((SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user),
   format('ALTER ROLE %I REPLICATION', current_user))
) AS needed(there, statement) WHERE NOT there
"""

# Lines of pg_hba.conf that depend on an outside service, or name a role or an address.
_LOGINS = f"""
SELECT {access.FILE} AS file, line_number AS line, auth_method AS method, options
FROM pg_hba_file_rules r
WHERE auth_method NOT IN ('trust', 'reject', 'md5', 'scram-sha-256', 'password', 'peer', 'ident')
ORDER BY 1, 2
"""

# pg_settings hides the names that no loaded library knows; an application may rely on them.
_UNKNOWN_SETTINGS = """
SELECT f.name, f.setting, 'Customized Options' AS category, 'user' AS context,
       'configuration file' AS source, sourcefile, sourceline
FROM pg_file_settings f
WHERE f.applied AND f.name LIKE '%.%'
  AND NOT EXISTS (SELECT 1 FROM pg_settings s WHERE s.name = f.name)
ORDER BY 1
"""

_PASSWORDS = """
SELECT rolname AS name,
       CASE WHEN rolpassword IS NULL THEN 'none' WHEN rolpassword LIKE 'SCRAM-SHA-256$%'
            THEN 'scram-sha-256' ELSE 'md5' END AS password
FROM pg_authid
"""

_READ_ALL = "GRANT pg_read_all_data TO {0}"
_RULES = (
    "GRANT SELECT ON pg_hba_file_rules TO {0}; GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO {0}"
)
_OF_FEW = {
    "logins": (_LOGINS, _RULES),
    "access": (access.RULES, _RULES),
    "unknown_settings": (
        _UNKNOWN_SETTINGS,
        "GRANT SELECT ON pg_file_settings TO {0};"
        " GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {0}",
    ),
    "passwords": (_PASSWORDS, _READ_ALL),
}
"""Part -> what asks for it, and what lets a role see it."""
_REFUSED = "SQLSTATE 42501"
_NAMES = {
    "logins": "methods of login in pg_hba.conf",
    "access": "who may connect by pg_hba.conf",
    "unknown_settings": "settings of libraries that are not loaded",
    "passwords": "how the passwords of roles are stored",
}


class Lacking(PermanentError):
    """The role that looks at the source may not see what a backup depends on."""


def require(psql: Psql) -> None:
    """Raise Lacking unless the role may see settings and statistics, and have a slot."""
    needed = [str(row["statement"]) for row in psql.rows(CLUSTER, _LACKING)]
    if needed:
        raise Lacking(
            f"role {psql.role} has too few rights at the source",
            operation="survey",
            domain=psql.host.domain,
            host=psql.host.name,
            hint=f"as a superuser there: {'; '.join(needed)}; docs/plan.md has all of it",
        )


def add_what_few_may_see(psql: Psql, facts: dict[str, Any]) -> None:
    """Add logins, access rules, further settings and kinds of passwords to a server's facts."""
    found, failed = psql.parts(CLUSTER, {part: ask for part, (ask, _) in _OF_FEW.items()})
    for row in found.get("logins", ()):
        row["options"] = redacted_command(row["options"] or ())
    facts["logins"], facts["access"] = found.get("logins"), found.get("access")
    facts["settings"] += found.get("unknown_settings", ())
    kinds = {row["name"]: row["password"] for row in found.get("passwords", ())}
    for role in facts["roles"]:
        role["password"] = kinds.get(role["name"], "unknown")
    facts["unread"] = {
        _NAMES[part]: _why(state, _OF_FEW[part][1], psql.role) for part, state in failed.items()
    }


def to_connect(psql: Psql, database: str) -> str:
    """Why nothing of a database is seen to which the role may not connect."""
    return _may_not(
        psql.role, f"GRANT CONNECT ON DATABASE {identifier(database)} TO {identifier(psql.role)}"
    )


def _why(state: str, grant: str, role: str) -> str:
    return _may_not(role, grant.format(identifier(role))) if state == _REFUSED else state


def _may_not(role: str, grant: str) -> str:
    return f"role {role} may not see it: {grant}"
