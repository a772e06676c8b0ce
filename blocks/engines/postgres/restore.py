"""Brings servers up from a set: the primary, and standbys that follow it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from blocks.artifact.manifest import SealedObject
from blocks.engines.checks import run_check
from blocks.engines.postgres import compare, config, outward, position, replay, standbys, wal
from blocks.engines.postgres.cluster import Cluster
from blocks.engines.postgres.facts import SetFacts, of_set
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.plan import Application, Place, TargetServer
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.restored import PostgresRestored
from blocks.engines.postgres.servers import Servers
from blocks.engines.postgres.standbys import Replica
from blocks.engines.restoration import Restoration
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import Check, Node


class LogGap(PermanentError):
    """Log segments that a restore needs are not there."""

    finding = PostgresFinding.LOG_GAP


class NoPlace(PermanentError):
    """The plan gives a part of the database no directory on the recovery host."""

    finding = FindingId.PATH_HARD_CODED


def spaces_dir(place: Place) -> str:
    """The parent directory for tablespaces. Raises NoPlace if the plan gives none."""
    if place.tablespaces is None:
        raise NoPlace(
            "the source has tablespaces, and the plan gives them no place",
            operation="restore",
            host=place.host,
            hint="set tablespaces of engine.target, or of its standby, to a directory there",
        )
    return place.tablespaces


def log_of(using: Restoration) -> dict[str, SealedObject]:
    """The log that a restore needs, file by file. Raises LogGap if any of it is missing."""
    facts = of_set(using.facts)
    log = wal.needed(using.log.objects, facts.start_segment)
    missing = wal.gaps(log, facts.start_segment, facts.stop_segment, facts.wal_segment_size)
    if missing:
        raise LogGap(
            f"the log has gaps: {', '.join(missing[:5])} never crossed",
            operation="restore",
            domain=using.recovery.name,
            hint="check the transfer of log segments; choose an older set if this one is lost",
        )
    return log


def restore(using: Restoration, target: TargetServer, application: Application) -> PostgresRestored:
    """Bring the servers of a target up, isolated. Raises as Engine.restore."""
    return _Restore(using, target, application, log_of(using)).run()


@dataclass(frozen=True, slots=True)
class _Started:
    """A server that has been started: the directory of its socket, the check of its files."""

    cluster: Cluster
    socket: str
    files: Check


class _Restore:
    """One restore."""

    def __init__(
        self,
        using: Restoration,
        target: TargetServer,
        application: Application,
        log: Mapping[str, SealedObject],
    ) -> None:
        self._using, self._target, self._application = using, target, application
        self._log = log
        self._facts: SetFacts = of_set(using.facts)
        self._replica = Replica.new(using.rehearsal_id)
        self._made = dict[str, _Started]()

    def run(self) -> PostgresRestored:
        """Start all servers, await the primary's replay, and let the standbys follow it."""
        using, target = self._using, self._target
        places = {place.host: place for place in target.places}

        def bring(node: Node) -> None:
            self._made[node.host] = self._started(places[node.host])

        using.spread(bring, target.nodes)
        primary = self._made[target.host].cluster
        with using.steps.step("replay") as step:
            reached = primary.await_replay()
            if reached is not None:
                step.bytes = max(0, reached - wal.parse_lsn(self._facts.start_lsn))
        with using.steps.step("promote"):
            primary.await_ready()
        sockets = {host: made.socket for host, made in self._made.items()}
        servers = Servers(
            using.recovery,
            target,
            self._application,
            sockets,
            self._facts.superuser,
            self._facts.major,
        )
        control = servers.control()
        end, size = position.end_of_replay(control), self._facts.wal_segment_size
        whole = run_check(replay.check(control.host, primary.archive, self._log, size, end))
        if target.standbys:
            with using.steps.step("standbys follow"):
                self._follow(control, servers)
        seen = (standbys.observed(servers.control(place)) for place in target.places)
        return PostgresRestored(
            using,
            servers,
            nodes=tuple(filter(None, seen)),
            checks=(*(self._made[node.host].files for node in target.nodes), whole),
        )

    def _follow(self, control: Psql, servers: Servers) -> None:
        target = self._target
        self._replica.create(control)
        for place in target.standbys:
            self._made[place.host].cluster.await_ready()
        others = {place.host: servers.control(place) for place in target.standbys}
        standbys.await_following(control, others)
        if target.synchronous:
            standbys.be_synchronous(control, target.standbys)

    def _started(self, place: Place) -> _Started:
        """One server, from its making to its start."""
        using, facts, target = self._using, self._facts, self._target
        host = using.host(place.host)
        lead = f"{host.name}: " if target.standbys else ""
        spaces = {space.oid: f"{spaces_dir(place)}/{space.oid}" for space in facts.tablespaces}
        cluster = Cluster(using, host, place.bin_dir, place.data_dir, place.log, spaces)
        with using.steps.step(f"{lead}prepare"):
            socket = cluster.prepare(place.address, place.port)
        with using.steps.step(f"{lead}fetch and extract", grows=True) as step:
            step.bytes = cluster.fetch(self._log)
        with using.steps.step(f"{lead}verify files", grows=True):
            files = cluster.check_files()
        with using.steps.step(f"{lead}search log"):
            self._check_log(cluster)
        with using.steps.step(f"{lead}configure"):
            self._configure(cluster, place, socket)
            cluster.start()
        name = files.name if place is target else f"{host.name} {files.name}"
        return _Started(cluster, socket, replace(files, name=name))

    def _check_log(self, cluster: Cluster) -> None:
        """Raise NoPlace if the log's replay would write where the plan gives it no place."""
        host, size = cluster.host, self._facts.wal_segment_size
        start = cluster.replay_begins()
        for made in outward.created_tablespaces(host, cluster.archive, self._log, size, start):
            raise NoPlace(
                f"the log creates tablespace {made.oid} at {made.path}: its replay would write"
                " there, whatever the plan says",
                operation="restore",
                domain=self._using.recovery.name,
                host=host.name,
                hint="restore a set that was taken since: a fresh one has that tablespace in"
                " its base backup, and the plan gives it a place",
            )

    def _configure(self, cluster: Cluster, place: Place, socket: str) -> None:
        facts, target, host = self._facts, self._target, cluster.host
        follows = place is not target
        conf = config.postgresql_conf(
            facts,
            address=place.address,
            port=place.port,
            data_dir=place.data_dir,
            socket_dir=socket,
            memory_bytes=cluster.memory(),
            restore_command=cluster.restore_command,
            libraries=compare.loaded_here(facts, host, place.bin_dir),
            own=target.settings,
            upstream=self._replica.conninfo(target, host.name) if follows else "",
        )
        role = self._replica.role if target.standbys else ""
        networks = self._using.recovery.networks
        access = config.pg_hba_conf(facts.roles, networks, self._application.role, role)
        cluster.configure(conf, access, standby=follows)
