"""The application's own secrets: one value of each is opened, where the service was restored."""

from collections.abc import Iterator

from blocks.engines.engine import Service
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts.process import NOT_RUN
from blocks.plan.model import AppSecret
from tasks.context import Rehearsal

SECONDS = 60.0
_MISSING = "app-secret-missing"


def open_secret(rehearsal: Rehearsal, service: Service, item: AppSecret) -> Check:
    """Whether the secret in the recovery vault opens a value out of the restored data."""
    plan, expected = rehearsal.plan, f"{item.secret} opens a value of {item.database}"
    name = f"secret-{item.name}"
    try:
        value = plan.engine.value(service, plan.recovery, item.database, item.sql)
    except FarsideError as error:  # of the application, or of the server, and told by other checks
        return Check(name, CheckStatus.UNKNOWN, expected, f"could not run: {error.message}")
    try:
        if not value:  # a program may well open nothing, and prove nothing by it
            text = f"the query yields no value in {item.database}: there is nothing to open"
            return Check(name, CheckStatus.FAILED, expected, text, finding=_MISSING)
        secret = plan.recovery.secret(item.secret)
        rehearsal.findings.add(*_named(rehearsal, item.secret, secret.get_secret_value()))
        done = plan.recovery.host(service.host).run(
            item.open_argv,
            input=value.encode(),
            password=secret,
            timeout=SECONDS,
            check=False,
        )
    except FarsideError as error:
        if error.finding is not None:  # the secret itself is missing, or its vault is locked
            return Check(name, CheckStatus.FAILED, expected, error.message, finding=_MISSING)
        return Check(name, CheckStatus.UNKNOWN, expected, f"could not run: {error.message}")
    if done.exit_code in NOT_RUN:
        text = f"could not run: {item.open_argv[0]} is not on {service.host}"
        return Check(name, CheckStatus.UNKNOWN, expected, text)
    if done.exit_code != 0:
        # What it printed is not told: it may hold a part of the secret.
        text = f"{item.open_argv[0]} ended with exit code {done.exit_code}"
        return Check(name, CheckStatus.FAILED, expected, text, finding=_MISSING)
    return Check(name, CheckStatus.PASSED, expected, "it was opened")


def _named(rehearsal: Rehearsal, name: str, value: str) -> Iterator[Finding]:
    """What of the source a secret names, as the URL of a key that is only there."""
    foreign = rehearsal.source.belongings
    for _, mention in foreign.lines(value):
        id = "path-hard-coded" if mention in foreign.paths else "address-hard-coded"
        yield finding(id, f"secret {name}", f"its value names {mention}", "verify")
