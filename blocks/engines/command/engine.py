"""The engine of a system that its plan describes by commands."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr
from typing_extensions import override

from blocks.agent.protocol.parts import FileTarget, OpenItem, Source
from blocks.artifact.manifest import LogIndex, Manifest
from blocks.domain import FailureDomain
from blocks.engines.command.facts import CommandFacts, is_line, own, read
from blocks.engines.command.plan import HOURS, SourceSystem, TargetSystem
from blocks.engines.command.restored import RestoredSystem
from blocks.engines.command.runbook import commands
from blocks.engines.command.running import TargetCommands, lets_in, password_of, told
from blocks.engines.common.programs import asked_by
from blocks.engines.engine import Captured, Engine, Requirements
from blocks.engines.facts import Facts
from blocks.engines.restoration import Restoration, Steps
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Node, RunbookStep, SourceNode
from blocks.hosts.host import Host
from blocks.materials import Material
from blocks.ownership import Belongings
from blocks.remote.jobs import note_process
from blocks.repositories.farside.writer import SetWriter

OBJECT = "backup.zst.age"
"""The one object of a set."""


class Command(Engine):
    """A system that its plan describes by commands."""

    _block_type_name = "farside command engine"
    _block_type_slug = "farside-command"

    label: ClassVar[str] = "command"
    takes: ClassVar[frozenset[Material]] = frozenset({Material.ARCHIVE})
    version_words: ClassVar[Mapping[str, str]] = asked_by("--version", "redis-cli", "redis-server")
    without_rows: ClassVar[str] = "farside knows no rows of a service that commands restore"

    kind: Literal["command"] = Field(
        default="command", description="command: any system, by the commands that the plan gives."
    )
    system: str = Field(description="What records and messages call the system, as in redis.")
    source: SourceSystem = Field(description="The system that is backed up, and how.")
    target: TargetSystem = Field(
        description="Where it is restored, how, and what proves that it was. In the words of its "
        "commands, {backup}, {directory}, {address}, {port} and {work} are filled in."
    )

    # -- what the plan says -------------------------------------------------------------------

    @property
    @override
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        return (("source.host", self.source.host),)

    @property
    @override
    def source_endpoints(self) -> list[tuple[str, int]]:
        return [(self.source.address, self.source.port)]

    @property
    @override
    def predicted_nodes(self) -> tuple[Node, ...]:
        return (Node(self.target.host, self.system, self.target.address, self.target.port),)

    @property
    @override
    def passwords(self) -> tuple[str, ...]:
        return (self.target.password,) if self.target.password else ()

    # -- the source ---------------------------------------------------------------------------

    @override
    def survey(self, source: FailureDomain) -> CommandFacts:
        host = source.host(self.source.host)
        password = password_of(source, self.source.password)
        said = host.run(self.source.bytes_argv, password=password).text.strip()
        if not said.isdecimal():
            text = f"bytes_argv prints {told(said, password)[:80]!r}, which is no number"
            raise _unfit(text, source, host)
        version = host.run(self.source.version_argv).text.strip()
        if not is_line(version):
            text = f"version_argv prints {version[:80]!r}, which is no line of text"
            raise _unfit(text, source, host)
        anonymous = self.source.anonymous_argv
        node = SourceNode(self.source.host, self.system, self.source.address, self.source.port)
        return CommandFacts(
            version=version,
            bytes=int(said),
            system=self.system,
            nodes=(node,),
            open=None if anonymous is None else lets_in(host, anonymous),
        )

    @override
    def read_facts(self, said: Mapping[str, Any]) -> CommandFacts:
        return read(said)

    @override
    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        host, taken_at = source.host(self.source.host), datetime.now(UTC)
        secret = password_of(source, self.source.password) or SecretStr("")
        with steps.step("capture", grows=True) as step:
            sources = [Source(name=OBJECT, kind="stdout")]
            step.bytes = sink.seal(host, self.source.capture_argv, secret=secret, sources=sources)
        return Captured(taken_at, datetime.now(UTC), facts)

    @override
    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        return []  # a capture's command leaves nothing

    @override
    def leftovers(self, source: FailureDomain) -> list[str]:
        return []

    # -- the recovery side --------------------------------------------------------------------

    @override
    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        size = own(facts).bytes
        return (
            Requirements(
                host=self.target.host,
                programs=self.target.programs,
                # The backup lies next to what is restored from it.
                directories={self.target.directory: 2 * size},
                ports=((self.target.address, self.target.port),),
                work_bytes=size,
            ),
        )

    @override
    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        where, had = f"{recovery.name}/{self.target.host}", own(facts).version
        for name, words in self._named_commands().items():
            for _, mention in foreign.lines(" ".join(words)):
                text = f"the plan's {name} names {mention}"
                yield finding(FindingId.ADDRESS_HARD_CODED, f"{self.system} {name}", text)
        host = recovery.host(self.target.host)
        done = host.run(self.target.version_argv, check=False)
        version = done.text.strip() if done.exit_code == 0 else ""
        if version != had:
            text = f"{where} has {version or 'none'!r}, the source {had!r}"
            yield finding(FindingId.ENGINE_VERSION, where, text, severity=Severity.MEDIUM)

    def _named_commands(self) -> Mapping[str, Sequence[str]]:
        target = self.target
        named = {
            "restore_argv": target.restore_argv,
            "destroy_argv": target.destroy_argv,
            "value_argv": target.value_argv or (),
            "recovered_until_argv": target.recovered_until_argv or (),
            "ticks_argv": target.ticks_argv or (),
        }
        return named | {f"verify {item.name}": item.argv for item in target.verify}

    @override
    def restore(self, using: Restoration) -> RestoredSystem:
        target, host = self.target, using.host(self.target.host)
        work = using.work(host)
        running = TargetCommands(target, using.recovery, work)
        using.reader.claim(host, [target.directory], [(target.address, target.port)])
        (sealed,) = (item for item in using.manifest.objects if item.name == OBJECT)
        with using.steps.step("fetch and open", grows=True) as step:
            item = OpenItem(object=sealed, target=FileTarget(path=f"{work}/backup"))
            step.bytes = using.reader.open(host, [item], using.identity)
        with using.steps.step("restore", grows=True):
            running.run(using.reader.stamped(target.restore_argv), HOURS)
            (pidfile,) = running.filled([target.pidfile])
            note_process(host, using.rehearsal_id, target.directory, pidfile)
        return RestoredSystem(using, target, self.system)

    @override
    def runbook(
        self, manifest: Manifest, log: LogIndex, recovery: FailureDomain
    ) -> tuple[RunbookStep, ...]:
        return commands(manifest, recovery, self.target)


def _unfit(text: str, source: FailureDomain, host: Host) -> PermanentError:
    return PermanentError(text, operation="survey", domain=source.name, host=host.name)
