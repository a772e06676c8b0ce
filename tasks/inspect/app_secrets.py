"""The application's own secrets: one value of each is opened, where the service was restored."""

from collections.abc import Iterator
from functools import partial

from blocks.engines.checks import Answer, CheckSpec, passed, unknown
from blocks.engines.restored import Restored
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import CheckStatus
from blocks.evidence.stages import StageName
from blocks.hosts.process import NOT_RUN
from blocks.plan.model import AppSecret
from tasks.context import Rehearsal

SECONDS = 60.0


def opens(rehearsal: Rehearsal, service: Restored, item: AppSecret) -> CheckSpec:
    """Whether the secret in the recovery vault opens a value out of the restored data."""
    return CheckSpec(
        f"secret-{item.name}",
        f"{item.secret} opens a value of {item.database}",
        partial(_opened, rehearsal, service, item),
        finding=FindingId.APP_SECRET_MISSING,
    )


def _opened(rehearsal: Rehearsal, service: Restored, item: AppSecret) -> Answer:
    recovery = rehearsal.plan.recovery
    # What it raises is of the application, or of the server, and told by other checks.
    value = service.query(item.database, item.sql)
    try:
        if not value:  # a program may well open nothing, and prove nothing by it
            text = f"the query yields no value in {item.database}: there is nothing to open"
            return _failed(text)
        secret = recovery.secret(item.secret)
        rehearsal.findings.add(*_named(rehearsal, item.secret, secret.get_secret_value()))
        done = recovery.host(service.host).run(
            item.open_argv,
            input=value.encode(),
            password=secret,
            timeout=SECONDS,
            check=False,
        )
    except FarsideError as error:
        if error.finding is not None:  # the secret itself is missing, or its vault is locked
            return _failed(error.message)
        raise
    if done.exit_code in NOT_RUN:
        return unknown(f"{item.open_argv[0]} is not on {service.host}")
    if done.exit_code != 0:
        # What it printed is not told: it may hold a part of the secret.
        text = f"{item.open_argv[0]} ended with exit code {done.exit_code}"
        return _failed(text)
    return passed("it was opened")


def _failed(text: str) -> Answer:
    return Answer(CheckStatus.FAILED, text)


def _named(rehearsal: Rehearsal, name: str, value: str) -> Iterator[Finding]:
    """What of the source a secret names, as the URL of a key that is only there."""
    foreign = rehearsal.source.belongings
    for _, mention in foreign.lines(value):
        finding_id = (
            FindingId.PATH_HARD_CODED if mention in foreign.paths else FindingId.ADDRESS_HARD_CODED
        )
        yield finding(finding_id, f"secret {name}", f"its value names {mention}", StageName.VERIFY)
