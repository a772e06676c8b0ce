"""An etcd cluster that was restored from a snapshot."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property, partial

from typing_extensions import override

from blocks.engines.checks import Answer, CheckSpec, SqlQuestion, Ticks, question
from blocks.engines.common.ticks import ticks_of
from blocks.engines.etcd import checks, clients, integrity, references
from blocks.engines.etcd.access import access
from blocks.engines.etcd.alarms import alarms
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.etcd.facts import own
from blocks.engines.etcd.last_look import GRANTS_LOOKED_AT
from blocks.engines.etcd.plan import Application, TargetCluster
from blocks.engines.etcd.query import answer
from blocks.engines.etcd.restore import kill
from blocks.engines.etcd.survey import LEASES_LOOKED_AT
from blocks.engines.restoration import Restoration
from blocks.engines.restored import References, Restored
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import Node
from blocks.ownership import Belongings

_LEAST_THAT_OUTLIVE_ONE = 3
"""Fewer members have no majority without one of them."""


class EtcdRestored(Restored):
    """The members of one cluster: all of them have one key space, whichever is asked."""

    def __init__(  # noqa: PLR0913 (each is a fact about the restored cluster, by name)
        self,
        using: Restoration,
        *,
        nodes: tuple[Node, ...],
        administrator: str,
        target: TargetCluster,
        application: Application,
        raised: bool,
    ) -> None:
        """`administrator` is the source's; `raised`: the revision was, see `restore`."""
        super().__init__(
            using,
            nodes=nodes,
            host=target.members[0].host,
            reach=f"etcdctl --endpoints={','.join(target.endpoints)}"
            f" --cacert={target.ca_file} --user={application.user} get"
            f" --prefix {application.prefix}",
        )
        self._administrator = administrator
        self._target = target
        self._app = application
        self._raised = raised
        self._facts = own(using.facts)

    @cached_property
    def _root(self) -> Etcdctl:
        recovery, target = self.using.recovery, self._target
        return clients.restored(recovery, target, self._administrator, target.password)

    @cached_property
    def _application(self) -> Etcdctl:
        app = self._app
        return clients.restored(self.using.recovery, self._target, app.user, app.password)

    @override
    def usable(self, questions: Sequence[SqlQuestion]) -> Iterator[CheckSpec]:
        root, application, target = self._root, self._application, self._target
        yield checks.login(application, self._app, self._facts)
        yield access(root, target, self._facts)
        yield checks.membership(root, target)
        yield checks.identity(root, self._facts)
        yield checks.leader(root, target)
        yield alarms(root)
        for asked in questions:
            yield question(asked, partial(self.query, asked.database, asked.sql))
        yield checks.quorum_write(application, self._app, target, self.using.rehearsal_id)

    @override
    def integrity(self) -> Iterator[CheckSpec]:
        root, kept = self._root, self._facts.taken
        if self._raised:
            yield integrity.revision(root, kept)
        yield integrity.key_space(root, self._target, kept, self.using.rehearsal_id)
        yield integrity.logins(root, self._facts)
        yield integrity.leases(root, self._facts)

    @override
    def failover(self) -> CheckSpec | None:
        if len(self._target.members) < _LEAST_THAT_OUTLIVE_ONE:
            return None
        expected = "the others take writes when the leader has died"
        return CheckSpec(
            "failover", expected, self._fail_over, finding=FindingId.USABLE_NOT_RESTORED
        )

    def _fail_over(self) -> Answer:
        checks.whole(self._root, self._target)
        dead = checks.leading(self._root, self._target)
        host = self.using.host(dead.host)
        kill(host, self.using.work(host))
        others = [m.client_url for m in self._target.members if m is not dead]
        writing = self._application.at(*others)
        return checks.survives(writing, self._app, self.using.rehearsal_id, dead.host)

    @override
    def query(self, database: str, query: str) -> str:
        return answer(self._root, query)

    @override
    def references(self, foreign: Belongings) -> References:
        largest = self._facts.taken.largest
        return references.search(self._root, self.using.rehearsal_id, foreign, largest)

    @property
    @override
    def not_verified(self) -> list[str]:
        facts = self._facts
        missed = ["whether clients that watch or cache notice that they must start again"]
        if facts.taken.digest is None:
            missed.append("the keys against the source's: the set has no digest of them")
        if facts.users:
            missed.append("users' passwords but those that farside logs in with: etcd shows none")
        if facts.granted is None:
            missed.append("what users and roles are granted: the set does not say")
        elif max(len(facts.users), len(facts.roles)) > GRANTS_LOOKED_AT:
            most = GRANTS_LOOKED_AT
            missed.append(f"what users and roles beyond the first {most} are granted")
        if not facts.auth:
            missed.append("a login: the source asks no client for a user")
        if self._target.client_cert_auth:
            missed.append("the application's own certificate: farside shows the first member's")
        missed.append("settings of the source's members (quota, compaction): the plan's hold")
        if facts.leases:
            missed.append("keys on leases after the restore: who ends a lease takes its keys along")
        if len(facts.leases) >= LEASES_LOOKED_AT:
            missed.append(f"leases beyond the first {LEASES_LOOKED_AT}")
        return missed

    @override
    def newest_transaction(self) -> datetime | None:
        return None  # etcd stores no times; the heartbeat's rows tell

    @override
    def heartbeat(self, database: str, table: str) -> Ticks:
        """A tick is a key, `table` followed by its number, whose value is its time."""
        rows = dict[int, str]()
        for item in self._root.all(table):
            number = item.key.decode(errors="replace").removeprefix(table)
            if number.isdecimal():
                rows[int(number)] = item.value.decode(errors="replace")
        return ticks_of(rows, lambda newest: datetime.fromisoformat(rows[newest]))

    @override
    def stop(self) -> None:
        for member in self._target.members:
            host = self.using.host(member.host)
            kill(host, self.using.work(host))
