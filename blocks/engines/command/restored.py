"""A system that its plan's commands have restored."""

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from pydantic import SecretStr
from typing_extensions import override

from blocks.agent.protocol.jobs import FactsJob
from blocks.engines.checks import (
    Answer,
    CheckSpec,
    SqlQuestion,
    Ticks,
    answered,
    asked_twice,
    compared,
    judged,
)
from blocks.engines.command.facts import own
from blocks.engines.command.plan import TargetSystem
from blocks.engines.command.running import (
    TargetCommands,
    lets_in,
    moment,
    password_of,
    refused,
    told,
)
from blocks.engines.common.capping import capped
from blocks.engines.common.ticks import ticks_of
from blocks.engines.restoration import Restoration
from blocks.engines.restored import References, Restored
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import finding
from blocks.evidence.record import CheckStatus, Node
from blocks.hosts.host import Host
from blocks.hosts.process import CommandFailed
from blocks.ownership import Belongings
from blocks.remote.jobs import bears_stamp, facts_of

ACCESS = "no client is let in that the source refuses"


class RestoredSystem(Restored):
    """One service on one host; the plan's commands ask it and stop it."""

    def __init__(self, using: Restoration, target: TargetSystem, system: str) -> None:
        super().__init__(
            using,
            nodes=(Node(target.host, system, target.address, target.port),),
            host=target.host,
            reach=f"{system} at {target.address}:{target.port}",
        )
        self._target = target
        self._system = system
        host = using.host(target.host)
        self._commands = TargetCommands(target, using.recovery, using.work(host))

    @override
    def usable(self, questions: Sequence[SqlQuestion]) -> Iterator[CheckSpec]:
        password = password_of(self.using.recovery, self._target.password)
        for spec in self._asked(questions):
            yield silenced(spec, password)

    def _asked(self, questions: Sequence[SqlQuestion]) -> Iterator[CheckSpec]:
        for item in self._target.verify:
            run = partial(self._commands.run, item.argv)
            yield CheckSpec(item.name, item.expected, partial(answer_of, item.expected, run))
        for question in questions:
            query = partial(self.query, question.database, question.sql)
            ask = partial(answer_to, question.expected, query)
            yield CheckSpec(question.name, question.expected, ask)
        if self._target.anonymous_argv is not None:
            argv = self._commands.filled(self._target.anonymous_argv)
            source_open = own(self.using.facts).open
            ask = partial(access, self._commands.host, argv, source_open=source_open)
            yield CheckSpec("access", ACCESS, ask, finding=FindingId.SERVICE_MORE_OPEN)

    @override
    def integrity(self) -> Iterator[CheckSpec]:
        yield from ()  # what the plan's commands prove, they prove before users come

    @override
    def query(self, database: str, query: str) -> str:
        if self._target.value_argv is None:
            raise PermanentError(
                "the plan gives no value_argv, by which a query could be asked",
                operation="verify",
                hint="give engine.target.value_argv, or ask in engine.target.verify",
            )
        found = self._commands.run([*self._target.value_argv, query])
        if not found:
            raise PermanentError(
                "value_argv prints nothing, where one value is expected",
                operation="verify",
                hint="have it print a word for an answer that is empty",
            )
        return found

    @override
    def references(self, foreign: Belongings) -> References:
        host = self._commands.host
        everything = f"{glob.escape(self._target.directory)}/**"
        job = FactsJob(files=(everything,), foreign=foreign)
        searched = facts_of(host, self.using.rehearsal_id, job)
        named = [
            finding(
                FindingId.ADDRESS_HARD_CODED,
                f"{host.name} {item.path}, line {item.line}",
                f"it names {item.text}",
            )
            for item in searched.mentions
        ]
        return References(
            tuple(capped(named, {FindingId.ADDRESS_HARD_CODED: searched.more_mentions}))
        )

    @property
    @override
    def not_verified(self) -> list[str]:
        asks = self._target.anonymous_argv is not None and own(self.using.facts).open is not None
        access = "whether it asks its clients for as much as the source: no anonymous_argv"
        return [
            *([] if asks else [access]),
            f"anything of {self._system} that the plan's own commands do not ask",
            "addresses of the source in files that cannot be read, and behind the first MiB of any",
        ]

    @override
    def newest_transaction(self) -> datetime | None:
        if self._target.recovered_until_argv is None:
            return None
        said = self._commands.run(self._target.recovered_until_argv)
        try:
            return moment(said)
        except (ValueError, OverflowError, OSError):
            raise self._no_time("recovered_until_argv", said, "a time") from None

    @override
    def heartbeat(self, database: str, table: str) -> Ticks:
        if self._target.ticks_argv is None:
            raise PermanentError("the plan gives no ticks_argv", operation="verify")
        rows: dict[int, datetime] = {}
        for line in self._commands.run(self._target.ticks_argv).splitlines():
            number, _, at = line.partition("\t")
            try:
                rows[int(number)] = moment(at)
            except (ValueError, OverflowError, OSError):
                raise self._no_time("ticks_argv", line, "an id, a tab and a time") from None
        return ticks_of(rows, rows.__getitem__)

    def _no_time(self, name: str, said: str, wanted: str) -> PermanentError:
        shown = told(said, password_of(self.using.recovery, self._target.password))[:80]
        return PermanentError(
            f"{name} prints {shown!r}, where {wanted} is expected",
            operation="verify",
            hint="print times as ISO 8601, or in seconds",
        )

    @override
    def stop(self) -> None:
        # It may have been swept meanwhile: then another's service may be there.
        if bears_stamp(self._commands.host, self._target.directory, self.using.rehearsal_id):
            self._commands.run(self._target.destroy_argv, 120)


def silenced(spec: CheckSpec, password: SecretStr | None) -> CheckSpec:
    """A check of which nothing shows the password."""

    def run() -> Answer:
        found = answered(spec.run)
        return replace(
            found,
            actual=found.actual and told(found.actual, password),
            detail=found.detail and told(found.detail, password),
        )

    return replace(spec, expected=told(spec.expected, password), run=run)


def access(host: Host, argv: Sequence[str], *, source_open: bool | None) -> Answer:
    """A client without any credential is let in only where the source lets it in, too."""
    is_open = lets_in(host, argv)
    if source_open is None and is_open:
        text = "a client without credentials is let in; whether the source does so is not known"
        return Answer(CheckStatus.UNKNOWN, text)
    wrong = ["a client without credentials is let in"] if is_open and not source_open else []
    return judged(wrong, f"such a client is {'let in, as at the source' if is_open else 'refused'}")


def answer_of(expected: str, run: Callable[[], str]) -> Answer:
    """A verifying command's; one that ends with an exit code of its own has answered: with no."""
    try:
        return compared(run(), expected.strip())
    except CommandFailed as error:
        return Answer(CheckStatus.FAILED, refused(error))


def answer_to(expected: str, ask: Callable[[], str | None]) -> Answer:
    """The answer to a question of the plan; an exit code of its own is one as well: no."""
    try:
        return asked_twice(expected, ask)
    except CommandFailed as error:
        return Answer(CheckStatus.FAILED, refused(error))
