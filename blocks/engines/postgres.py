"""PostgreSQL 15 and later: a physical base backup plus the log, up to the last that crossed.

The base is what `pg_basebackup` streams, the log what `pg_receivewal` receives through a slot of
the rehearsal's own. The engine takes a server's bin directory; any packaging of PostgreSQL will do.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Literal

from blocks.artifact.job import Source
from blocks.artifact.manifest import LogIndex, Manifest, SealedObject
from blocks.artifact.mentions import Belongings
from blocks.domain import FailureDomain
from blocks.engines.base import (
    Captured,
    Engine,
    Facts,
    Requirements,
    Restoration,
    Service,
    SqlQuestion,
    Steps,
    Ticks,
    asked,
    checked,
    guarded,
)
from blocks.engines.pg import checks, comparing, config, replication, search, survey, wal
from blocks.engines.pg.cluster import START_SECONDS, Cluster
from blocks.engines.pg.psql import (
    PATIENT_WITH_PRODUCTION,
    UNHURRIED,
    UNHURRIED_LATER,
    Psql,
    identifier,
    literal,
    quote_conninfo,
)
from blocks.engines.pg.replication import CATCH_UP_SECONDS, Replica
from blocks.engines.pg.runbook import commands
from blocks.engines.pg.servers import Application, BackupTool, Place, SourceServer, TargetServer
from blocks.errors import PermanentError, TransientError
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, CheckStatus, Node, RunbookStep, SourceNode
from blocks.hosts import Host, SSHHost
from blocks.sets import SetWriter

LOG_INTERVAL_SECONDS = 1.0
"""How often the unfinished log segment is sealed: the data at risk while the link is idle."""
SETTLE_SECONDS = 10.0
"""An unfinished segment that nothing of arrived for so long has been sealed as it is."""
RESTART_SECONDS = 600.0
"""Time limit for a server to stop or to start, once it has served."""
END_SECONDS = 120.0
"""Time limit for a server to stop as in a crash."""
_POSITION = (
    "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
    " ELSE pg_current_wal_lsn() END)::text"
)


class LogGap(PermanentError):
    """Log segments that a restore needs are not there."""

    finding = "log-gap"


class NoPlace(PermanentError):
    """The plan gives a part of the database no directory on the recovery host."""

    finding = "path-hard-coded"


class Postgres(Engine):
    """PostgreSQL, restored to the last log record that crossed the gap."""

    _block_type_name = "farside PostgreSQL engine"
    _block_type_slug = "farside-postgres"

    label: ClassVar[str] = "postgres"

    kind: Literal["postgres"] = "postgres"
    source: SourceServer
    backup: BackupTool
    target: TargetServer
    application: Application

    # -- what the plan says -------------------------------------------------------------------

    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        """See Engine."""
        return (("source.host", self.source.host), ("backup.host", self.backup.host))

    def source_endpoints(self, source: FailureDomain) -> list[tuple[str, int]]:  # noqa: ARG002 (the plan has them)
        """See Engine."""
        return [(self.source.address, self.source.port)]

    def predicted_nodes(self, recovery: FailureDomain) -> tuple[Node, ...]:  # noqa: ARG002 (the plan has them)
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
        )

    def survey(self, source: FailureDomain) -> Facts:
        """See Engine."""
        facts = survey.survey(self._superuser(source))
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
        return facts

    def _source_nodes(self, source: FailureDomain) -> Iterator[SourceNode]:
        """The primary, and whatever streams from it and replays: which no receiver of logs does."""
        hosts = {host.address: host.name for host in source.hosts if isinstance(host, SSHHost)}
        yield SourceNode(self.source.host, "primary", self.source.address, self.source.port)
        names = {self.source.host}
        for row in self._superuser(source).rows("postgres", survey.STANDBYS):
            name = hosts.get(row["address"], row["name"])
            if name in names:
                name = f"{row['name']} {row['address']} {row['pid']}"
            names.add(name)
            yield SourceNode(name, "standby", row["address"])

    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """See Engine. The log is followed from before the base backup on."""
        superuser = self._superuser(source)
        host = source.host(self.backup.host)
        secret = source.secret(self.backup.password)
        slot, size = _slot(sink.rehearsal_id), facts["wal_segment_size"]
        conninfo = " ".join(
            f"{key}={quote_conninfo(value)}"
            for key, value in (
                ("host", self.source.address),
                ("port", str(self.source.port)),
                ("user", self.backup.role),
                ("application_name", slot),
            )
        )
        receive = [f"{self.backup.bin_dir}/pg_receivewal", "-W", "-d", conninfo, "-S", slot]
        with steps.step("follow log"):
            directory = f"{sink.work(host)}/wal"
            # What an attempt before this one received begins in the wrong place.
            self._drop_slot(superuser, slot)
            host.run(["rm", "-rf", directory])
            host.run(["mkdir", "-p", "-m", "0700", directory])
            reserved = None
            if facts["in_recovery"]:
                reserved = _reserve(superuser, slot)
            else:
                receiver_input = f"{secret.get_secret_value()}\n".encode()
                host.run([*receive, "--create-slot"], input=receiver_input)
            sink.follow(
                host,
                [*receive, "-D", directory, "--no-loop", "--synchronous"],
                secret=secret,
                directory=directory,
                interval=LOG_INTERVAL_SECONDS,
            )
            _until(
                lambda: (
                    superuser.value(
                        "postgres",
                        "SELECT count(*) FROM pg_replication_slots"
                        f" WHERE active AND slot_name = {literal(slot)}",
                    )
                    == "1"
                ),
                sink.check_follower,
                60,
                f"pg_receivewal on {host.name} does not start to stream",
            )
        taken_at = datetime.now(UTC)
        start = reserved or wal.parse_lsn(str(superuser.value("postgres", _POSITION)))
        with steps.step("base backup") as step:
            step.bytes = self._base(sink, host, conninfo, secret, facts)
        with steps.step("log to the backup's end"):
            stop = self._end_of_log(superuser, sink, slot, facts)
        return Captured(
            taken_at,
            datetime.now(UTC),
            {
                **facts,
                "start_lsn": wal.format_lsn(start),
                "start_segment": wal.segment_of(start, facts["timeline"], size),
                "stop_lsn": wal.format_lsn(stop),
                "stop_segment": wal.segment_of(stop - 1, facts["timeline"], size),
            },
        )

    def _end_of_log(self, superuser: Psql, sink: SetWriter, slot: str, facts: Facts) -> int:
        """Wait until the log that the base backup needs is stored; the position of its end."""
        standby = facts["in_recovery"]
        position = _POSITION if standby else "SELECT pg_switch_wal()::text"
        stop = wal.parse_lsn(str(superuser.value("postgres", position)))
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
        # Nobody can end a segment from a standby: what was received must have been sealed since.
        received = (
            f"SELECT restart_lsn >= {literal(wal.format_lsn(stop))} FROM pg_replication_slots"
            f" WHERE slot_name = {literal(slot)}"
        )
        _until(
            lambda: superuser.value("postgres", received) == "t", sink.check_follower, 120, failure
        )
        since = time.time()

        def sealed(item: SealedObject, at: datetime) -> bool:
            settled = time.time() > since + SETTLE_SECONDS
            late = settled or at.timestamp() > since + 2 * LOG_INTERVAL_SECONDS
            return wal.is_complete(item.name, last) or (late and wal.holds(item.name, last))

        _until(lambda: sink.followed(sealed), sink.check_follower, 120, failure)
        return stop

    def _base(
        self, sink: SetWriter, host: Host, conninfo: str, secret: Any, facts: Facts
    ) -> int | None:
        argv = [f"{self.backup.bin_dir}/pg_basebackup", "-W", "-d", conninfo]
        argv += ["-F", "tar", "-X", "none", "-c", "fast", "--no-sync"]
        spaces = [space["oid"] for space in facts["tablespaces"]]
        if not spaces:
            sources = [Source(name="base.tar.zst.age", kind="stdout")]
            return sink.seal(host, [*argv, "-D", "-"], secret=secret, sources=sources)
        # Several archives at once go into named pipes: no tablespace is spooled to a disk.
        directory = f"{sink.work(host)}/base"
        sources = [
            Source(name=f"{name}.tar.zst.age", kind="fifo", path=f"{directory}/{name}.tar")
            for name in (*spaces, "base")
        ]
        manifest = f"{directory}/backup_manifest"
        sources.append(Source(name="backup_manifest.zst.age", kind="file", path=manifest))
        return sink.seal(host, [*argv, "-D", directory], secret=secret, sources=sources)

    def withdraw(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        """See Engine: the replication slot is all that a capture makes in the server."""
        slot = _slot(rehearsal_id)
        dropped = self._drop_slot(self._superuser(source), slot)
        return [f"replication slot {slot}"] if dropped else []

    def remains(self, source: FailureDomain) -> list[str]:
        """See Engine: a slot that nobody receives from holds the source's log back for ever."""
        rows = self._superuser(source).rows(
            "postgres",
            "SELECT slot_name AS name FROM pg_replication_slots"
            " WHERE slot_name LIKE 'farside\\_r%' AND NOT active ORDER BY 1",
        )
        return [row["name"].removeprefix("farside_").replace("_", "-") for row in rows]

    def _drop_slot(self, superuser: Psql, slot: str) -> bool:
        """Whether there was one. Its receiver is ended: a slot in use cannot be dropped."""
        named = f"FROM pg_replication_slots WHERE slot_name = {literal(slot)}"
        count = f"SELECT count(*) {named}"
        there = superuser.value("postgres", count) != "0"

        def gone() -> bool:
            # The server sees a receiver's end late, and somebody else may drop the slot meanwhile:
            # a session that does so holds it, too, and must not be ended.
            with suppress(PermanentError, TransientError):
                superuser.script(
                    "postgres",
                    f"SELECT pg_terminate_backend(active_pid) {named}"
                    " AND active_pid IN (SELECT pid FROM pg_stat_replication);"
                    f" SELECT pg_drop_replication_slot(slot_name) {named} AND NOT active;",
                )
            return superuser.value("postgres", count) == "0"

        if there:
            _until(gone, lambda: None, 30, f"the replication slot {slot} stays in use")
        return there

    # -- requirements -------------------------------------------------------------------------

    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """See Engine. Working space for the log and for growth: a tenth, at least 1 GiB of log."""
        return tuple(self._needs(place, facts) for place in self.target.places)

    def _needs(self, place: Place, facts: Facts) -> Requirements:
        spaces = sum(int(space["bytes"]) for space in facts["tablespaces"])
        everything = survey.data_bytes(facts)
        directories = {place.data_dir: everything - spaces + everything // 10 + 2**28}
        if facts["tablespaces"]:
            directories[_spaces_dir(place)] = spaces + spaces // 10
        programs = ("postgres", "pg_ctl", "psql", "pg_checksums")
        return Requirements(
            host=place.host,
            programs=(*(f"{place.bin_dir}/{name}" for name in programs), "tar", "cp"),
            directories=directories,
            ports=((place.address, place.port),),
        )

    def passwords(self) -> tuple[str, ...]:
        """See Engine."""
        return (self.application.password,)

    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        """See Engine."""
        where = f"{recovery.name}/{self.target.host}"
        yield from comparing.without_host(facts, self.target.settings, where, foreign)
        for place in self.target.places:
            where = f"{recovery.name}/{place.host}"
            yield from comparing.on_host(facts, recovery.host(place.host), place.bin_dir, where)

    # -- the recovery side --------------------------------------------------------------------

    def restore(self, using: Restoration) -> Service:
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

        nodes = self.predicted_nodes(using.recovery)
        using.spread(bring, nodes)
        primary, _, _ = made[target.host]
        with using.steps.step("replay") as step:
            step.bytes = len(log) * int(facts["wal_segment_size"])
            primary.await_replay()
        with using.steps.step("promote"):
            primary.await_ready()
        servers = {
            host: Psql(
                cluster.host,
                places[host].bin_dir,
                socket,
                places[host].port,
                facts["superuser"],
            )
            for host, (cluster, socket, _) in made.items()
        }
        control = servers[target.host]
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
            reach=f"psql -h {target.address} -p {target.port}"
            f" -U {self.application.role} -d {self.application.database}",
            nodes=tuple(filter(None, (replication.observed(servers[node.host]) for node in nodes))),
            checks=tuple(made[node.host][2] for node in nodes),
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
        cluster = Cluster(using, host, place.bin_dir, place.data_dir, spaces)
        with using.steps.step(f"{lead}prepare"):
            socket_dir = cluster.prepare()
        with using.steps.step(f"{lead}fetch and extract") as step:
            step.bytes = cluster.fetch(log)
        with using.steps.step(f"{lead}verify files"):
            files = cluster.check_files()
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
            access = config.pg_hba_conf(facts, using.recovery.networks, role)
            cluster.configure(conf, access, standby=follows)
            cluster.start()
        name = f"{host.name} {files.name}" if follows else files.name
        return cluster, socket_dir, replace(files, name=name)

    # -- verification -------------------------------------------------------------------------

    def _control(
        self, service: Service, recovery: FailureDomain, place: Place | None = None
    ) -> Psql:
        """A restored server, the primary by default, through its private socket."""
        place = place or self.target
        return Psql(
            recovery.host(place.host),
            place.bin_dir,
            service.controls[place.host],
            place.port,
            service.administrator,
            options=UNHURRIED,
        )

    def verify(
        self, service: Service, using: Restoration, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        """See Engine. Page checksums come last: the servers are stopped and started for them."""
        facts = using.manifest.engine_facts
        control = self._control(service, using.recovery)
        app = self.application
        application = self._application(using.recovery, self.target)
        libraries = _libraries(control.host, self.target, facts)
        role = Replica.role_of(service.rehearsal_id) if self.target.standbys else ""
        plan: list[tuple[str, str, Callable[[], Check]]] = [
            *self._serving(service, using.recovery),
            ("login", "the application logs in", lambda: checks.login(application, app.database)),
            ("roles", "all roles", lambda: checks.roles(control, facts)),
            ("schema-digest", "the manifest's", lambda: checks.schema(control, facts)),
            ("row-counts", "the manifest's", lambda: checks.row_counts(control, facts)),
            ("sequences", "the manifest's", lambda: checks.sequences(control, facts)),
            ("large-objects", "the manifest's", lambda: checks.large_objects(control, facts)),
            ("loadable", "on this host", lambda: checks.loadable(control, facts)),
            ("indexes-valid", "all of them", lambda: checks.indexes_valid(control, facts)),
            ("collation-versions", "as recorded", lambda: checks.collations(control, facts)),
            ("archiving", "off", lambda: checks.archiving(control)),
            ("isolation", "isolated", lambda: checks.isolation(control, libraries, replica=role)),
        ]
        for place in self.target.standbys:
            plan += self._of_standby(service, using, place)
        plan += [(q.name, q.expected, _asked(control, q)) for q in questions]
        write = app.write
        if write is not None:
            plan.append(
                (
                    "application-write",
                    "a committed write",
                    lambda: checks.application_write(application, app.database, write),
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
                lambda: checks.committed_write(control, service.rehearsal_id),
            ),
            ("btree-indexes", "agree with tables", lambda: checks.btrees(control, facts)),
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
        return Psql(host, place.bin_dir, place.address, place.port, app.role, password)

    def _of_standby(
        self, service: Service, using: Restoration, place: Place
    ) -> Iterator[tuple[str, str, Callable[[], Check]]]:
        """What hangs on a standby's own host, which may take the primary's place."""
        facts = using.manifest.engine_facts
        standby = self._control(service, using.recovery, place)
        database = self.application.database

        def login() -> Check:
            return checks.login(self._application(using.recovery, place), database)

        def isolation() -> Check:
            libraries = _libraries(standby.host, place, facts)
            return checks.isolation(standby, libraries, standby=True)

        yield _named(place, "login", "the application logs in", login)
        yield _named(place, "loadable", "on this host", partial(checks.loadable, standby, facts))
        yield _named(
            place, "collation-versions", "as recorded", partial(checks.collations, standby, facts)
        )
        yield _named(place, "archiving", "off", partial(checks.archiving, standby))
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
            lambda: _end(primary.host, self.target),
            lambda: _pg_ctl(standby.host, place, "promote", CATCH_UP_SECONDS),
            service.rehearsal_id,
        )

    def value(self, service: Service, recovery: FailureDomain, database: str, query: str) -> str:
        """See Engine."""
        return self._control(service, recovery).value(database, query.strip().rstrip(";")) or ""

    def dependencies(
        self, service: Service, using: Restoration, foreign: Belongings
    ) -> list[Finding]:
        """See Engine: searched are all definitions that are stored as text, and live settings."""
        facts = using.manifest.engine_facts
        named = foreign
        if (data := str(facts["data_directory"])) != self.target.data_dir:
            named = search.with_path(foreign, data)
        names = [database["name"] for database in facts["databases"]]
        control = self._control(service, using.recovery)
        found = [*search.in_catalogs(control, names, named), *search.in_doubt(control)]
        there = {node.host for node in service.nodes}
        for place in self.target.places:
            if place.host in there:
                server = self._control(service, using.recovery, place)
                found += search.in_live_settings(server, foreign)
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
        if self.target.standbys:
            missed.append("indexes of standbys against their tables: compared on the primary")
        missed += [
            f"database {row['name']}: "
            + ("a broken-off DROP has left it" if row["invalid"] else "it takes no connections")
            for row in facts["closed_databases"]
        ]
        missed += [
            f"logins by {row['method']} (pg_hba.conf:{row['line']}): restored are those by password"
            for row in facts["logins"]
        ]
        return [
            *missed,
            "calls of triggers and functions to anybody but the source",
            "addresses of the source in the rows of tables: only definitions are searched",
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

        using.spread(look, self.predicted_nodes(using.recovery))
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
        _pg_ctl(host, place, "stop", RESTART_SECONDS, "-m", "fast")
        try:
            done = host.run(
                [f"{place.bin_dir}/pg_checksums", "--check", "-D", place.data_dir],
                check=False,
                timeout=START_SECONDS,
            )
        finally:
            _pg_ctl(host, place, "start", RESTART_SECONDS, "-l", log)
        control.value("postgres", "SELECT 1")
        blocks = re.search(r"Blocks scanned:\s+(\d+)", done.text)
        bad = re.search(r"Bad checksums:\s+(\d+)", done.text)
        wrong, right = list[str](), ""
        if done.exit_code == 0 and blocks and bad and bad[1] == "0":
            right = f"{blocks[1]} pages, none bad"
        else:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            wrong = said[:3] or [done.text or f"pg_checksums ended with {done.exit_code}"]
        return checked("page-checksums", expected, wrong, right, finding="page-corrupt")

    def recovered_until(self, service: Service, recovery: FailureDomain) -> datetime | None:
        """See Engine: the commit time of the last transaction that was replayed."""
        control = self._control(service, recovery)
        rows = control.rows("postgres", "SELECT pg_last_xact_replay_timestamp() AS at")
        return datetime.fromisoformat(rows[0]["at"]) if rows[0]["at"] else None

    def ticks(self, service: Service, recovery: FailureDomain, database: str, table: str) -> Ticks:
        """See Engine. A time without a zone is UTC."""
        control = self._control(service, recovery)
        name = ".".join(identifier(part) for part in table.split("."))
        row = control.rows(
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

    def destroy(self, service: Service, recovery: FailureDomain) -> None:  # noqa: ARG002 (the plan has its places)
        """See Engine."""
        for place in self.target.places:
            _end(recovery.host(place.host), place)

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
    wanted = comparing.libraries(facts)
    lacking = comparing.absent(host, place.bin_dir, [f"lib:{name}" for name in wanted])
    return [name for name in wanted if name not in lacking]


def _pg_ctl(
    host: Host, place: Place, action: str, seconds: float, *options: str, check: bool = True
) -> None:
    """Have pg_ctl do something, and wait for it: by itself it gives up after a minute."""
    argv = [f"{place.bin_dir}/pg_ctl", "-D", place.data_dir, "-w", "-s", *options]
    host.run([*argv, "-t", f"{seconds:.0f}", action], check=check, timeout=seconds)


def _end(host: Host, place: Place) -> None:
    """Stop a server as a crash would."""
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


def _slot(rehearsal_id: str) -> str:
    return "farside_" + re.sub(r"[^a-z0-9]", "_", rehearsal_id.lower())


def _reserve(superuser: Psql, slot: str) -> int:
    """Make a slot on a standby; the position from which it keeps the log.

    A base backup of a standby begins at its last restart point, which lies behind what it has
    replayed: the slot has to begin there, too.
    """
    made = f"SELECT lsn::text FROM pg_create_physical_replication_slot({literal(slot)}, true)"
    return wal.parse_lsn(str(superuser.value("postgres", made)))


def _asked(control: Psql, q: SqlQuestion) -> Callable[[], Check]:
    # A question may be about the server's own settings.
    asking = replace(control, options="", preamble=UNHURRIED_LATER)
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
