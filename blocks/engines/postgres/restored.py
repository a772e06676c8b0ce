"""A restored PostgreSQL server, and its standbys."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial

from typing_extensions import override

from blocks.engines.checks import (
    Answer,
    CheckSpec,
    SqlQuestion,
    Ticks,
    answered,
    question,
)
from blocks.engines.postgres import (
    application,
    checks,
    compare,
    counts,
    indexes,
    isolation,
    loading,
    pages,
    position,
    references,
    standbys,
    unverified,
)
from blocks.engines.postgres.facts import own
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import NO_LOOK, LastLook
from blocks.engines.postgres.plan import Place
from blocks.engines.postgres.psql import CLUSTER, identifier
from blocks.engines.postgres.servers import Servers, end, pg_ctl
from blocks.engines.postgres.standbys import CATCH_UP_SECONDS, Replica
from blocks.engines.restoration import Restoration
from blocks.engines.restored import References, Restored
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import Check, CheckStatus, Node
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.remote import resolving


class PostgresRestored(Restored):
    """A primary, and the standbys that follow it."""

    def __init__(
        self,
        using: Restoration,
        servers: Servers,
        *,
        nodes: tuple[Node, ...],
        checks: tuple[Check, ...] = (),
    ) -> None:
        target, app = servers.target, servers.application
        super().__init__(
            using,
            nodes=nodes,
            host=target.host,
            reach=f"psql -h {target.address} -p {target.port} -U {app.role} -d {app.database}",
            checks=checks,
        )
        self.servers = servers
        self._target, self._application = target, app
        self._facts = own(using.facts)
        self._last: LastLook = using.last_look or NO_LOOK
        self._control = servers.control()

    @cached_property
    def _installed(self) -> Installation:
        """What the primary's host has of what the source needs."""
        return compare.installation(self._facts, self._control.host, self._target.bin_dir)

    @cached_property
    def _databases(self) -> checks.Databases:
        return checks.Databases(self._control, self._facts, self._last, self._installed)

    # -- usable -------------------------------------------------------------------------------

    @override
    def usable(self, questions: Sequence[SqlQuestion]) -> Iterator[CheckSpec]:
        for place in self._target.places:
            # Of a server that is dead, all else merely cannot be asked.
            role = "primary" if place is self._target else "standby"
            yield self._on(place, standbys.serving(self.servers.control(place), role))
        for place in self._target.places:
            yield self._on(place, isolation.archiving(self.servers.control(place)))
            yield self._on(place, self._isolation(place))
        yield self._databases.check()
        for place in self._target.places:
            yield self._on(place, self._login(place, questions))
        for asked in questions:
            yield question(asked, partial(self._asked, asked))
        if self._target.standbys:
            yield from self._replication()
        yield application.committed_write(self._control, self.using.rehearsal_id)

    def _on(self, place: Place, spec: CheckSpec) -> CheckSpec:
        """The check of one server, under its name; the primary's has none."""
        if place is self._target:
            return spec
        return replace(spec, name=f"{place.host} {spec.name}")

    def _isolation(self, place: Place) -> CheckSpec:
        control = self.servers.control(place)
        allowed = partial(compare.loaded_here, self._facts, control.host, place.bin_dir)
        if place is not self._target:
            return isolation.isolation(control, allowed, standby=True)
        role = Replica.role_of(self.using.rehearsal_id) if self._target.standbys else ""
        return isolation.isolation(control, allowed, replica=role)

    def _login(self, place: Place, questions: Sequence[SqlQuestion]) -> CheckSpec:
        app, facts = self._application, self._facts
        used = [app.database]
        if place is self._target:
            used = list(dict.fromkeys([app.database, *(item.database for item in questions)]))

        def in_the_way() -> application.InTheWay:
            refused = compare.refuses(facts, app.role)
            if place is not self._target:
                return application.InTheWay(refused=refused)
            lacking = compare.of_sessions(facts, self._installed, app.role, used)
            return application.InTheWay(lacking, refused)

        return application.login(self.servers.applications(place), used, in_the_way)

    def _asked(self, asked: SqlQuestion) -> str | None:
        query = asked.sql.strip().rstrip(";")
        return self.servers.unhurried().value(asked.database, query, timeout=checks.HOURS)

    def _application_write(self, statement: str) -> CheckSpec:
        app, here = self._application, self._databases.here

        def same_grants() -> bool:
            there = [database for database in here if database.name == app.database]
            found = checks.same_definitions(self._control, there, self._last)
            return found.status is CheckStatus.PASSED

        return application.application_write(
            self.servers.applications(self._target),
            app.database,
            statement,
            compare.read_only(self._facts, app.role, app.database, self._last),
            same_grants,
        )

    def _replication(self) -> Iterator[CheckSpec]:
        target = self._target
        yield standbys.waits_for(self._control, target.standbys, target.synchronous)
        for place in target.standbys:
            follows = standbys.check(
                self._control,
                self.servers.control(place),
                f"{target.address}:{target.port}",
                self.using.rehearsal_id,
                target.synchronous,
            )
            yield self._on(place, follows)

    # -- integrity ----------------------------------------------------------------------------

    @override
    def integrity(self) -> Iterator[CheckSpec]:
        """Page checksums come last: the servers are stopped and started for them."""
        control, last, here = self._control, self._last, self._databases.here
        yield checks.roles(control, self._facts, last)
        yield checks.schema(control, here, last)
        yield counts.row_counts(control, here, last)
        yield checks.sequences(control, here, last)
        yield counts.large_objects(control, here, last)
        for place in self._target.places:
            yield self._on(place, self._loadable(place))
        yield checks.indexes_valid(control, here, last)
        for place in self._target.places:
            there = self.servers.control(place)
            yield self._on(place, checks.collations(there, here, last))
        if (write := self._application.write) is not None:  # after what counts rows
            yield self._application_write(write)
        yield indexes.btrees(control, here)
        yield from self._all_pages()

    def _loadable(self, place: Place) -> CheckSpec:
        control, asleep = self.servers.control(place), compare.asleep(self._facts)
        return loading.loadable(control, self._databases.here, place.bin_dir, asleep, self._last)

    def _all_pages(self) -> Iterator[CheckSpec]:
        """The disk of every host, side by side: what a standby has there, it would serve."""
        specs = {
            place.host: self._on(
                place, pages.checksums(self.using, place, self.servers.control(place))
            )
            for place in self._target.places
        }
        made = dict[str, Answer]()

        def look(node: Node) -> None:
            made[node.host] = answered(specs[node.host].run)

        def first() -> Answer:
            self.using.spread(look, self._target.nodes)
            return made[self._target.host]

        for host, spec in specs.items():
            run: Callable[[], Answer] = partial(made.__getitem__, host)
            yield replace(spec, run=first if host == self._target.host else run)

    # -- what else it is asked ----------------------------------------------------------------

    @override
    def failover(self) -> CheckSpec | None:
        if not self._target.standbys:
            return None
        return CheckSpec(
            "failover",
            f"a standby serves after the death of {self._target.host}:"
            " the last committed row is there",
            self._failover,
            FindingId.USABLE_NOT_RESTORED,
        )

    def _failover(self) -> Answer:
        """The primary is killed, the first standby that follows takes its place."""
        left = {node.host for node in self.nodes if node.role == "standby"}
        follow = (
            item
            for item in self._target.standbys
            if item.host in left and standbys.streams(self._control, item.host)
        )
        if (place := next(follow, None)) is None:
            raise PermanentError(
                "no standby follows",
                operation="failover",
                domain=self.using.recovery.name,
                host=self._target.host,
                hint="the findings say what keeps each of them from it",
            )
        standby = self.servers.control(place)
        return standbys.failover(
            self._control,
            standby,
            partial(end, self._control.host, self._target, self.using.rehearsal_id),
            partial(pg_ctl, standby.host, place, "promote", CATCH_UP_SECONDS),
            self.using.rehearsal_id,
        )

    @override
    def query(self, database: str, query: str) -> str:
        return self.servers.unhurried().value(database, query.strip().rstrip(";")) or ""

    @override
    def newest_transaction(self) -> datetime | None:
        """The commit time of the last transaction that was replayed."""
        rows = self.servers.control().rows(CLUSTER, "SELECT pg_last_xact_replay_timestamp() AS at")
        return datetime.fromisoformat(rows[0]["at"]) if rows[0]["at"] else None

    @override
    def end_of_replay(self) -> int | None:
        return position.end_of_replay(self.servers.control())

    @override
    def heartbeat(self, database: str, table: str) -> Ticks:
        """A time without a zone is UTC; the application's role must read the table."""
        name = ".".join(identifier(part) for part in table.split("."))
        row = self.servers.unhurried().rows(
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

    @override
    def references(self, foreign: Belongings) -> References:
        """Searched are all definitions that are stored as text, and live settings."""
        facts, control, unseen = self._facts, self.servers.control(), list[str]()
        named = foreign
        if facts.data_directory != self._target.data_dir:
            named = references.with_path(foreign, facts.data_directory)
        names, closed = references.databases(control)
        known = {row.name for row in facts.closed_databases}
        unseen.extend(f"database {name}: closed" for name in closed if name not in known)
        texts = references.texts(control, names, named, rows=self.using.search_rows)
        unseen.extend(texts.unread)
        found = [*texts.findings(named), *references.in_doubt(control)]
        host: Host = self.using.host(self._target.host)
        hosts = texts.hosts(facts.settings, foreign)
        found += texts.files_missing(host, foreign)
        found += resolving.leading_to(host, self.using.rehearsal_id, hosts, foreign, unseen)
        there = {node.host for node in self.nodes}
        for place in self._target.places:
            if place.host in there:
                found += references.in_live_settings(self.servers.control(place), foreign)
        return References(tuple(found), tuple(unseen))

    @property
    @override
    def not_verified(self) -> list[str]:
        standing_by = bool(self._target.standbys)
        return unverified.unverified(self._facts, self._application.role, standbys=standing_by)

    @override
    def stop(self) -> None:
        for place in self._target.places:
            end(self.using.recovery.host(place.host), place, self.using.rehearsal_id)
