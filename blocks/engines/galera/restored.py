"""A restored Galera cluster: asked, searched and stopped."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial

from typing_extensions import override

from blocks.engines.checks import Answer, CheckSpec, SqlQuestion, Ticks, question
from blocks.engines.common.capping import capped
from blocks.engines.galera import (
    accounts,
    application,
    counts,
    isolation,
    membership,
    objects,
    references,
    rows,
    soundness,
    unverified,
)
from blocks.engines.galera.facts import own
from blocks.engines.galera.mariadb import Mariadb, identifier, literal
from blocks.engines.galera.nodes import HOURS
from blocks.engines.galera.plan import Application, TargetCluster
from blocks.engines.galera.restore import kill
from blocks.engines.restoration import Restoration
from blocks.engines.restored import References, Restored
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import Node
from blocks.ownership import Belongings
from blocks.remote import resolving


def cluster_name(rehearsal_id: str) -> str:
    """The restored cluster's name (Galera allows 32 bytes)."""
    return f"farside-{rehearsal_id}"[:32]


class GaleraRestored(Restored):
    """A cluster of its own. Clients write to the first node."""

    def __init__(
        self,
        using: Restoration,
        target: TargetCluster,
        application: Application,
        *,
        controls: Mapping[str, Mariadb],
        nodes: tuple[Node, ...],
    ) -> None:
        """`controls` are its nodes by host, the first one first, each asked by its own socket."""
        first = target.nodes[0]
        super().__init__(
            using,
            nodes=nodes,
            host=first.host,
            reach=f"mariadb -h {first.address} -P {first.port}"
            f" -u {application.user} -p {application.database}",
        )
        self._target = target
        self._application = application
        self._controls = controls
        self._first = first

    @cached_property
    def _client(self) -> Mariadb:
        """The node that clients write to, as the application: what a plan asks, its user runs."""
        recovery = self.using.recovery
        return Mariadb(
            recovery.host(self.host),
            self._target.bin_dir,
            self._application.user,
            address=self._first.address,
            port=self._first.port,
            password=recovery.secret(self._application.password),
            ca_file=self._target.ca_file,
            neutral=False,
        )

    @override
    def usable(self, questions: Sequence[SqlQuestion]) -> Iterator[CheckSpec]:
        nodes, facts, app = self._controls, own(self.using.facts), self._application
        yield isolation.isolation(nodes)
        yield membership.identity(nodes, facts, cluster_name(self.using.rehearsal_id))
        yield membership.membership(nodes, self._target)
        yield membership.synced(nodes)
        yield accounts.access(nodes, facts)
        yield application.login(lambda: self._client, app.user, app.database)
        for asked in questions:
            yield question(asked, partial(self._asked, asked))
        yield application.committed_write(nodes, self.using.rehearsal_id)

    def _asked(self, asked: SqlQuestion) -> str:
        return self._client.value(asked.database, asked.sql, timeout=HOURS)

    @override
    def integrity(self) -> Iterator[CheckSpec]:
        """What compares whole tables comes last."""
        nodes, facts, app = self._controls, own(self.using.facts), self._application
        yield isolation.plugins(nodes, facts)
        yield accounts.accounts(nodes, facts)
        yield accounts.privileges(nodes, facts)
        yield objects.definitions(nodes, facts)
        yield counts.row_counts(nodes[self.host], facts)
        yield counts.sequences(nodes, facts)
        yield soundness.table_checks(nodes, facts)
        if len(nodes) > 1:
            yield membership.agree(nodes)
        if app.write is not None:  # after what counts rows
            yield application.application_write(
                lambda: self._client, app.user, app.database, app.write
            )

    @override
    def failover(self) -> CheckSpec | None:
        if len(self._target.nodes) < 3:
            return None
        others = {name: node for name, node in self._controls.items() if name != self.host}

        def run() -> Answer:
            membership.whole(self._controls)
            dead = self.using.host(self.host)
            kill(dead, self.using.work(dead))
            return membership.survives(others, self.using.rehearsal_id)

        expected = f"the others take writes when {self.host} has died"
        return CheckSpec("failover", expected, run, finding=FindingId.USABLE_NOT_RESTORED)

    @override
    def query(self, database: str, query: str) -> str:
        return self._client.value(database, query)

    @override
    def newest_transaction(self) -> datetime | None:
        return None  # MariaDB stores no time of a commit; the heartbeat's rows tell

    @override
    def heartbeat(self, database: str, table: str) -> Ticks:
        control = self._controls[self.host]
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
        # Times are UTC.
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

    @override
    def references(self, foreign: Belongings) -> References:
        """All definitions that are stored as text, and who may connect; if asked for, rows, too."""
        using, control, unseen = self.using, self._controls[self.host], list[str]()
        texts = references.texts(control)
        if using.search_rows:
            texts += rows.texts(control, foreign, using.search_rows, unseen)
        used = (item for item in texts if not references.is_comment(item[0]))
        named = resolving.used_by(used, foreign)
        host = using.host(self.host)
        leading = resolving.leading_to(host, using.rehearsal_id, named, foreign, unseen)
        found = capped([*references.in_cluster(control, texts, foreign), *leading])
        return References(tuple(found), tuple(unseen))

    @property
    @override
    def not_verified(self) -> list[str]:
        return unverified.phrases(self._target, own(self.using.facts))

    @override
    def stop(self) -> None:
        for name in self._controls:
            host = self.using.host(name)
            kill(host, self.using.work(host))
