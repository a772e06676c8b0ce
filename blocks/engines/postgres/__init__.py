"""PostgreSQL 15 and later: a physical base backup plus the log, up to the last that crossed.

The base is what `pg_basebackup` streams, the log what `pg_receivewal` receives through a slot of
the rehearsal's own. The engine takes a server's bin directory; any packaging of PostgreSQL will do.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from blocks.agent.protocol.parts import Source
from blocks.agent.redaction import MASK, redacted
from blocks.artifact.manifest import LogIndex, Manifest, SealedObject
from blocks.block import is_ip
from blocks.domain import FailureDomain
from blocks.engines.abilities import HasLog, KnowsDangers, KnowsServers, Running, TakesLastLook
from blocks.engines.checks import SqlQuestion, Ticks, listed
from blocks.engines.common.programs import asked_by
from blocks.engines.engine import Captured, Requirements
from blocks.engines.facts import Peer
from blocks.engines.legacy import AnyFacts as Facts
from blocks.engines.legacy import LegacyEngine, LegacyFacts, Service, asked, checked, guarded
from blocks.engines.postgres import (
    access,
    burden,
    checks,
    config,
    counts,
    indexes,
    last_look,
    outward,
    places,
    position,
    references,
    replay,
    running,
    slots,
    survey,
    wal,
)
from blocks.engines.postgres import application as application_checks
from blocks.engines.postgres import compare as comparing
from blocks.engines.postgres import isolation as isolation_checks
from blocks.engines.postgres import standbys as replication
from blocks.engines.postgres.cluster import START_SECONDS, Cluster
from blocks.engines.postgres.facts import Facts as SurveyedFacts
from blocks.engines.postgres.facts import SetFacts, check
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.last_look import NO_LOOK, LastLook
from blocks.engines.postgres.plan import Application, BackupTool, Place, SourceServer, TargetServer
from blocks.engines.postgres.psql import (
    ALONE,
    AMBIENT,
    CLUSTER,
    PATIENT_WITH_PRODUCTION,
    UNHURRIED,
    UNHURRIED_LATER,
    Psql,
    SqlError,
    identifier,
    literal,
    quote_conninfo,
)
from blocks.engines.postgres.runbook import commands
from blocks.engines.postgres.standbys import CATCH_UP_SECONDS, Replica
from blocks.engines.restoration import Restoration, StepHandle, Steps
from blocks.engines.restored import ROWS_NOT_SEARCHED
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Check, CheckStatus, Node, RunbookStep, SourceNode
from blocks.hosts.host import Host
from blocks.hosts.process import NOT_RUN
from blocks.hosts.ssh import SSHHost
from blocks.ids import name_of
from blocks.ownership import Belongings
from blocks.remote import resolving
from blocks.remote.failures import AgentInterrupted
from blocks.remote.jobs import bears_stamp
from blocks.repositories.farside.writer import SetWriter

LOG_INTERVAL_SECONDS = 1.0
"""How often the unfinished log segment is sealed: the data at risk while the link is idle."""
SETTLE_SECONDS = 10.0
"""An unfinished segment that nothing of arrived for so long has been sealed as it is."""
RESTART_SECONDS = 600.0
"""Time limit for a server to stop or to start, once it has served."""
END_SECONDS = 120.0
"""Time limit for a server to stop as in a crash."""
_BAD_PAGES = re.compile(r"Bad checksums:\s+[1-9]")
_LOG_BYTES = 2**30
_PLAN_AGAIN = "was a tablespace {} since the backup was planned? plan it again"
"""Room for the log, at least, on each recovery host."""
_MIN_RATE, _MAX_RATE = 32, 1048576
"""Kilobytes a second: what pg_basebackup takes as --max-rate."""
_POSITION = (
    "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
    " ELSE pg_current_wal_lsn() END)::text"
)


class LogGap(PermanentError):
    """Log segments that a restore needs are not there."""

    finding = PostgresFinding.LOG_GAP


class NoPlace(PermanentError):
    """The plan gives a part of the database no directory on the recovery host."""

    finding = "path-hard-coded"


class Postgres(LegacyEngine, KnowsServers, KnowsDangers, TakesLastLook, HasLog):
    """PostgreSQL, restored to the last log record that crossed the gap."""

    _block_type_name = "farside PostgreSQL engine"
    _block_type_slug = "farside-postgres"

    label: ClassVar[str] = "postgres"
    version_words: ClassVar[Mapping[str, str]] = asked_by(
        "--version",
        *("initdb", "pg_amcheck", "pg_basebackup", "pg_checksums", "pg_controldata", "pg_ctl"),
        *("pg_dump", "pg_dumpall", "pg_receivewal", "pg_restore", "pg_verifybackup", "pg_waldump"),
        *("postgres", "psql"),
    )
    growing: ClassVar[frozenset[str]] = frozenset(
        {"row-counts", "large-objects", "btree-indexes", "page-checksums"}
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

    _made_on: dict[str, str] = PrivateAttr(default_factory=dict)
    """The server on which this process made each slot; empty where that is not known."""
    _has_waited: bool = PrivateAttr(default=False)
    """Whether a base backup has waited for the source's archiver in vain."""

    # -- what the plan says -------------------------------------------------------------------

    @property
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        """See Engine."""
        return (("source.host", self.source.host), ("backup.host", self.backup.host))

    @property
    def source_endpoints(self) -> list[tuple[str, int]]:
        """See Engine."""
        return [(self.source.address, self.source.port)]

    @property
    def predicted_nodes(self) -> tuple[Node, ...]:
        """See Engine."""
        return tuple(
            Node(place.host, role, place.address, place.port)
            for place, role in zip(
                self.target.places,
                ("primary", *("standby" for _ in self.target.standbys)),
                strict=True,
            )
        )

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

    def survey(self, source: FailureDomain) -> Facts:
        """See Engine."""
        superuser = self._superuser(source)
        facts = survey.survey(superuser)
        try:
            facts["places"] = places.survey(superuser, self.backup.role)
        except SqlError as error:
            facts["unread"]["whether the source has places left for a backup"] = error.message
        if facts["version_num"] < 150000:
            raise PermanentError(
                f"the server is PostgreSQL {facts['version']}; 15 is the oldest that works",
                operation="survey",
                domain=source.name,
                host=self.source.host,
                hint="upgrade the source, or rehearse it with another tool",
            )
        if not facts["in_recovery"]:  # a standby does not know what else there is
            facts["nodes"] = [asdict(node) for node in self._source_nodes(source)]
        if facts["superuser"] is None:
            raise PermanentError(
                "no superuser of the server has LOGIN: a restored server could not be administered",
                operation="survey",
                domain=source.name,
                host=self.source.host,
                hint="ALTER ROLE ... LOGIN for one superuser",
            )
        self._check_replication(source)
        check(facts, SurveyedFacts)
        return LegacyFacts(self, facts)

    def check_facts(self, facts: Facts) -> None:
        """See Engine."""
        check(facts, SetFacts)

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
        for row in self._superuser(source).rows(CLUSTER, survey.STANDBYS):
            name = hosts.get(row["address"], row["name"])
            if name in names:
                name = f"{row['name']} {row['address']} {row['pid']}"
            names.add(name)
            yield SourceNode(name, "standby", row["address"])

    def peers(self, facts: Facts) -> tuple[Peer, ...]:
        """See Engine: standbys, receivers of its log, subscribers; of a standby, its primary."""
        return tuple(Peer(**row) for row in facts.get("peers", ()))

    def running(self, facts: Facts, host: Host) -> Running:
        """See Engine."""
        return running.running(facts, host)

    def dangers(self, facts: Facts, source: FailureDomain) -> Iterator[Finding]:
        """See Engine."""
        where = f"{source.name}/{self.source.host}"
        yield from burden.findings(facts, where)
        yield from places.findings(facts, where)

    def last_look(self, source: FailureDomain) -> LastLook:
        """See Engine: the names of what there is, and the counters of what was written to it."""
        return last_look.last_look(self._superuser(source))

    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """See Engine. The log is followed from before the base backup on."""
        superuser = self._superuser(source)
        host = source.host(self.backup.host)
        secret = source.secret(self.backup.password)
        slot, size = name_of(sink.rehearsal_id), facts["wal_segment_size"]
        conninfo = self._replication(slot)
        receive = [f"{self.backup.bin_dir}/pg_receivewal", "-W", "-d", conninfo]
        holding = burden.holding(facts, slot)
        with steps.step("follow log"):
            directory = f"{sink.work(host)}/wal"
            # What an attempt before this one received begins in the wrong place.
            self.clean_source(source, sink.rehearsal_id)
            host.run(["rm", "-rf", directory])
            host.run(["mkdir", "-p", "-m", "0700", directory])
            reserved: list[int] = []
            failures: list[FarsideError] = []

            def make_slot() -> None:
                try:
                    if facts["in_recovery"]:
                        reserved.append(slots.reserve(superuser, slot))
                    else:
                        host.run([*receive, *holding, "--create-slot"], password=secret)
                    self._made_on[slot] = ""
                    self._made_on[slot] = slots.server_of(superuser, slot)
                except FarsideError as error:
                    failures.append(error)
                    # Not asked again: it may have been made all the same.
                    raise AgentInterrupted(error.message, code="aborted") from error

            def check_follower() -> None:
                if failures:
                    raise failures[0]
                sink.check_follower()

            follow = [*receive, *holding, "-D", directory, "--no-loop"]
            sink.follow(
                host,
                [*follow, "--synchronous"] if holding else follow,
                secret=secret,
                directory=directory,
                files=wal.FILES,
                interval=LOG_INTERVAL_SECONDS,
                prepare=make_slot,
                release_argv=[*receive, *holding, "--drop-slot"] if holding else (),
                check=burden.Watch(superuser, slot, sink.load, self._note_waiting),
                released=partial(self._forget_slot, slot),
            )
            streams = (
                f"SELECT count(*) FROM pg_stat_replication WHERE application_name = {literal(slot)}"
                " AND state IN ('catchup', 'streaming')"
            )
            _until(
                lambda: superuser.value(CLUSTER, streams) == "1",
                check_follower,
                60,
                f"pg_receivewal on {host.name} does not start to stream",
            )
        taken_at = datetime.now(UTC)
        start = reserved[0] if reserved else wal.parse_lsn(str(superuser.value(CLUSTER, _POSITION)))
        with ExitStack() as current:
            current.enter_context(steps.step("checkpoint"))
            data: list[StepHandle] = []

            def begun() -> None:
                if not data:  # the first bytes come once the server has made its checkpoint
                    current.close()
                    data.append(current.enter_context(steps.step("base backup", grows=True)))

            stored = self._base(sink, host, conninfo, secret, facts, begun)
            begun()
            data[0].bytes = stored
        with steps.step("log to the backup's end"):
            stop = self._end_of_log(superuser, sink, slot, facts)
            facts = burden.at_end(superuser, facts)
        return Captured(
            taken_at,
            datetime.now(UTC),
            LegacyFacts(
                self,
                {
                    **facts,
                    "start_lsn": wal.format_lsn(start),
                    "start_segment": wal.segment_of(start, facts["timeline"], size),
                    "stop_lsn": wal.format_lsn(stop),
                    "stop_segment": wal.segment_of(stop - 1, facts["timeline"], size),
                },
            ),
        )

    def _end_of_log(self, superuser: Psql, sink: SetWriter, slot: str, facts: Facts) -> int:
        """Wait until the log that the base backup needs is stored; the position of its end."""
        # Without the right to switch, as on a standby, the segment is taken unfinished.
        standby = facts["in_recovery"] or not facts["burden"]["may_switch"]
        position = _POSITION if standby else "SELECT pg_switch_wal()::text"
        stop = wal.parse_lsn(str(superuser.value(CLUSTER, position)))
        last = wal.segment_of(stop - 1, facts["timeline"], facts["wal_segment_size"])
        failure = f"the log up to segment {last} does not reach the store"
        if not standby:
            # The switch has ended the segment, however idle the source is.
            _until(
                lambda: sink.followed(lambda item, _: wal.is_complete(item.name, last)),
                sink.check_follower,
                120,
                failure,
            )
            return stop
        # What was received must have been sealed since.
        received = (
            f"SELECT bool_or(coalesce(flush_lsn, sent_lsn) >= {literal(wal.format_lsn(stop))})"
            f" FROM pg_stat_replication WHERE application_name = {literal(slot)}"
            " AND state = 'streaming'"
        )
        _until(lambda: superuser.value(CLUSTER, received) == "t", sink.check_follower, 120, failure)
        since = time.time()

        def sealed(item: SealedObject, at: datetime) -> bool:
            settled = time.time() > since + SETTLE_SECONDS
            late = settled or at.timestamp() > since + 2 * LOG_INTERVAL_SECONDS
            return wal.is_complete(item.name, last) or (late and wal.holds(item.name, last))

        _until(lambda: sink.followed(sealed), sink.check_follower, 120, failure)
        return stop

    def _base(
        self,
        sink: SetWriter,
        host: Host,
        conninfo: str,
        secret: Any,
        facts: Facts,
        begun: Callable[[], None],
    ) -> int | None:
        argv = [f"{self.backup.bin_dir}/pg_basebackup", "-W", "-d", conninfo, "-F", "tar"]
        in_base = burden.log_in_base(facts, has_waited=self._has_waited)
        argv += ["-X", in_base, "--no-sync"]
        argv += ["-c", "fast" if sink.load.fast_checkpoint else "spread"]
        kilobytes = sink.load.rate // 1024
        argv += [f"--max-rate={min(max(kilobytes, _MIN_RATE), _MAX_RATE)}"]
        spaces = [space["oid"] for space in facts["tablespaces"]]
        if not spaces:
            sources = [Source(name="base.tar.zst.age", kind="stdout")]
            argv += ["-D", "-"]
            return sink.seal(host, argv, secret=secret, sources=sources, begun=begun)
        # Several archives at once go into named pipes: no tablespace is spooled to a disk.
        directory = f"{sink.work(host)}/base"
        sources = [
            Source(
                name=f"{name}.tar.zst.age",
                kind="fifo",
                path=f"{directory}/{name}.tar",
                hint=_PLAN_AGAIN.format("dropped"),
            )
            for name in (*spaces, "base")
        ]
        manifest = f"{directory}/backup_manifest"
        sources.append(Source(name="backup_manifest.zst.age", kind="file", path=manifest))
        argv += ["-D", directory]
        hint = _PLAN_AGAIN.format("added")
        return sink.seal(host, argv, secret=secret, sources=sources, hint=hint, begun=begun)

    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        """See Engine: the replication slot is all that a capture makes in the server."""
        superuser, slot = self._superuser(source), name_of(rehearsal_id)
        if slots.drop(superuser, slot):
            self._forget_slot(slot)
            return [f"replication slot {slot}"]
        slots.check_gone(superuser, rehearsal_id, self._made_on.get(slot))
        return []

    def _note_waiting(self) -> None:
        self._has_waited = True

    def _forget_slot(self, slot: str) -> None:
        self._made_on.pop(slot, None)

    def leftovers(self, source: FailureDomain) -> list[str]:
        """See Engine: a slot that nobody receives from holds the source's log back for ever."""
        return slots.idle(self._superuser(source))

    # -- requirements -------------------------------------------------------------------------

    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """See Engine. Room for the log, and for growth: a tenth, at least 1 GiB of log."""
        return tuple(self._needs(place, facts) for place in self.target.places)

    def _needs(self, place: Place, facts: Facts) -> Requirements:
        spaces = sum(int(space["bytes"]) for space in facts["tablespaces"])
        everything = survey.data_bytes(facts)
        directories = {place.data_dir: everything - spaces + everything // 10 + 2**28}
        if facts["tablespaces"]:
            directories[_spaces_dir(place)] = spaces + spaces // 10
        directories[place.log] = max(_LOG_BYTES, everything // 10)
        target = "engine.target" if place is self.target else "engine.target.standbys"
        programs = ("postgres", "pg_ctl", "psql", "pg_checksums")
        return Requirements(
            host=place.host,
            programs=(*(f"{place.bin_dir}/{name}" for name in programs), "tar", "cp"),
            directories=directories,
            ports=((place.address, place.port),),
            files=survey.data_files(facts),
            fields={place.log: f"log_dir of {target}"},
        )

    @property
    def passwords(self) -> tuple[str, ...]:
        """See Engine."""
        return (self.application.password,)

    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        """See Engine."""
        where = f"{recovery.name}/{self.target.host}"
        yield from comparing.without_host(facts, self.target.settings, where, foreign)
        yield from self._by_rules(access.from_source_only, facts, recovery, foreign)
        for text in self._by_rules(access.untold, facts, recovery, foreign):
            yield finding(
                "access-from-source-only",
                f"role {self.application.role}",
                text,
                severity=Severity.INFO,
            )
        for place in self.target.places:
            where = f"{recovery.name}/{place.host}"
            yield from comparing.on_host(facts, recovery.host(place.host), place.bin_dir, where)

    def _by_rules(
        self,
        look: Callable[..., Iterator[Any]],
        facts: Facts,
        recovery: FailureDomain,
        foreign: Belongings,
    ) -> Iterator[Any]:
        """What a function of `access` says of the application in the recovery domain."""
        return look(
            facts.get("access") or (),
            self.application.role,
            self.application.database,
            recovery.networks,
            [place.address for place in self.target.places if is_ip(place.address)],
            foreign,
        )

    # -- the recovery side --------------------------------------------------------------------

    def bring_up(self, using: Restoration) -> Service:
        """See Engine."""
        facts, target = using.manifest.engine_facts, self.target
        segment = facts["start_segment"]
        log = wal.needed(using.log.objects, segment)
        missing = wal.gaps(log, segment, facts["stop_segment"], facts["wal_segment_size"])
        if missing:
            raise LogGap(
                f"the log has gaps: {', '.join(missing[:5])} never crossed",
                operation="restore",
                domain=using.recovery.name,
                hint="check the transfer of log segments; choose an older set if this one is lost",
            )
        replica = Replica.new(using.rehearsal_id)
        places = {place.host: place for place in target.places}
        made: dict[str, tuple[Cluster, str, Check]] = {}

        def bring(node: Node) -> None:
            made[node.host] = self._started(using, places[node.host], log, replica)

        nodes = self.predicted_nodes
        using.spread(bring, nodes)
        primary, _, _ = made[target.host]
        with using.steps.step("replay") as step:
            reached = primary.await_replay()
            if reached is not None:
                step.bytes = max(0, reached - wal.parse_lsn(facts["start_lsn"]))
        with using.steps.step("promote"):
            primary.await_ready()
        servers = {
            host: self._administrator(
                cluster.host, places[host], socket, facts["superuser"], survey.major(facts)
            )
            for host, (cluster, socket, _) in made.items()
        }
        control = servers[target.host]
        end = position.end_of_replay(control)
        whole = replay.check(
            control.host, primary.archive, log, int(facts["wal_segment_size"]), end
        )
        if target.standbys:
            with using.steps.step("standbys follow"):
                replica.create(control)
                for place in target.standbys:
                    made[place.host][0].await_ready()
                standbys = {place.host: servers[place.host] for place in target.standbys}
                replication.await_following(control, standbys)
                if target.synchronous:
                    replication.be_synchronous(control, target.standbys)
        return Service(
            rehearsal_id=using.rehearsal_id,
            host=target.host,
            address=target.address,
            port=target.port,
            controls={host: socket for host, (_, socket, _) in made.items()},
            administrator=facts["superuser"],
            major=survey.major(facts),
            reach=f"psql -h {target.address} -p {target.port}"
            f" -U {self.application.role} -d {self.application.database}",
            nodes=tuple(filter(None, (replication.observed(servers[node.host]) for node in nodes))),
            checks=(*(made[node.host][2] for node in nodes), whole),
        )

    def _started(
        self,
        using: Restoration,
        place: Place,
        log: Mapping[str, SealedObject],
        replica: Replica,
    ) -> tuple[Cluster, str, Check]:
        """One server, from its making to its start: it, its socket's directory, its files."""
        facts, target, host = using.manifest.engine_facts, self.target, using.host(place.host)
        lead = f"{host.name}: " if target.standbys else ""
        spaces = {
            space["oid"]: f"{_spaces_dir(place)}/{space['oid']}" for space in facts["tablespaces"]
        }
        cluster = Cluster(using, host, place.bin_dir, place.data_dir, place.log, spaces)
        with using.steps.step(f"{lead}prepare"):
            socket_dir = cluster.prepare(place.address, place.port)
        with using.steps.step(f"{lead}fetch and extract", grows=True) as step:
            step.bytes = cluster.fetch(log)
        with using.steps.step(f"{lead}verify files", grows=True):
            files = cluster.check_files()
        with using.steps.step(f"{lead}search log"):
            size = int(facts["wal_segment_size"])
            start = cluster.replay_begins()
            for made in outward.created_tablespaces(host, cluster.archive, log, size, start):
                raise NoPlace(
                    f"the log creates tablespace {made.oid} at {made.path}: its replay would write"
                    " there, whatever the plan says",
                    operation="restore",
                    domain=using.recovery.name,
                    host=host.name,
                    hint="restore a set that was taken since: a fresh one has that tablespace in"
                    " its base backup, and the plan gives it a place",
                )
        with using.steps.step(f"{lead}configure"):
            follows = place is not target
            conf = config.postgresql_conf(
                facts,
                address=place.address,
                port=place.port,
                data_dir=place.data_dir,
                socket_dir=socket_dir,
                memory_bytes=cluster.memory(),
                restore_command=cluster.restore_command,
                libraries=_libraries(host, place, facts),
                own=target.settings,
                upstream=replica.conninfo(target, host.name) if follows else "",
            )
            role = replica.role if target.standbys else ""
            access = config.pg_hba_conf(facts, using.recovery.networks, self.application.role, role)
            cluster.configure(conf, access, standby=follows)
            cluster.start()
        name = f"{host.name} {files.name}" if follows else files.name
        return cluster, socket_dir, replace(files, name=name)

    def _administrator(self, host: Host, place: Place, socket: str, role: str, major: int) -> Psql:
        """A superuser's sessions of a restored server, through its private socket."""
        return Psql(
            host,
            place.bin_dir,
            socket,
            place.port,
            role,
            # What sessions of a database are made to load may be missing here.
            options=f"{UNHURRIED} -c session_preload_libraries=",
            major=major,
        ).entering(self.application.database)

    # -- verification -------------------------------------------------------------------------

    def _control(
        self, service: Service, recovery: FailureDomain, place: Place | None = None
    ) -> Psql:
        """A restored server, the primary by default, through its private socket."""
        place = place or self.target
        host, socket = recovery.host(place.host), service.controls[place.host]
        return self._administrator(host, place, socket, service.administrator, service.major)

    def verify(
        self, service: Service, using: Restoration, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        """See Engine. Page checksums come last: the servers are stopped and started for them."""
        facts, last = using.manifest.engine_facts, using.last_look or NO_LOOK
        control = self._control(service, using.recovery)
        app = self.application
        application = self._application(using.recovery, self.target)
        libraries = _libraries(control.host, self.target, facts)
        role = Replica.role_of(service.rehearsal_id) if self.target.standbys else ""
        there = comparing.installation(facts, control.host, self.target.bin_dir)
        databases = checks.Databases(control, facts, last, there)
        asleep = comparing.asleep(facts)
        used = list(dict.fromkeys([app.database, *(item.database for item in questions)]))
        plan: list[tuple[str, str, Callable[[], Check]]] = [
            *self._serving(service, using.recovery),
            ("databases", "every database", databases.check),
            (
                "login",
                "the application logs in",
                lambda: application_checks.login(
                    application,
                    used,
                    comparing.of_sessions(facts, there, app.role, used),
                    comparing.refuses(facts, app.role),
                ),
            ),
            ("roles", "all roles", lambda: checks.roles(control, facts, last)),
            (
                "schema-digest",
                "the source's",
                lambda: checks.schema(control, databases.here, last),
            ),
            (
                "row-counts",
                "the manifest's",
                lambda: counts.row_counts(control, databases.here, last),
            ),
            (
                "sequences",
                "the manifest's",
                lambda: checks.sequences(control, databases.here, last),
            ),
            (
                "large-objects",
                "the manifest's",
                lambda: counts.large_objects(control, databases.here, last),
            ),
            (
                "loadable",
                "on this host",
                lambda: checks.loadable(control, databases.here, self.target.bin_dir, asleep, last),
            ),
            (
                "indexes-valid",
                "all of them",
                lambda: checks.indexes_valid(control, databases.here, last),
            ),
            (
                "collation-versions",
                "as recorded",
                lambda: checks.collations(control, databases.here, last),
            ),
            ("archiving", "off", lambda: isolation_checks.archiving(control)),
            (
                "isolation",
                "isolated",
                lambda: isolation_checks.isolation(control, libraries, replica=role),
            ),
        ]
        for place in self.target.standbys:
            plan += self._of_standby(service, using, place, databases)
        asking = self._asking(using.recovery)
        plan += [(q.name, q.expected, _asked(asking, q)) for q in questions]
        write = app.write
        if write is not None:

            def same_grants() -> bool:
                there = [row for row in databases.here if row["name"] == app.database]
                return checks.schema(control, there, last).status is CheckStatus.PASSED

            plan.append(
                (
                    "application-write",
                    "a committed write",
                    lambda: application_checks.application_write(
                        application,
                        app.database,
                        write,
                        comparing.read_only(facts, app.role, app.database, last),
                        same_grants,
                    ),
                )
            )
        if self.target.standbys:
            plan.append(
                (
                    "synchronous-standbys",
                    "the plan's",
                    lambda: replication.waits_for(
                        control, self.target.standbys, self.target.synchronous
                    ),
                )
            )
        for place in self.target.standbys:
            standby = self._control(service, using.recovery, place)
            follows = partial(
                replication.check,
                control,
                standby,
                f"{self.target.address}:{self.target.port}",
                service.rehearsal_id,
                self.target.synchronous,
            )
            plan.append(_named(place, "replication", "it follows", follows))
        plan += [
            (
                "committed-write",
                "a committed write",
                lambda: application_checks.committed_write(control, service.rehearsal_id),
            ),
            (
                "btree-indexes",
                "agree with tables",
                lambda: indexes.btrees(control, [item["name"] for item in databases.here]),
            ),
        ]
        for name, expected, run in plan:
            yield from guarded(name, expected, run)
        yield from self._all_pages(service, using)

    def _serving(
        self, service: Service, recovery: FailureDomain
    ) -> Iterator[tuple[str, str, Callable[[], Check]]]:
        """That every server is still there: of a dead one, all else merely cannot be asked."""
        for place in self.target.places:
            role = "primary" if place is self.target else "standby"
            server = self._control(service, recovery, place)
            run = partial(replication.serving, server, role)
            item: tuple[str, str, Callable[[], Check]] = "serving", f"a {role}", run
            yield item if place is self.target else _named(place, *item)

    def _application(self, recovery: FailureDomain, place: Place) -> Psql:
        """A restored server, as the application reaches it."""
        app, host = self.application, recovery.host(place.host)
        password = recovery.secret(app.password)
        return Psql(host, place.bin_dir, place.address, place.port, app.role, password, options="")

    def _asking(self, recovery: FailureDomain) -> Psql:
        """The restored service, as its application asks it, without limits of time."""
        return replace(self._application(recovery, self.target), preamble=UNHURRIED_LATER)

    def _of_standby(
        self, service: Service, using: Restoration, place: Place, databases: checks.Databases
    ) -> Iterator[tuple[str, str, Callable[[], Check]]]:
        """What hangs on a standby's own host, which may take the primary's place."""
        facts, last = using.manifest.engine_facts, using.last_look or NO_LOOK
        standby = self._control(service, using.recovery, place)
        database = self.application.database

        def login() -> Check:
            refused = comparing.refuses(facts, self.application.role)
            return application_checks.login(
                self._application(using.recovery, place), [database], refused=refused
            )

        def isolation() -> Check:
            libraries = _libraries(standby.host, place, facts)
            return isolation_checks.isolation(standby, libraries, standby=True)

        yield _named(place, "login", "the application logs in", login)

        def loadable() -> Check:
            asleep = comparing.asleep(facts)
            return checks.loadable(standby, databases.here, place.bin_dir, asleep, last)

        def collations() -> Check:
            return checks.collations(standby, databases.here, last)

        yield _named(place, "loadable", "on this host", loadable)
        yield _named(place, "collation-versions", "as recorded", collations)
        yield _named(place, "archiving", "off", partial(isolation_checks.archiving, standby))
        yield _named(place, "isolation", "isolated", isolation)

    def survive(self, service: Service, using: Restoration) -> Iterator[Check]:
        """See Engine: the primary is killed, the first standby that follows takes its place."""
        if self.target.standbys:
            expected = f"a standby serves when {self.target.host} has died"
            yield from guarded("failover", expected, lambda: self._failover(service, using))

    def _failover(self, service: Service, using: Restoration) -> Check:
        primary = self._control(service, using.recovery)
        left = {node.host for node in service.nodes if node.role == "standby"}
        follow = (
            item
            for item in self.target.standbys
            if item.host in left and replication.streams(primary, item.host)
        )
        if (place := next(follow, None)) is None:
            raise PermanentError(
                "no standby follows",
                operation="failover",
                domain=using.recovery.name,
                host=self.target.host,
                hint="the findings say what keeps each of them from it",
            )
        standby = self._control(service, using.recovery, place)
        return replication.failover(
            primary,
            standby,
            lambda: _end(primary.host, self.target, service.rehearsal_id),
            lambda: _pg_ctl(standby.host, place, "promote", CATCH_UP_SECONDS),
            service.rehearsal_id,
        )

    def value(
        self,
        service: Service,  # noqa: ARG002 (the plan says how its application reaches it)
        recovery: FailureDomain,
        database: str,
        query: str,
    ) -> str:
        """See Engine."""
        return self._asking(recovery).value(database, query.strip().rstrip(";")) or ""

    def dependencies(
        self, service: Service, using: Restoration, foreign: Belongings, unseen: list[str]
    ) -> list[Finding]:
        """See Engine: searched are all definitions that are stored as text, and live settings."""
        facts = using.manifest.engine_facts
        named = foreign
        if (data := str(facts["data_directory"])) != self.target.data_dir:
            named = references.with_path(foreign, data)
        control = self._control(service, using.recovery)
        names, closed = references.databases(control)
        known = {row["name"] for row in facts["closed_databases"]}
        unseen.extend(f"database {name}: closed" for name in closed if name not in known)
        texts = references.texts(control, names, named, rows=using.search_rows)
        unseen.extend(texts.unread)
        found = [*texts.findings(named), *references.in_doubt(control)]
        host, hosts = using.host(self.target.host), texts.hosts(facts, foreign)
        found += texts.files_missing(host, foreign)
        found += resolving.leading_to(host, using.rehearsal_id, hosts, foreign, unseen)
        there = {node.host for node in service.nodes}
        for place in self.target.places:
            if place.host in there:
                server = self._control(service, using.recovery, place)
                found += references.in_live_settings(server, foreign)
        return found

    def not_verified(self, facts: Facts) -> list[str]:
        """See Engine."""
        methods: Counter[str] = Counter()
        for database in facts["databases"]:
            for row in database["index_methods"]:
                methods[row["method"]] += row["count"]
        missed = [
            f"{count} {method} indexes against their tables: only B-trees are compared"
            for method, count in methods.items()
        ]
        if names := comparing.asleep(facts):
            missed.append(f"what {', '.join(names)} does: it may start work, so it stays asleep")
        missed += [
            f"what {', '.join(names)} does: loaded by the source's {setting}, which does not come"
            " along"
            for setting, names in comparing.loaded_by_all(facts).items()
        ]
        missed += [
            f"{part} of database {database['name']}: not readable at the source ({why})"
            for database in facts["databases"]
            for part, why in database.get("unread", {}).items()
        ]
        missed += [f"{part}: {why}" for part, why in facts.get("unread", {}).items()]
        missed += [
            f"setting {row['name']}: named like a secret, so its value is in no set"
            for row in facts["settings"]
            if row["setting"] == MASK
        ]
        missed += [
            f"exact rows of {count} tables of database {database['name']}: not readable at the"
            f" source (GRANT pg_read_all_data)"
            for database in facts["databases"]
            if (count := sum(not t.get("readable", True) for t in database["tables"] or ()))
        ]
        missed.append(
            f"who else than {self.application.role} may connect: pg_hba.conf of the source does not"
            " come along, and the restored server lets nobody else in"
        )
        if files := comparing.outside(facts):
            missed.append(
                f"files outside of the source's data directory, which no set holds: {listed(files)}"
            )
        if comparing.takes_tls(facts):
            missed.append("TLS: the source's server offers it, the restored one does not")
        if facts["in_recovery"]:
            missed.append("what else the source consists of: a standby does not know")
        if self.target.standbys:
            missed.append("indexes of standbys against their tables: compared on the primary")
        missed += [
            f"database {row['name']}: "
            + ("a broken-off DROP has left it" if row["invalid"] else "it takes no connections")
            for row in facts["closed_databases"]
        ]
        missed += [
            f"logins by {row['method']} ({access.place(row)}): restored are those by password"
            for row in facts["logins"] or ()
        ]
        return [
            *missed,
            "calls of triggers and functions to anybody but the source",
            "files and programs that functions name: only those in directories of the source",
            ROWS_NOT_SEARCHED,
        ]

    def _all_pages(self, service: Service, using: Restoration) -> Iterator[Check]:
        """The disk of every host, side by side: what a standby has there, it would serve."""
        places = {place.host: place for place in self.target.places}
        made: dict[str, Check] = {}

        def look(node: Node) -> None:
            place = places[node.host]
            run: Callable[[], Check] = partial(self._pages, place, service, using)
            item = "page-checksums", "no bad page", run
            (made[place.host],) = guarded(
                *(_named(place, *item) if place is not self.target else item)
            )

        using.spread(look, self.predicted_nodes)
        yield from (made[host] for host in places)

    def _pages(self, place: Place, service: Service, using: Restoration) -> Check:
        expected = "every page agrees with its checksum, read offline"
        if not using.manifest.engine_facts["data_checksums"]:
            return Check(
                "page-checksums",
                CheckStatus.UNKNOWN,
                expected,
                "could not run: the cluster has no data checksums (pg_checksums --enable)",
            )
        control = self._control(service, using.recovery, place)
        host = control.host
        log = f"{using.work(host)}/postgres.log"
        if not bears_stamp(host, place.data_dir, service.rehearsal_id):
            raise PermanentError(
                f"{place.data_dir} is not this rehearsal's any more: it was swept meanwhile",
                operation="page-checksums",
                domain=using.recovery.name,
                host=host.name,
                hint="rehearse again: this one was suspended for longer than its lease",
            )
        _pg_ctl(host, place, "stop", RESTART_SECONDS, "-m", "fast")
        try:
            done = host.run(
                [f"{place.bin_dir}/pg_checksums", "--check", "-D", place.data_dir],
                check=False,
                timeout=START_SECONDS,
            )
        finally:
            argv = [*ALONE, f"{place.bin_dir}/pg_ctl", "-D", place.data_dir, "-w", "-s", "-l", log]
            argv += ["-t", f"{RESTART_SECONDS:.0f}", "start"]
            host.run(using.reader.stamped(argv), timeout=RESTART_SECONDS)
        control.value(CLUSTER, "SELECT 1")
        scanned = re.search(r"Blocks scanned:\s+(\d+)", done.text)
        right = f"{scanned[1]} pages, none bad" if scanned else "none bad"
        wrong = list[str]()
        if done.exit_code != 0:
            said = done.stderr.decode(errors="replace").strip()
            text = said or f"pg_checksums ended with exit code {done.exit_code}"
            if not (_BAD_PAGES.search(done.text) or "could not read block" in said):
                actual = f"could not run: {text[:300]}"
                return Check("page-checksums", CheckStatus.UNKNOWN, expected, actual)
            wrong = text.splitlines()[:3]
        return checked("page-checksums", expected, wrong, right, finding="page-corrupt")

    def recovered_until(self, service: Service, recovery: FailureDomain) -> datetime | None:
        """See Engine: the commit time of the last transaction that was replayed."""
        control = self._control(service, recovery)
        rows = control.rows(CLUSTER, "SELECT pg_last_xact_replay_timestamp() AS at")
        return datetime.fromisoformat(rows[0]["at"]) if rows[0]["at"] else None

    def end_of_log(self, source: FailureDomain) -> int | None:
        """See Engine."""
        own = source.belongings

        def owns(host: str) -> bool:
            return own.owns_name(host) or host.lower() in own.aliases

        return position.end_of_log(self._superuser(source), owns)

    def end_of_replay(self, service: Service, recovery: FailureDomain) -> int | None:
        """See Engine."""
        return position.end_of_replay(self._control(service, recovery))

    def ticks(
        self,
        service: Service,  # noqa: ARG002 (the plan says how its application reaches it)
        recovery: FailureDomain,
        database: str,
        table: str,
    ) -> Ticks:
        """See Engine. A time without a zone is UTC; the application's role must read the table."""
        name = ".".join(identifier(part) for part in table.split("."))
        row = self._asking(recovery).rows(
            database,
            "SELECT count(*) AS n, max(id) AS newest, (SELECT at FROM"
            f" {name} ORDER BY id DESC LIMIT 1) AS at,"
            f" (SELECT min(g) FROM generate_series(1, (SELECT max(id) FROM {name})) g"
            f" WHERE NOT EXISTS (SELECT 1 FROM {name} h WHERE h.id = g)) AS missing FROM {name}",
            timeout=600,
        )[0]
        at = datetime.fromisoformat(row["at"]) if row["at"] else None
        if at is not None and at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return Ticks(row["n"], row["newest"], at, row["missing"])

    def destroy(self, service: Service, recovery: FailureDomain) -> None:
        """See Engine."""
        for place in self.target.places:
            _end(recovery.host(place.host), place, service.rehearsal_id)

    def runbook(
        self, manifest: Manifest, log: LogIndex, recovery: FailureDomain
    ) -> tuple[RunbookStep, ...]:
        """See Engine."""
        return commands(
            manifest,
            wal.needed(log.objects, manifest.engine_facts["start_segment"]),
            recovery.store,
            bin_dir=self.target.bin_dir,
            data_dir=self.target.data_dir,
            spaces_dir=self.target.tablespaces,
            where=f"{recovery.name}/{self.target.host}, as the user who will own the database",
        )


def _named(
    place: Place, name: str, expected: str, run: Callable[[], Check]
) -> tuple[str, str, Callable[[], Check]]:
    """A check of a standby, under its name."""
    name = f"{place.host} {name}"
    return name, expected, lambda: replace(run(), name=name)


def _libraries(host: Host, place: Place, facts: Facts) -> list[str]:
    lacking = comparing.installation(facts, host, place.bin_dir).lacking("libraries")
    return [name for name in comparing.libraries(facts) if name not in lacking]


def _pg_ctl(
    host: Host, place: Place, action: str, seconds: float, *options: str, check: bool = True
) -> None:
    """Have pg_ctl do something, and wait for it: by itself it gives up after a minute."""
    argv = [f"{place.bin_dir}/pg_ctl", "-D", place.data_dir, "-w", "-s", *options]
    host.run([*argv, "-t", f"{seconds:.0f}", action], check=check, timeout=seconds)


def _end(host: Host, place: Place, rehearsal_id: str) -> None:
    """Stop a rehearsal's server as a crash would; another's that lies there now, never."""
    if not bears_stamp(host, place.data_dir, rehearsal_id):
        return
    _pg_ctl(host, place, "stop", END_SECONDS, "-m", "immediate", check=False)


def _spaces_dir(place: Place) -> str:
    if place.tablespaces is None:
        raise NoPlace(
            "the source has tablespaces, and the plan gives them no place",
            operation="restore",
            host=place.host,
            hint="set tablespaces of engine.target, or of its standby, to a directory there",
        )
    return place.tablespaces


def _asked(asking: Psql, q: SqlQuestion) -> Callable[[], Check]:
    # Whatever code of users' it runs, it runs as the application: no administrator is there.
    query = q.sql.strip().rstrip(";")
    return lambda: asked(q, lambda: asking.value(q.database, query, timeout=checks.HOURS))


def _until(
    done: Callable[[], bool], still_alive: Callable[[], None], limit: float, failure: str
) -> None:
    give_up = time.monotonic() + limit
    while not done():
        still_alive()
        if time.monotonic() > give_up:
            raise TransientError(failure, operation="snapshot")
        time.sleep(0.1)
