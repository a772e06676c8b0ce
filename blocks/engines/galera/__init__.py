"""MariaDB Galera (tested: 10.11): a physical backup, restored as a cluster of any number of nodes.

The backup is what `mariadb-backup` streams from a node that is Synced, with its place in the
cluster's history. Each restored node is made from it by itself, side by side with the others, and
is given the same place in the history of a new cluster, so that they find each other and need no
copy from a donor. There is no log besides: what was committed after the backup is lost, which is
what the recovery point says.
"""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar, Literal

from pydantic import Field

from blocks.agent.protocol.parts import Source
from blocks.artifact.manifest import LogIndex, Manifest
from blocks.domain import FailureDomain
from blocks.engines.checks import SqlQuestion, Ticks
from blocks.engines.common.capping import capped
from blocks.engines.common.programs import asked_by
from blocks.engines.engine import Captured, Requirements
from blocks.engines.galera import (
    backup,
    checks,
    counting,
    details,
    last_look,
    membership,
    references,
    rows,
    sequences,
    settings,
    survey,
)
from blocks.engines.galera import compare as comparing
from blocks.engines.galera.mariadb import Mariadb, identifier, literal, option
from blocks.engines.galera.plan import (
    Application,
    SourceCluster,
    SourceNode,
    TargetCluster,
    address_and_port,
)
from blocks.engines.galera.restore import BACKUP, NodeUnderRestore, kill
from blocks.engines.galera.runbook import commands
from blocks.engines.legacy import AnyFacts as Facts
from blocks.engines.legacy import LegacyEngine, LegacyFacts, Service, asked, guarded
from blocks.engines.restoration import Restoration, Steps
from blocks.engines.restored import ROWS_NOT_SEARCHED
from blocks.errors import PermanentError, TransientError
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, Node, RunbookStep
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.remote import resolving
from blocks.repositories.farside.writer import SetWriter

_PLACE = re.compile(r"Writing Galera info succeeded with (\S+):(\d+)")
_LOGS = 2**29
"""Bytes beside the data: InnoDB's log and system tablespace, and what Galera keeps for others."""


class Galera(LegacyEngine):
    """MariaDB Galera, restored to a backup."""

    _block_type_name = "farside Galera engine"
    _block_type_slug = "farside-galera"

    label: ClassVar[str] = "galera"
    version_words: ClassVar[Mapping[str, str]] = asked_by(
        "--version",
        *("galera_recovery", "garbd", "mariadb", "mariadb-backup", "mariadb-dump", "mariadbd"),
        *("mariadb-install-db", "mbstream", "mysql", "mysqld", "mysqldump"),
    )
    growing: ClassVar[frozenset[str]] = frozenset({"row-counts", "table-checks", "nodes-agree"})

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
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        """See Engine."""
        return tuple(("source.nodes.host", node.host) for node in self.source.nodes)

    @property
    def source_endpoints(self) -> list[tuple[str, int]]:
        """See Engine."""
        return [(node.address, node.port) for node in self.source.nodes]

    @property
    def predicted_nodes(self) -> tuple[Node, ...]:
        """See Engine."""
        return tuple(Node(node.host, "node", node.address, node.port) for node in self.target.nodes)

    @property
    def passwords(self) -> tuple[str, ...]:
        """See Engine."""
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
                wrong = survey.why_not(client.status())
            except TransientError as error:
                wrong = error.message
            if not wrong:
                return client
            why.append(f"{node.host}: {wrong}")
        raise survey.NotSynced(
            f"no node can be backed up: {'; '.join(why)}",
            operation="survey",
            domain=source.name,
            hint="bring the cluster into order; only a node that is Synced is backed up",
        )

    def survey(self, source: FailureDomain) -> Facts:
        """See Engine."""
        node = self._living(source)
        known = {
            **survey.survey(node),
            "details": details.digests(node),
            "sequences": sequences.known(node),
        }
        return LegacyFacts(self, known)

    def check_facts(self, facts: Facts) -> None:
        """See Engine."""
        settings.check(facts)

    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """See Engine. The backup holds what its node had committed when it ended."""
        node = self._living(source)
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
        tables = counting.exact(node, counted, facts["tables"])
        said = host.run(["grep", "-a", "Galera info", f"{work}/backup.log"], check=False).text
        host.run(["rm", "-f", f"{work}/backup.log"])
        place = _PLACE.search(said)
        if place is None:
            raise PermanentError(
                "mariadb-backup does not say where in the cluster's history the backup is",
                operation="snapshot",
                domain=source.name,
                host=host.name,
                hint="see whether its version is the server's",
            )
        taken = {"node": host.name, "state_uuid": place[1], "seqno": int(place[2])}
        with steps.step("look again"):
            since = last_look.differences(node, facts)
        known = {**facts, "tables": tables, "backup": taken, last_look.FACT: since}
        return Captured(taken_at, datetime.now(UTC), LegacyFacts(self, known))

    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:  # noqa: ARG002 (nothing to remove)
        """See Engine: a backup makes nothing in the cluster."""
        return []

    def leftovers(self, source: FailureDomain) -> list[str]:  # noqa: ARG002 (nothing can)
        """See Engine: a backup makes nothing in the cluster."""
        return []

    # -- requirements -------------------------------------------------------------------------

    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """See Engine. Replaying the backup's log lets the data grow."""
        tools = ("mariadb", "mariadb-backup", "mbstream")
        programs = (self.target.server, *(f"{self.target.bin_dir}/{name}" for name in tools))
        size = int(facts["bytes"])
        return tuple(
            Requirements(
                host=node.host,
                # The last ones are what a node joins another with.
                programs=(*programs, "setsid", "socat", "openssl", "ss"),
                directories={node.data_dir: size + size // 10 + _LOGS},
                ports=node.ports,
            )
            for node in self.target.nodes
        )

    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        """See Engine."""
        yield from comparing.without_host(facts, self.target, foreign)
        for node in self.target.nodes:
            yield from comparing.on_host(
                facts, recovery.host(node.host), self.target, node, recovery.name
            )

    # -- the recovery side --------------------------------------------------------------------

    def bring_up(self, using: Restoration) -> Service:
        """See Engine: the nodes are made side by side; the first one begins the cluster."""
        cluster, history = _cluster(using.rehearsal_id), str(uuid.uuid4())
        made = {node.host: NodeUnderRestore(using, self.target, node) for node in self.target.nodes}
        first = next(iter(made.values()))
        accounts = sorted({item.account() for item in made.values()})
        several = len(made) > 1

        def bring(node: Node) -> None:
            item = made[node.host]
            lead = f"{node.host}: " if several else ""
            with using.steps.step(f"{lead}fetch and extract", grows=True) as step:
                step.bytes = item.fetch()
            with using.steps.step(f"{lead}replay log", grows=True):
                item.prepare()
            with using.steps.step(f"{lead}new identity"):
                item.configure(cluster, history, accounts)

        def join(node: Node) -> None:
            with using.steps.step(f"{node.host}: join"):
                made[node.host].start()
                made[node.host].await_synced()

        nodes = self.predicted_nodes
        using.spread(bring, nodes)
        with using.steps.step("begin cluster"):
            first.start("--wsrep-new-cluster")
            first.await_synced()
        # One after the other: each join is a write set, too, and a node that is just receiving what
        # it lacks fails for want of that one ("IST didn't contain all write sets").
        for node in nodes[1:]:
            join(node)
        return Service(
            rehearsal_id=using.rehearsal_id,
            host=first.host.name,
            address=first.node.address,
            port=first.node.port,
            controls={name: item.socket_dir for name, item in made.items()},
            administrator=first.account(),
            reach=f"mariadb -h {first.node.address} -P {first.node.port}"
            f" -u {self.application.user} -p {self.application.database}",
            nodes=self._observed(first.control()),
        )

    def _observed(self, control: Mariadb) -> tuple[Node, ...]:
        """The nodes that the cluster itself knows, by where clients reach them."""
        hosts = {node.address: node.host for node in self.target.nodes}
        hosts |= {node.endpoint: node.host for node in self.target.nodes}
        found = []
        for place in control.status()["wsrep_incoming_addresses"].split(","):
            address, port = address_and_port(place)
            host = hosts.get(place) or hosts.get(address or "", place)
            found.append(Node(host, "node", address or "", port or 0))
        return tuple(sorted(found, key=lambda node: node.host))

    # -- verification -------------------------------------------------------------------------

    def _control(self, service: Service, recovery: FailureDomain, name: str) -> Mariadb:
        """A restored node, by its own socket, as the account that it runs as."""
        host = recovery.host(name)
        account = host.run(["id", "-un"]).text.strip()
        return Mariadb(host, self.target.bin_dir, account, socket=f"{service.controls[name]}/s")

    def _application(self, service: Service, recovery: FailureDomain) -> Mariadb:
        """The node that clients write to, as the application: what a plan asks, its user runs."""
        return Mariadb(
            recovery.host(service.host),
            self.target.bin_dir,
            self.application.user,
            address=service.address,
            port=service.port,
            password=recovery.secret(self.application.password),
            ca_file=self.target.ca_file,
            neutral=False,
        )

    def _nodes(self, service: Service, recovery: FailureDomain) -> dict[str, Mariadb]:
        return {name: self._control(service, recovery, name) for name in service.controls}

    def verify(
        self, service: Service, using: Restoration, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        """See Engine. What compares whole tables comes last."""
        facts, target, app = using.manifest.engine_facts, self.target, self.application
        nodes = self._nodes(service, using.recovery)
        first = nodes[service.host]
        application = self._application(service, using.recovery)
        cluster = _cluster(service.rehearsal_id)
        plan: list[tuple[str, str, Callable[[], Check]]] = [
            ("login", "the application logs in", lambda: checks.login(application, app.database)),
            ("synced", "every node", lambda: membership.synced(nodes)),
            ("membership", "the plan's", lambda: membership.membership(nodes, target)),
            ("identity", "a new cluster", lambda: membership.identity(nodes, facts, cluster)),
            ("isolation", "isolated", lambda: checks.isolation(nodes)),
            ("plugins", "what the data needs", lambda: checks.plugins(nodes, facts)),
            ("logins", "the manifest's", lambda: checks.accounts(nodes, facts)),
            ("access", "no less than the source's", lambda: checks.access(nodes, facts)),
            ("privileges", "the source's", lambda: checks.privileges(nodes, facts)),
            ("schema-digest", "the manifest's", lambda: checks.definitions(nodes, facts)),
            ("row-counts", "the manifest's", lambda: checks.row_counts(first, facts)),
            ("sequences", "no value behind", lambda: checks.sequences(nodes, facts)),
            *((q.name, q.expected, _asked(application, q)) for q in questions),
        ]
        write = app.write
        if write is not None:
            plan.append(
                (
                    "application-write",
                    "a committed write",
                    lambda: checks.application_write(application, app.database, write),
                )
            )
        plan += [
            (
                "committed-write",
                "a committed row",
                lambda: checks.committed_write(nodes, service.rehearsal_id),
            ),
            ("table-checks", "nothing is found", lambda: checks.table_checks(nodes, facts)),
        ]
        if len(nodes) > 1:
            plan.append(("nodes-agree", "the same rows", lambda: membership.agree(nodes)))
        for name, expected, run in plan:
            yield from guarded(name, expected, run)

    def survive(self, service: Service, using: Restoration) -> Iterator[Check]:
        """See Engine: of three or more nodes, the one that clients write to is killed."""
        if len(self.target.nodes) < 3:
            return
        nodes = self._nodes(service, using.recovery)
        others = {name: node for name, node in nodes.items() if name != service.host}
        dead = using.host(service.host)

        def run() -> Check:
            membership.whole(nodes)
            kill(dead, using.work(dead))
            return membership.survives(others, service.rehearsal_id, dead.name)

        yield from guarded("failover", "the others serve when one has died", run)

    def value(self, service: Service, recovery: FailureDomain, database: str, query: str) -> str:
        """See Engine."""
        return self._application(service, recovery).value(database, query)

    def dependencies(
        self, service: Service, using: Restoration, foreign: Belongings, unseen: list[str]
    ) -> list[Finding]:
        """See Engine: searched are all definitions that are stored as text, and who may connect.

        Where the plan says so, the rows of tables, too.
        """
        control = self._control(service, using.recovery, service.host)
        texts = references.texts(control)
        if using.search_rows:
            texts += rows.texts(control, foreign, using.search_rows, unseen)
        used = (item for item in texts if not references.is_comment(item[0]))
        named = resolving.used_by(used, foreign)
        host = using.host(service.host)
        leading = resolving.leading_to(host, using.rehearsal_id, named, foreign, unseen)
        return capped([*references.in_cluster(control, texts, foreign), *leading])

    def not_verified(self, facts: Facts) -> list[str]:
        """See Engine."""
        missed = []
        if (count := len(self.target.nodes)) == 2:
            missed.append("the death of a node: of two nodes, one alone has no quorum")
        elif count == 1:
            missed.append("the death of a node, and that nodes agree: there is one")
        outbound = len(facts["tables"]) - len(survey.local(facts["tables"]))
        if outbound:
            missed.append(f"{outbound} tables of other servers: to read them would call those")
        estimated = sum(item.get("exact") is None for item in survey.local(facts["tables"]))
        if estimated:
            missed.append(f"rows of {estimated} tables: only against the source's own estimates")
        if indexes := facts.get("fulltext"):
            missed.append(f"{indexes} full-text indexes: CHECK TABLE reads nothing of them")
        if gone := settings.dropped(facts):
            missed.append(f"settings of the source that are not carried over: {', '.join(gone)}")
        missed += [f"replication from {host}: it is not restored" for host in facts["upstreams"]]
        for name in ("gssapi", "pam"):
            by = sum(how.split(",")[0] == name for how in facts.get("demands", {}).values())
            if by:
                missed.append(f"logins of {by} accounts by {name}: the host decides, not the data")
        asleep = sorted(item["name"] for item in survey.acting(facts["plugins"]))
        missed += [f"what plugin {name} does by itself: it is kept off" for name in asleep]
        missed.append(ROWS_NOT_SEARCHED)
        return missed

    def recovered_until(self, service: Service, recovery: FailureDomain) -> datetime | None:  # noqa: ARG002 (nothing there is asked)
        """See Engine: MariaDB stores no time of a commit; the heartbeat's rows tell."""
        return None

    def ticks(self, service: Service, recovery: FailureDomain, database: str, table: str) -> Ticks:
        """See Engine. The times are UTC."""
        control = self._control(service, recovery, service.host)
        name = ".".join(identifier(part) for part in table.split("."))
        schema, _, bare = table.rpartition(".")
        kinds = control.rows(
            "SELECT TABLE_TYPE FROM information_schema.TABLES"
            f" WHERE TABLE_SCHEMA = {literal(schema or database)} AND TABLE_NAME = {literal(bare)}"
        )
        if kinds not in ([["BASE TABLE"]], [["SYSTEM VERSIONED"]]):
            raise PermanentError(
                f"the heartbeat {table} is no table: farside reads no view as administrator",
                operation="heartbeat",
                hint="name the table itself in the plan",
            )
        query = (
            f"SET time_zone = '+00:00'; USE {identifier(database)};"
            f" SELECT COUNT(*), MAX(id), (SELECT at FROM {name} ORDER BY id DESC LIMIT 1),"
            f" IF(MIN(id) > 1, 1, (SELECT MIN(h.id) + 1 FROM {name} h LEFT JOIN {name} n"
            f" ON n.id = h.id + 1 WHERE n.id IS NULL AND h.id < (SELECT MAX(id) FROM {name})))"
            f" FROM {name};"
        )
        count, newest, at, missing = control.script("", query, timeout=600).split("\t")
        if newest == "NULL":
            return Ticks(0, None, None, None)
        gap = None if missing.strip() == "NULL" else int(missing)
        return Ticks(int(count), int(newest), datetime.fromisoformat(at).replace(tzinfo=UTC), gap)

    def destroy(self, service: Service, recovery: FailureDomain) -> None:
        """See Engine."""
        for name in service.controls:
            host: Host = recovery.host(name)
            kill(host, f"{host.work_root}/{service.rehearsal_id}")

    def runbook(
        self,
        manifest: Manifest,
        log: LogIndex,  # noqa: ARG002 (there is none)
        recovery: FailureDomain,
    ) -> tuple[RunbookStep, ...]:
        """See Engine."""
        return commands(manifest, recovery, self.target)


def _cluster(rehearsal_id: str) -> str:
    """The restored cluster's name (Galera allows 32 bytes)."""
    return f"farside-{rehearsal_id}"[:32]


def _asked(control: Mariadb, q: SqlQuestion) -> Callable[[], Check]:
    return lambda: asked(q, lambda: control.value(q.database, q.sql, timeout=checks.HOURS))
