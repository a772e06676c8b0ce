"""From errors to findings."""

import pytest

from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.engines.registry import catalogue
from blocks.errors import FarsideError
from blocks.evidence.catalogue import Severity
from blocks.hosts.local import LocalHost
from blocks.repositories.farside.listing import NoSuchSet
from tasks.inspect.diagnose import diagnose


def test_what_ends_a_stage_is_critical_even_if_its_like_is_less_elsewhere() -> None:
    (item,) = diagnose(NoSuchSet("none retained", domain="west"), "preflight", "east")
    assert catalogue()[item.id].severity is Severity.HIGH
    assert (item.id, item.subject, item.severity) == ("copy-behind", "west", Severity.CRITICAL)


def refused(domain: str) -> list[FarsideError]:
    """How each client of a database says that a domain's server does not let its role in."""
    host = LocalHost(name="db1", address="127.0.0.1")
    host.join(domain)
    psql = Psql(host, "/nowhere", "127.0.0.1", 5432, "postgres", options=PATIENT_WITH_PRODUCTION)
    mariadb = Mariadb(host, "/nowhere", "root", address="127.0.0.1", port=3306)
    said = 'FATAL:  password authentication failed for user "postgres"'
    return [
        _login_refused(psql, said),
        mariadb._error("ERROR 1045 (28000): Access denied for user 'root'@'localhost'"),
    ]


def _login_refused(psql: Psql, said: str) -> FarsideError:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Psql, "_accepts", lambda *_: True)
        return psql._error("postgres", 2, said)


def test_a_source_that_refuses_its_own_administrator_is_a_failed_backup() -> None:
    """And no fault of what was backed up, as it is in west."""
    for error in refused("east"):
        (item,) = diagnose(error, "preflight", "east")
        assert (item.id, item.subject) == ("backup-failed", "east/db1")
    for error in refused("west"):
        (item,) = diagnose(error, "verify", "east")
        assert (item.id, item.subject) == ("login-missing", "west/db1")
