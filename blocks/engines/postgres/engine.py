"""The engine of PostgreSQL servers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr
from typing_extensions import override

from blocks.agent.redaction import redacted
from blocks.artifact.manifest import LogIndex, Manifest
from blocks.block import is_ip
from blocks.domain import FailureDomain
from blocks.engines.abilities import HasLog, KnowsDangers, KnowsServers, Running, TakesLastLook
from blocks.engines.common.programs import asked_by
from blocks.engines.engine import Captured, Engine, Requirements
from blocks.engines.facts import Facts
from blocks.engines.postgres import (
    access,
    burden,
    catalog,
    compare,
    last_look,
    places,
    position,
    running,
    slots,
    survey,
    wal,
)
from blocks.engines.postgres.capture import Capture, Remembered
from blocks.engines.postgres.facts import PostgresFacts, SetFacts, own, read
from blocks.engines.postgres.last_look import LastLook
from blocks.engines.postgres.plan import Application, BackupTool, Place, SourceServer, TargetServer
from blocks.engines.postgres.psql import CLUSTER, Psql, SqlError, quote_conninfo
from blocks.engines.postgres.restore import restore, spaces_dir
from blocks.engines.postgres.restored import PostgresRestored
from blocks.engines.postgres.runbook import commands
from blocks.engines.postgres.sessions import AMBIENT, PATIENT_WITH_PRODUCTION
from blocks.engines.restoration import Restoration, Steps
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Node, RunbookStep, SourceNode
from blocks.hosts.host import Host
from blocks.hosts.process import NOT_RUN
from blocks.hosts.ssh import SSHHost
from blocks.ids import name_of
from blocks.materials import Material
from blocks.ownership import Belongings
from blocks.repositories.farside.writer import SetWriter

_LOG_BYTES = 2**30
"""Room for the log, at least, on each recovery host."""


class Postgres(Engine, KnowsServers, KnowsDangers, TakesLastLook, HasLog):
    """PostgreSQL, restored to the last log record that crossed the gap."""

    _block_type_name = "farside PostgreSQL engine"
    _block_type_slug = "farside-postgres"

    label: ClassVar[str] = "postgres"
    takes: ClassVar[frozenset[Material]] = frozenset({Material.BASE_TAR})
    version_words: ClassVar[Mapping[str, str]] = asked_by(
        "--version",
        *("initdb", "pg_amcheck", "pg_basebackup", "pg_checksums", "pg_controldata", "pg_ctl"),
        *("pg_dump", "pg_dumpall", "pg_receivewal", "pg_restore", "pg_verifybackup", "pg_waldump"),
        *("postgres", "psql"),
    )

    kind: Literal["postgres"] = Field(
        default="postgres", description="postgres: PostgreSQL 15 or later."
    )
    source: SourceServer = Field(
        description="The server that is backed up, and the role that asks it."
    )
    backup: BackupTool = Field(description="What takes the base backup and receives the log.")
    target: TargetServer = Field(description="Where it is restored, and with which standbys.")
    application: Application = Field(
        description="The application's own role, which must be able to use what was restored."
    )

    _known: Remembered = PrivateAttr(default_factory=Remembered)

    # -- what the plan says -------------------------------------------------------------------

    @property
    @override
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        return (("source.host", self.source.host), ("backup.host", self.backup.host))

    @property
    @override
    def source_endpoints(self) -> list[tuple[str, int]]:
        return [(self.source.address, self.source.port)]

    @property
    @override
    def predicted_nodes(self) -> tuple[Node, ...]:
        return self.target.nodes

    @property
    @override
    def passwords(self) -> tuple[str, ...]:
        return (self.application.password,)

    # -- the source ---------------------------------------------------------------------------

    def _superuser(self, source: FailureDomain) -> Psql:
        return Psql(
            source.host(self.source.host),
            self.source.bin_dir,
            self.source.address,
            self.source.port,
            self.source.superuser,
            source.secret(self.source.password),
            options=PATIENT_WITH_PRODUCTION,
            of_site=True,
        ).entering(self.application.database)

    @override
    def survey(self, source: FailureDomain) -> PostgresFacts:
        superuser = self._superuser(source)
        said = survey.answers(superuser)
        try:
            said["places"] = places.survey(superuser, self.backup.role)
        except SqlError as error:
            said["unread"]["whether the source has places left for a backup"] = error.message
        if said["version_num"] < 150000:
            raise self._unfit(
                source,
                f"the server is PostgreSQL {said['version']}; 15 is the oldest that works",
                hint="upgrade the source, or rehearse it with another tool",
            )
        if not said["in_recovery"]:  # a standby does not know what else there is
            said["nodes"] = [asdict(node) for node in self._source_nodes(source)]
        if said["superuser"] is None:
            raise self._unfit(
                source,
                "no superuser of the server has LOGIN: a restored server could not be administered",
                hint="ALTER ROLE ... LOGIN for one superuser",
            )
        self._check_replication(source)
        return read(PostgresFacts, said)

    def _unfit(self, source: FailureDomain, why: str, *, hint: str) -> PermanentError:
        where = {"domain": source.name, "host": self.source.host}
        return PermanentError(why, operation="survey", hint=hint, **where)

    def _replication(self, application_name: str) -> str:
        """The connection string of the replication clients."""
        return " ".join(
            f"{key}={quote_conninfo(value)}"
            for key, value in (
                ("host", self.source.address),
                ("port", str(self.source.port)),
                ("user", self.backup.role),
                *AMBIENT,
                ("options", ""),
                ("application_name", application_name),
            )
        )

    def _check_replication(self, source: FailureDomain) -> None:
        """Raise PermanentError where the backup's role is not let in to replicate.

        Only psql can ask without beginning to: where the backup host has none, nothing is asked.
        """
        host = source.host(self.backup.host)
        where = f"{self._replication('farside')} replication=true"
        argv = [f"{self.backup.bin_dir}/psql", "-X", "-A", "-t", "-W", "-d", where]
        done = host.run(
            [*argv, "-c", "IDENTIFY_SYSTEM"],
            password=source.secret(self.backup.password),
            check=False,
        )
        if done.exit_code in (0, *NOT_RUN):
            return
        *_, said = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        raise PermanentError(
            f"{self.backup.role} cannot replicate: {redacted(said.rpartition('Password: ')[2])}",
            operation="survey",
            domain=source.name,
            host=self.backup.host,
            hint="let it in from there: a line for `replication` in pg_hba.conf, REPLICATION, and "
            "the password of engine.backup",
        )

    def _source_nodes(self, source: FailureDomain) -> Iterator[SourceNode]:
        """The primary, and whatever streams from it and replays: which no receiver of logs does."""
        hosts = {host.address: host.name for host in source.hosts if isinstance(host, SSHHost)}
        yield SourceNode(self.source.host, "primary", self.source.address, self.source.port)
        names = {self.source.host}
        for row in self._superuser(source).rows(CLUSTER, catalog.STANDBYS):
            name = hosts.get(row["address"], row["name"])
            if name in names:
                name = f"{row['name']} {row['address']} {row['pid']}"
            names.add(name)
            yield SourceNode(name, "standby", row["address"])

    @override
    def read_facts(self, said: Mapping[str, Any]) -> SetFacts:
        return read(SetFacts, said)

    @override
    def running(self, facts: Facts, host: Host) -> Running:
        return running.running(own(facts), host)

    @override
    def dangers(self, facts: Facts, source: FailureDomain) -> Iterator[Finding]:
        where = f"{source.name}/{self.source.host}"
        yield from burden.findings(own(facts), where)
        yield from places.findings(own(facts), where)

    @override
    def last_look(self, source: FailureDomain) -> LastLook:
        """The names of what there is, and the counters of what was written to it."""
        return last_look.last_look(self._superuser(source))

    @override
    def end_of_log(self, source: FailureDomain) -> int | None:
        of_source = source.belongings

        def owns(host: str) -> bool:
            return of_source.owns_name(host) or host.lower() in of_source.aliases

        return position.end_of_log(self._superuser(source), owns)

    @override
    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """Stream a base backup, and the log from before it on."""
        slot = name_of(sink.rehearsal_id)
        capture = Capture(
            source.host(self.backup.host),
            self.backup,
            source.secret(self.backup.password),
            self._replication(slot),
            slot,
            self._superuser(source),
            sink,
            own(facts),
            self._known,
        )
        return capture.run(steps, lambda: self.clean_source(source, sink.rehearsal_id))

    @override
    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        """The replication slot is all that a capture makes in the server."""
        superuser, slot = self._superuser(source), name_of(rehearsal_id)
        if slots.drop(superuser, slot):
            self._known.forget(slot)
            return [f"replication slot {slot}"]
        slots.check_gone(superuser, rehearsal_id, self._known.made_on.get(slot))
        return []

    @override
    def leftovers(self, source: FailureDomain) -> list[str]:
        """A slot that nothing receives from holds the source's log back for ever."""
        return slots.idle(self._superuser(source))

    # -- the recovery side --------------------------------------------------------------------

    @override
    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """Room for the log, and for growth: a tenth, at least 1 GiB of log."""
        return tuple(self._needs(place, own(facts)) for place in self.target.places)

    def _needs(self, place: Place, facts: PostgresFacts) -> Requirements:
        spaces = sum(space.bytes for space in facts.tablespaces)
        everything = facts.data_bytes
        directories = {place.data_dir: everything - spaces + everything // 10 + 2**28}
        if facts.tablespaces:
            directories[spaces_dir(place)] = spaces + spaces // 10
        directories[place.log] = max(_LOG_BYTES, everything // 10)
        target = "engine.target" if place is self.target else "engine.target.standbys"
        programs = ("postgres", "pg_ctl", "psql", "pg_checksums")
        return Requirements(
            host=place.host,
            programs=(*(f"{place.bin_dir}/{name}" for name in programs), "tar", "cp"),
            directories=directories,
            ports=((place.address, place.port),),
            files=facts.data_files,
            fields={place.log: f"log_dir of {target}"},
        )

    @override
    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        said, where = own(facts), f"{recovery.name}/{self.target.host}"
        yield from compare.without_host(said, self.target.settings, where, foreign)
        yield from self._by_rules(access.from_source_only, said, recovery, foreign)
        for text in self._by_rules(access.untold, said, recovery, foreign):
            subject = f"role {self.application.role}"
            yield finding(FindingId.ACCESS_FROM_SOURCE_ONLY, subject, text, severity=Severity.INFO)
        for place in self.target.places:
            where = f"{recovery.name}/{place.host}"
            yield from compare.on_host(said, recovery.host(place.host), place.bin_dir, where)

    def _by_rules(
        self,
        look: Callable[..., Iterator[Any]],
        facts: PostgresFacts,
        recovery: FailureDomain,
        foreign: Belongings,
    ) -> Iterator[Any]:
        """What a function of `access` says of the application in the recovery domain."""
        return look(
            facts.access or (),
            self.application.role,
            self.application.database,
            recovery.networks,
            [place.address for place in self.target.places if is_ip(place.address)],
            foreign,
        )

    @override
    def restore(self, using: Restoration) -> PostgresRestored:
        return restore(using, self.target, self.application)

    @override
    def runbook(
        self, manifest: Manifest, log: LogIndex, recovery: FailureDomain
    ) -> tuple[RunbookStep, ...]:
        facts = self.read_facts(manifest.engine_facts)
        return commands(
            manifest,
            facts,
            wal.needed(log.objects, facts.start_segment),
            recovery.store,
            bin_dir=self.target.bin_dir,
            data_dir=self.target.data_dir,
            spaces_dir=self.target.tablespaces,
            where=f"{recovery.name}/{self.target.host}, as the user who will own the database",
        )
