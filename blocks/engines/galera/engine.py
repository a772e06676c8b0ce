"""The engine of MariaDB Galera."""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from blocks.agent.protocol.parts import Source
from blocks.artifact.manifest import LogIndex, Manifest
from blocks.domain import FailureDomain
from blocks.engines.common.programs import asked_by
from blocks.engines.engine import Captured, Engine, Requirements
from blocks.engines.facts import Facts
from blocks.engines.galera import backup, counting, details, last_look, membership, sequences
from blocks.engines.galera import compare as comparing
from blocks.engines.galera.facts import BackupPlace, GaleraFacts, own, read
from blocks.engines.galera.mariadb import Mariadb, option
from blocks.engines.galera.plan import Application, SourceCluster, SourceNode, TargetCluster
from blocks.engines.galera.restore import BACKUP, NodeUnderRestore
from blocks.engines.galera.restored import GaleraRestored, cluster_name
from blocks.engines.galera.runbook import commands
from blocks.engines.galera.survey import NotSynced, survey, why_not
from blocks.engines.restoration import Restoration, Steps
from blocks.errors import PermanentError, TransientError
from blocks.evidence.findings import Finding
from blocks.evidence.record import Node, RunbookStep
from blocks.hosts.host import Host
from blocks.materials import Material
from blocks.ownership import Belongings
from blocks.repositories.farside.writer import SetWriter

_PLACE = re.compile(r"Writing Galera info succeeded with (\S+):(\d+)")
_LOGS = 2**29
"""Bytes beside the data: InnoDB's log and system tablespace, and what Galera keeps for others."""


class Galera(Engine):
    """MariaDB Galera, restored to a backup."""

    _block_type_name = "farside Galera engine"
    _block_type_slug = "farside-galera"

    label: ClassVar[str] = "galera"
    takes: ClassVar[frozenset[Material]] = frozenset({Material.MARIADB_BACKUP})
    version_words: ClassVar[Mapping[str, str]] = asked_by(
        "--version",
        *("galera_recovery", "garbd", "mariadb", "mariadb-backup", "mariadb-dump", "mariadbd"),
        *("mariadb-install-db", "mbstream", "mysql", "mysqld", "mysqldump"),
    )

    kind: Literal["galera"] = Field(
        default="galera", description="galera: MariaDB with Galera, of one series on both sides."
    )
    source: SourceCluster = Field(description="The cluster that is backed up, and who asks it.")
    target: TargetCluster = Field(description="The cluster that is restored.")
    application: Application = Field(
        description="The application's own user, who must be able to use what was restored."
    )

    # -- what the plan says -------------------------------------------------------------------

    @property
    @override
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        return tuple(("source.nodes.host", node.host) for node in self.source.nodes)

    @property
    @override
    def source_endpoints(self) -> list[tuple[str, int]]:
        return [(node.address, node.port) for node in self.source.nodes]

    @property
    @override
    def predicted_nodes(self) -> tuple[Node, ...]:
        return tuple(Node(node.host, "node", node.address, node.port) for node in self.target.nodes)

    @property
    @override
    def passwords(self) -> tuple[str, ...]:
        return (self.application.password,)

    # -- the source ---------------------------------------------------------------------------

    def _at(self, source: FailureDomain, node: SourceNode) -> Mariadb:
        return Mariadb(
            source.host(node.host),
            self.source.bin_dir,
            self.source.user,
            address=node.address,
            port=node.port,
            password=source.secret(self.source.password),
        )

    def _living(self, source: FailureDomain) -> Mariadb:
        """The first node that is a whole member: a dead one does not keep us from a backup.

        Raises NotSynced, and what a node that is there refuses with.
        """
        why = []
        for node in self.source.nodes:
            client = self._at(source, node)
            try:
                wrong = why_not(client.status())
            except TransientError as error:
                wrong = error.message
            if not wrong:
                return client
            why.append(f"{node.host}: {wrong}")
        raise NotSynced(
            f"no node can be backed up: {'; '.join(why)}",
            operation="survey",
            domain=source.name,
            hint="bring the cluster into order; only a node that is Synced is backed up",
        )

    @override
    def survey(self, source: FailureDomain) -> GaleraFacts:
        node = self._living(source)
        return replace(survey(node), details=details.digests(node), sequences=sequences.known(node))

    @override
    def read_facts(self, said: Mapping[str, Any]) -> GaleraFacts:
        return read(said)

    @override
    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """The backup holds what its node had committed when it ended."""
        known, node = own(facts), self._living(source)
        host, work = node.host, sink.work(node.host)
        assert node.password is not None
        taken_at = datetime.now(UTC)
        with steps.step("count rows", grows=True):
            counted = counting.before(node)
        argv = [f"{self.source.bin_dir}/mariadb-backup", "--backup"]
        argv += ["--stream=xbstream", "--galera-info", f"--target-dir={work}"]
        argv += [f"--host={node.address}", f"--port={node.port}", f"--user={node.user}"]
        with steps.step("backup", grows=True) as step:
            step.bytes = sink.seal(
                host,
                backup.command(host.python, work, argv, rate=sink.load.rate),
                secret=option(node.password),
                sources=[Source(name=BACKUP, kind="stdout")],
            )
        tables = counting.exact(node, counted, known.tables)
        place = _place(host, work)
        with steps.step("look again"):
            since = last_look.differences(node, known)
        taken = replace(known, tables=tables, backup=place, since=since)
        return Captured(taken_at, datetime.now(UTC), taken)

    @override
    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        return []  # a backup makes nothing in the cluster

    @override
    def leftovers(self, source: FailureDomain) -> list[str]:
        return []

    # -- the recovery side --------------------------------------------------------------------

    @override
    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        tools = ("mariadb", "mariadb-backup", "mbstream")
        programs = (self.target.server, *(f"{self.target.bin_dir}/{name}" for name in tools))
        size = own(facts).bytes
        return tuple(
            Requirements(
                host=node.host,
                # The last ones are what a node joins another with.
                programs=(*programs, "setsid", "socat", "openssl", "ss"),
                # Replaying the backup's log lets the data grow.
                directories={node.data_dir: size + size // 10 + _LOGS},
                ports=node.ports,
            )
            for node in self.target.nodes
        )

    @override
    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        known = own(facts)
        yield from comparing.without_host(known, self.target, foreign)
        for node in self.target.nodes:
            host = recovery.host(node.host)
            yield from comparing.on_host(known, host, self.target, node, recovery.name)

    @override
    def restore(self, using: Restoration) -> GaleraRestored:
        """The nodes are made side by side; the first one begins the cluster."""
        made = {node.host: NodeUnderRestore(using, self.target, node) for node in self.target.nodes}
        first, *others = made.values()
        history, accounts = str(uuid.uuid4()), sorted({item.account() for item in made.values()})

        def bring(node: Node) -> None:
            lead = f"{node.host}: " if others else ""
            _bring(using, made[node.host], lead, history, accounts)

        using.spread(bring, self.predicted_nodes)
        with using.steps.step("begin cluster"):
            first.start("--wsrep-new-cluster")
            first.await_synced()
        # One after the other: each join is a write set, too, and a node that is just receiving what
        # it lacks fails for want of that one ("IST didn't contain all write sets").
        for item in others:
            with using.steps.step(f"{item.node.host}: join"):
                item.start()
                item.await_synced()
        controls = {name: item.control() for name, item in made.items()}
        nodes = membership.observed(controls[first.node.host], self.target)
        return GaleraRestored(using, self.target, self.application, controls=controls, nodes=nodes)

    @override
    def runbook(
        self, manifest: Manifest, log: LogIndex, recovery: FailureDomain
    ) -> tuple[RunbookStep, ...]:
        return commands(manifest, read(manifest.engine_facts), recovery, self.target)


def _place(host: Host, work: str) -> BackupPlace:
    """Where in history the backup is, by its own log, which goes. Raises PermanentError."""
    said = host.run(["grep", "-a", "Galera info", f"{work}/backup.log"], check=False).text
    host.run(["rm", "-f", f"{work}/backup.log"])
    place = _PLACE.search(said)
    if place is None:
        raise PermanentError(
            "mariadb-backup does not say where in the cluster's history the backup is",
            operation="snapshot",
            domain=host.domain,
            host=host.name,
            hint="see whether its version is the server's",
        )
    return BackupPlace(host.name, place[1], int(place[2]))


def _bring(
    using: Restoration, item: NodeUnderRestore, lead: str, history: str, accounts: Sequence[str]
) -> None:
    """Make one node of the backup, with a place in the history of a new cluster."""
    with using.steps.step(f"{lead}fetch and extract", grows=True) as step:
        step.bytes = item.fetch()
    with using.steps.step(f"{lead}replay log", grows=True):
        item.prepare()
    with using.steps.step(f"{lead}new identity"):
        item.configure(cluster_name(using.rehearsal_id), history, accounts)
