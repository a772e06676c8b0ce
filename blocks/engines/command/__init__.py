"""Any other system: a plan gives the commands that back it up, restore it, and ask it.

Around them everything is as for the databases that farside knows: backups are streamed, sealed,
signed, carried across and opened on the recovery host with that domain's own key; the source is
cut off; every step is timed, every use noted; what was made is removed.

In a command's words, `{backup}`, `{directory}`, `{address}`, `{port}` and `{work}` stand for the
opened backup, the service's directory, where it is to listen, and a directory of the rehearsal's.
A command with a password reads it as the first line of its standard input.
"""

import glob
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from blocks.agent.protocol.jobs import FactsJob
from blocks.agent.protocol.parts import FileTarget, OpenItem, Source
from blocks.agent.redaction import without
from blocks.artifact.manifest import LogIndex, Manifest
from blocks.domain import FailureDomain
from blocks.engines.checks import SqlQuestion, Ticks, asked, checked, guarded
from blocks.engines.command.plan import HOURS, Question, SourceSystem, TargetSystem
from blocks.engines.common.capping import capped
from blocks.engines.engine import Captured, Engine, Facts, Requirements, Restoration, Service, Steps
from blocks.errors import PermanentError
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Check, CheckStatus, Node, RunbookStep, SourceNode
from blocks.hosts.host import Host
from blocks.hosts.process import NOT_RUN, CommandFailed
from blocks.ownership import Belongings
from blocks.remote.jobs import bears_stamp, facts_of, note_process
from blocks.repositories.farside.reader import fetch_commands
from blocks.repositories.farside.writer import SetWriter
from blocks.stores.s3 import S3Store

OBJECT = "backup.zst.age"
"""The one object of a set."""
ACCESS = "no client is let in that the source refuses"


class Command(Engine):
    """A system that its plan describes by commands."""

    _block_type_name = "farside command engine"
    _block_type_slug = "farside-command"

    label: ClassVar[str] = "command"
    without_rows: ClassVar[str] = "farside knows no rows of a service that commands restore"

    kind: Literal["command"] = "command"
    system: str = Field(description="What records call it, as in redis")
    source: SourceSystem
    target: TargetSystem

    # -- what the plan says -------------------------------------------------------------------

    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        """See Engine."""
        return (("source.host", self.source.host),)

    def source_endpoints(self, source: FailureDomain) -> list[tuple[str, int]]:  # noqa: ARG002 (the plan has them)
        """See Engine."""
        return [(self.source.address, self.source.port)]

    def predicted_nodes(self, recovery: FailureDomain) -> tuple[Node, ...]:  # noqa: ARG002 (the plan has them)
        """See Engine."""
        return (Node(self.target.host, self.system, self.target.address, self.target.port),)

    def passwords(self) -> tuple[str, ...]:
        """See Engine."""
        return (self.target.password,) if self.target.password else ()

    # -- the source ---------------------------------------------------------------------------

    def survey(self, source: FailureDomain) -> Facts:
        """See Engine."""
        host = source.host(self.source.host)
        password = _password(source, self.source.password)
        said = host.run(self.source.bytes_argv, password=password).text.strip()
        if not said.isdecimal():
            raise PermanentError(
                f"bytes_argv prints {_told(said, password)[:80]!r}, which is no number",
                operation="survey",
                domain=source.name,
                host=host.name,
            )
        version = host.run(self.source.version_argv).text.strip()
        if not _is_line(version):
            raise PermanentError(
                f"version_argv prints {version[:80]!r}, which is no line of text",
                operation="survey",
                domain=source.name,
                host=host.name,
            )
        anonymous = self.source.anonymous_argv
        node = SourceNode(self.source.host, self.system, self.source.address, self.source.port)
        return {
            "system": self.system,
            "version": version,
            "bytes": int(said),
            "nodes": [asdict(node)],
            "open": None if anonymous is None else _lets(host, anonymous),
        }

    def check_facts(self, facts: Facts) -> None:
        """See Engine."""
        if not _is_line(facts["version"]) or not isinstance(facts["bytes"], int):
            raise PermanentError(
                f"the facts of the source are no version and size: {str(facts['version'])[:80]!r}",
                operation="facts of the source",
                hint="find out who changed what the source says of itself",
            )

    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """See Engine."""
        host, taken_at = source.host(self.source.host), datetime.now(UTC)
        secret = SecretStr("")
        if self.source.password:
            secret = source.secret(self.source.password)
        with steps.step("capture") as step:
            sources = [Source(name=OBJECT, kind="stdout")]
            step.bytes = sink.seal(host, self.source.capture_argv, secret=secret, sources=sources)
        return Captured(taken_at, datetime.now(UTC), dict(facts))

    def withdraw(self, source: FailureDomain, rehearsal_id: str) -> list[str]:  # noqa: ARG002 (nothing to remove)
        """See Engine: a capture's command leaves nothing."""
        return []

    def remains(self, source: FailureDomain) -> list[str]:  # noqa: ARG002 (nothing can)
        """See Engine."""
        return []

    # -- requirements -------------------------------------------------------------------------

    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """See Engine. The backup lies beside what is restored from it."""
        return (
            Requirements(
                host=self.target.host,
                programs=self.target.programs,
                directories={self.target.directory: 2 * int(facts["bytes"])},
                ports=((self.target.address, self.target.port),),
                work_bytes=int(facts["bytes"]),
            ),
        )

    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        """See Engine: the version, and what of the source the plan's own commands name."""
        where = f"{recovery.name}/{self.target.host}"
        for name, words in self._commands().items():
            for _, mention in foreign.lines(" ".join(words)):
                text = f"the plan's {name} names {mention}"
                yield finding("address-hard-coded", f"{self.system} {name}", text, "preflight")
        host = recovery.host(self.target.host)
        done = host.run(self.target.version_argv, check=False)
        version = done.text.strip() if done.exit_code == 0 else ""
        if version != facts["version"]:
            text = f"{where} has {version or 'none'!r}, the source {facts['version']!r}"
            yield finding("engine-version", where, text, "preflight", severity=Severity.MEDIUM)

    def _commands(self) -> Mapping[str, Sequence[str]]:
        target = self.target
        named = {
            "restore_argv": target.restore_argv,
            "destroy_argv": target.destroy_argv,
            "value_argv": target.value_argv or (),
            "recovered_until_argv": target.recovered_until_argv or (),
            "ticks_argv": target.ticks_argv or (),
        }
        return named | {f"verify {item.name}": item.argv for item in target.verify}

    # -- the recovery side --------------------------------------------------------------------

    def restore(self, using: Restoration) -> Service:
        """See Engine."""
        target, host = self.target, using.host(self.target.host)
        backup = f"{using.work(host)}/backup"
        using.reader.claim(host, [target.directory], [(target.address, target.port)])
        (sealed,) = (item for item in using.manifest.objects if item.name == OBJECT)
        with using.steps.step("fetch and open") as step:
            item = OpenItem(object=sealed, target=FileTarget(path=backup))
            step.bytes = using.reader.open(host, [item], using.identity)
        with using.steps.step("restore"):
            stamped = using.reader.stamped(target.restore_argv)
            self._run(using.recovery, using.work(host), stamped, HOURS)
            (pidfile,) = self._filled([target.pidfile], using.work(host))
            note_process(host, using.rehearsal_id, target.directory, pidfile)
        return Service(
            rehearsal_id=using.rehearsal_id,
            host=host.name,
            address=target.address,
            port=target.port,
            controls={host.name: using.work(host)},
            administrator="",
            reach=f"{self.system} at {target.address}:{target.port}",
            nodes=self.predicted_nodes(using.recovery),
        )

    def _run(
        self, recovery: FailureDomain, work: str, argv: Sequence[str], seconds: float = 600.0
    ) -> str:
        """What one of the plan's commands prints. Raises as `Host.run`."""
        host = recovery.host(self.target.host)
        password = _password(recovery, self.target.password)
        return host.run(self._filled(argv, work), password=password, timeout=seconds).text.strip()

    def _filled(self, argv: Sequence[str], work: str, directory: str = "") -> list[str]:
        target = self.target
        values = {
            "{backup}": f"{work}/backup",
            "{directory}": directory or target.directory,
            "{address}": target.address,
            "{port}": str(target.port),
            "{work}": work,
        }
        filled = list(argv)
        for name, value in values.items():
            filled = [word.replace(name, value) for word in filled]
        return filled

    # -- verification -------------------------------------------------------------------------

    def verify(
        self, service: Service, using: Restoration, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        """See Engine."""
        password = _password(using.recovery, self.target.password)
        for check in self._checks(service, using, questions):
            yield replace(
                check,
                expected=check.expected and _told(check.expected, password),
                actual=check.actual and _told(check.actual, password),
                detail=check.detail and _told(check.detail, password),
            )

    def _checks(
        self, service: Service, using: Restoration, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        work = service.controls[service.host]
        for item in self.target.verify:
            run = partial(self._run, using.recovery, work, item.argv)
            yield from guarded(item.name, item.expected, partial(answered, item, run))
        for q in questions:
            ask = partial(self.value, service, using.recovery, q.database, q.sql)
            yield from guarded(q.name, q.expected, partial(_asked, q, ask))
        if self.target.anonymous_argv is not None:
            argv = self._filled(self.target.anonymous_argv, work)
            source_open = using.manifest.engine_facts.get("open")
            check = partial(access, using.host(service.host), argv, source_open=source_open)
            yield from guarded("access", ACCESS, check)

    def value(self, service: Service, recovery: FailureDomain, database: str, query: str) -> str:  # noqa: ARG002 (one service has one set of data)
        """See Engine."""
        if self.target.value_argv is None:
            raise PermanentError(
                "the plan gives no value_argv, by which a query could be asked",
                operation="verify",
                hint="give engine.target.value_argv, or ask in engine.target.verify",
            )
        argv = [*self.target.value_argv, query]
        found = self._run(recovery, service.controls[service.host], argv)
        if not found:
            raise PermanentError(
                "value_argv prints nothing, where one value is expected",
                operation="verify",
                hint="have it print a word for an answer that is empty",
            )
        return found

    def dependencies(
        self, service: Service, using: Restoration, foreign: Belongings
    ) -> list[Finding]:
        """See Engine: the files of the restored service are searched."""
        host = using.host(service.host)
        everything = f"{glob.escape(self.target.directory)}/**"
        job = FactsJob(files=(everything,), foreign=foreign)
        found = facts_of(host, using.rehearsal_id, job)
        named = [
            finding(
                "address-hard-coded",
                f"{host.name} {item.path}, line {item.line}",
                f"it names {item.text}",
                "verify",
            )
            for item in found.mentions
        ]
        return capped(named, {"address-hard-coded": found.more_mentions})

    def not_verified(self, facts: Facts) -> list[str]:
        """See Engine."""
        access = "whether it asks its clients for as much as the source: no anonymous_argv"
        asks = self.target.anonymous_argv is not None and facts.get("open") is not None
        return [
            *([] if asks else [access]),
            f"anything of {self.system} that the plan's own commands do not ask",
            "addresses of the source in files that cannot be read, and behind the first MiB of any",
        ]

    def recovered_until(self, service: Service, recovery: FailureDomain) -> datetime | None:
        """See Engine."""
        if self.target.recovered_until_argv is None:
            return None
        work = service.controls[service.host]
        said = self._run(recovery, work, self.target.recovered_until_argv)
        try:
            return _moment(said)
        except (ValueError, OverflowError, OSError):
            raise self._no_time("recovered_until_argv", said, recovery) from None

    def ticks(
        self,
        service: Service,
        recovery: FailureDomain,
        database: str,  # noqa: ARG002 (ticks_argv knows both)
        table: str,  # noqa: ARG002 (as it does this)
    ) -> Ticks:
        """See Engine."""
        if self.target.ticks_argv is None:
            raise PermanentError("the plan gives no ticks_argv", operation="verify")
        work = service.controls[service.host]
        rows: dict[int, datetime] = {}
        for line in self._run(recovery, work, self.target.ticks_argv).splitlines():
            number, _, at = line.partition("\t")
            try:
                rows[int(number)] = _moment(at)
            except (ValueError, OverflowError, OSError):
                raise self._no_time("ticks_argv", line, recovery) from None
        if not rows:
            return Ticks(0, None, None, None)
        newest = max(rows)
        missing = next((id for id in range(1, newest) if id not in rows), None)
        return Ticks(len(rows), newest, rows[newest], missing)

    def _no_time(self, name: str, said: str, recovery: FailureDomain) -> PermanentError:
        shown = _told(said, _password(recovery, self.target.password))[:80]
        wanted = "an id, a tab and a time" if name == "ticks_argv" else "a time"
        return PermanentError(
            f"{name} prints {shown!r}, where {wanted} is expected",
            operation="verify",
            hint="print times as ISO 8601, or in seconds",
        )

    def destroy(self, service: Service, recovery: FailureDomain) -> None:
        """See Engine."""
        # It may have been swept meanwhile: then another's service may be there.
        host = recovery.host(service.host)
        work = service.controls[service.host]
        if bears_stamp(host, self.target.directory, service.rehearsal_id):
            self._run(recovery, work, self.target.destroy_argv, 120)

    def runbook(
        self,
        manifest: Manifest,
        log: LogIndex,  # noqa: ARG002 (there is none)
        recovery: FailureDomain,
    ) -> tuple[RunbookStep, ...]:
        """See Engine."""
        assert isinstance(recovery.store, S3Store)
        (sealed,) = manifest.objects
        keys = " ".join(shlex.quote(volume.key) for volume in sealed.volumes)
        where = f"{recovery.name}/{self.target.host}"
        filled = self._filled(self.target.restore_argv, "$WORK", "$DIRECTORY")
        password = self.target.password
        told = f"PASSWORD: a file whose first line is {password}, from the vault of {recovery.name}"
        return (
            RunbookStep(
                f"Prepare: {manifest.engine_facts['version']}, set {manifest.set_id}",
                (
                    "set -eu; umask 077; WORK=$(mktemp -d)",
                    *([f": ${{PASSWORD:?}} # {told}"] if password else []),
                    f"DIRECTORY=${{DIRECTORY:-{shlex.quote(self.target.directory)}}}",
                    'test ! -e "$DIRECTORY" ||'
                    ' { echo "$DIRECTORY exists: choose another DIRECTORY" >&2; exit 1; }',
                    'mkdir -p "$DIRECTORY"',
                    *fetch_commands(recovery.store, manifest.plan, manifest.set_id),
                ),
                where,
            ),
            RunbookStep(
                "Fetch, open and restore",
                (
                    f'fetch {keys} | unseal > "$WORK/backup"',
                    " ".join(_quoted(word) for word in filled)
                    + (' < "$PASSWORD"' if password else ""),
                ),
                where,
            ),
        )


def _quoted(word: str) -> str:
    """A word for a shell in which only $WORK and $DIRECTORY are to be filled in."""
    parts = re.split(r"(\$WORK|\$DIRECTORY)", word)
    return "".join(
        f'"{part}"' if part in ("$WORK", "$DIRECTORY") else shlex.quote(part)
        for part in parts
        if part
    )


def access(host: Host, argv: Sequence[str], *, source_open: bool | None) -> Check:
    """A client without any credential is let in only where the source lets it in, too."""
    is_open = _lets(host, argv)
    if source_open is None and is_open:
        text = "a client without credentials is let in; whether the source does so is not known"
        return Check("access", CheckStatus.UNKNOWN, ACCESS, text)
    wrong = ["a client without credentials is let in"] if is_open and not source_open else []
    right = f"such a client is {'let in, as at the source' if is_open else 'refused'}"
    return checked("access", ACCESS, wrong, right, finding="service-more-open")


def _lets(host: Host, argv: Sequence[str]) -> bool:
    """Whether a command that shows no credential ends well.

    Raises CommandFailed where there is no such command, or it was killed: that is no answer.
    """
    try:
        host.run(argv)
    except CommandFailed as error:
        if error.exit_code in NOT_RUN or error.exit_code < 0:
            raise
        return False
    return True


def _asked(question: SqlQuestion, ask: Callable[[], str | None]) -> Check:
    """A question of the plan; a command that ends with an exit code of its own answers: no."""
    try:
        return asked(question, ask)
    except CommandFailed as error:
        if error.exit_code in NOT_RUN or error.exit_code < 0:
            raise
        return Check(question.name, CheckStatus.FAILED, question.expected, error.message)


def _is_line(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 500 and text.isprintable()


def answered(question: Question, run: Callable[[], str]) -> Check:
    """A command that ends with an exit code of its own has answered: with no."""
    try:
        actual = run()
    except CommandFailed as error:
        if error.exit_code in NOT_RUN or error.exit_code < 0:
            raise
        actual, passed = error.message, False
    else:
        passed = actual == question.expected.strip()
    status = CheckStatus.PASSED if passed else CheckStatus.FAILED
    return Check(question.name, status, question.expected, actual)


def _password(domain: FailureDomain, name: str | None) -> SecretStr | None:
    return domain.secret(name) if name else None


def _told(said: str, password: SecretStr | None) -> str:
    """What a command printed, without the password that it was given."""
    return without(said.encode(), password.get_secret_value()).decode() if password else said


def _moment(text: str) -> datetime:
    """A time as ISO 8601 or in seconds. Raises ValueError, OverflowError, OSError."""
    if text.replace(".", "", 1).isdecimal():
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
