"""etcd 3.4 and later: a snapshot, restored into as many members as the recovery domain has.

A snapshot holds keys, users, roles and leases, but no members: the restored cluster is a new one,
with other ids, so that neither can join the other. There is no log besides: what was committed
after the snapshot is lost, which is what the recovery point says.
"""

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from blocks.agent.protocol.jobs import FactsJob
from blocks.agent.protocol.parts import Source
from blocks.artifact import wire
from blocks.artifact.manifest import LogIndex, Manifest
from blocks.domain import FailureDomain
from blocks.engines.checks import SqlQuestion, Ticks
from blocks.engines.common.capping import capped
from blocks.engines.common.programs import asked_by
from blocks.engines.engine import Captured, Requirements
from blocks.engines.etcd import checks, last_look, on_host
from blocks.engines.etcd.etcdctl import ALONE, Etcdctl, read_keys
from blocks.engines.etcd.findings import EtcdFinding
from blocks.engines.etcd.plan import Application, Member, SourceCluster, TargetCluster
from blocks.engines.etcd.restore import (
    SNAPSHOT,
    MemberUnderRestore,
    SnapshotTool,
    kill,
    snapshot_tool,
    snapshot_tools,
)
from blocks.engines.etcd.runbook import commands
from blocks.engines.legacy import AnyFacts as Facts
from blocks.engines.legacy import LegacyEngine, LegacyFacts, Service, asked, guarded
from blocks.engines.restoration import Restoration, Steps
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Check, Node, RunbookStep, SourceNode
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.remote import resolving
from blocks.remote.failures import AgentFailed
from blocks.remote.jobs import facts_of
from blocks.repositories.farside.writer import SetWriter

LEASES_LOOKED_AT = 200
_WAL_BYTES = 2**28
_VERSION = re.compile(r"\d+\.\d+\.\d+[\w.+-]*", re.ASCII)


class Etcd(LegacyEngine):
    """etcd, restored to a snapshot."""

    _block_type_name = "farside etcd engine"
    _block_type_slug = "farside-etcd"

    label: ClassVar[str] = "etcd"
    version_words: ClassVar[Mapping[str, str]] = {
        **asked_by("--version", "etcd"),
        **asked_by("version", "etcdctl", "etcdutl"),
    }
    growing: ClassVar[frozenset[str]] = frozenset({"key-space"})
    without_rows: ClassVar[str] = "all keys and values of etcd are searched anyway"

    kind: Literal["etcd"] = Field(default="etcd", description="etcd: etcd 3.4 or later.")
    source: SourceCluster = Field(description="The cluster that is backed up, and who asks it.")
    target: TargetCluster = Field(description="The cluster that is restored.")
    application: Application = Field(
        description="The application's own user, who must be able to use what was restored."
    )

    @model_validator(mode="after")
    def _asks_as_the_source(self) -> Self:
        """Client certificates are asked for where the source does, unless the plan decides."""
        if self.target.client_cert_auth is None:
            asks = {"client_cert_auth": bool(self.source.cert_file)}
            self.target = self.target.model_copy(update=asks)
        return self

    # -- what the plan says -------------------------------------------------------------------

    @property
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        """See Engine."""
        return (("source.host", self.source.host),)

    @property
    def source_endpoints(self) -> list[tuple[str, int]]:
        """See Engine."""
        parts = [urlsplit(url) for url in self.source.endpoints]
        return [(str(part.hostname), int(part.port or 0)) for part in parts]

    @property
    def predicted_nodes(self) -> tuple[Node, ...]:
        """See Engine."""
        return tuple(
            Node(item.host, "member", item.address, item.client_port)
            for item in self.target.members
        )

    @property
    def passwords(self) -> tuple[str, ...]:
        """See Engine."""
        return tuple(filter(None, (self.target.password, self.application.password)))

    # -- the source ---------------------------------------------------------------------------

    def living(self, source: FailureDomain) -> Etcdctl:
        """Etcdctl at the first member that serves: a dead one does not keep us from a backup.

        Nor does a learner, which serves little, or one that is cut off from its leader.
        """
        client = Etcdctl(
            source.host(self.source.host),
            self.source.bin_dir,
            self.source.endpoints,
            self.source.ca_file,
            *_login(source, self.source.user, self.source.password),
            self.source.cert_file,
            self.source.key_file,
        )
        failure: FarsideError | None = None
        for endpoint in self.source.endpoints:
            try:
                status = client.at(endpoint).status(timeout=5)
            except TransientError as error:
                failure = error
            else:
                if status.get("leader") and not status.get("isLearner"):
                    return client.at(endpoint)
                failure = TransientError(
                    f"{endpoint} is a learner, or has no leader",
                    operation="survey",
                    domain=source.name,
                    host=client.host.name,
                )
        assert failure is not None
        raise failure

    def survey(self, source: FailureDomain) -> Facts:
        """See Engine."""
        client, prefix = self.living(source), self.application.prefix
        status, members = client.status(), client.json("member", "list")["members"]
        return LegacyFacts(
            self,
            {
                "version": status["version"],
                "cluster_id": str(status["header"]["cluster_id"]),
                "members": [
                    {
                        "name": item.get("name", ""),
                        "id": str(item["ID"]),
                        "urls": [*item.get("peerURLs", ()), *item.get("clientURLs", ())],
                    }
                    for item in members
                ],
                "revision": int(status["header"]["revision"]),
                "bytes": int(status["dbSize"]),
                "auth": checks.is_protected(client),
                "client_certificates": checks.wants_certificate(client),
                "alarms": client.alarms(),
                "below_prefix": client.count("--prefix", "--", prefix),
                "users": last_look.users(client),
                "roles": last_look.roles(client),
                last_look.GRANTED: last_look.granted(client),
                "leases": _leases(client),
                "leases_at": round(time.time()),
            },
        )

    def check_facts(self, facts: Facts) -> None:
        """See Engine."""
        if not _VERSION.fullmatch(str(facts["version"])) or not isinstance(facts["bytes"], int):
            raise PermanentError(
                f"the facts of the source are not etcd's: version {str(facts['version'])[:80]!r}",
                operation="facts of the source",
                hint="find out who changed what the source says of itself",
            )

    def source_nodes(self, facts: Facts) -> tuple[SourceNode, ...]:
        """See Engine: the members. One that has not started yet has no name."""
        return tuple(
            SourceNode(item["name"] or item["id"], "member", url.hostname, url.port)
            for item in facts["members"]
            for url in [urlsplit(item["urls"][-1])]
        )

    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """See Engine. etcdctl writes a snapshot to a file, and checks it before it says so."""
        client = self.living(source)
        host = client.host
        _have_room(host, sink.rehearsal_id, sink.work(host), int(facts["bytes"]))
        path = f"{sink.work(host)}/snapshot.db"
        taken_at = datetime.now(UTC)
        host.run(["rm", "-f", path, f"{path}.part"])
        with steps.step("snapshot", grows=True):
            client.text("snapshot", "save", path, timeout=6 * 3600)
        tool = snapshot_tool(host, self.source.bin_dir)
        argv = [*ALONE, *tool.argv, "status", path, "--write-out=json"]
        status = wire.parsed(host.run(argv, timeout=3600).text.rpartition("\n")[2])
        # The file is read, not the cluster: it costs the source nothing, whatever is compacted.
        with steps.step("digest", grows=True):
            keys = _read(host, sink.rehearsal_id, path)
            if keys is not None and keys.revision != int(status["revision"]):
                keys = None
        # One that ended, or was revoked, since the survey may not be in the snapshot.
        there = _leases(client)
        leases = {id: ttl for id, ttl in facts["leases"].items() if id in there}
        with steps.step("look again"):
            since = last_look.look_again(client, checks.is_protected)
            at = max(int(status["revision"]), keys.compacted if keys else 0)
            counts = last_look.counts_at(client, at, self.application.prefix)
        with steps.step("seal", grows=True) as step:
            sources = [Source(name=SNAPSHOT, kind="stdout")]
            step.bytes = sink.seal(host, ["cat", path], secret=SecretStr(""), sources=sources)
            host.run(["rm", "-f", path])
        return Captured(
            taken_at,
            datetime.now(UTC),
            LegacyFacts(
                self,
                {
                    **facts,
                    "leases": leases,
                    last_look.FACT: since,
                    "snapshot": {
                        "revision": int(status["revision"]),
                        "compacted": keys and keys.compacted,
                        "largest": keys and keys.largest,
                        "digest": keys and keys.digest,
                        "lasting": keys and keys.lasting,
                        "live": keys and keys.keys,
                        "keys": int(status["totalKey"]),
                        "bytes": int(status["totalSize"]),
                        **counts,
                    },
                },
            ),
        )

    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:  # noqa: ARG002 (there is nothing)
        """See Engine: a snapshot makes nothing in the cluster."""
        return []

    def leftovers(self, source: FailureDomain) -> list[str]:  # noqa: ARG002 (there is nothing)
        """See Engine: a snapshot makes nothing in the cluster."""
        return []

    # -- requirements -------------------------------------------------------------------------

    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """See Engine. A member keeps its log beside the data, and the snapshot until it is read."""
        programs = tuple(f"{self.target.bin_dir}/{name}" for name in ("etcd", "etcdctl"))
        return tuple(
            Requirements(
                host=member.host,
                programs=(*programs, "setsid"),
                directories={member.data_dir: 2 * int(facts["bytes"]) + _WAL_BYTES},
                ports=(
                    (member.address, member.client_port),
                    (member.address, member.peer_port),
                ),
                work_bytes=int(facts["bytes"]),
            )
            for member in self.target.members
        )

    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        """See Engine."""
        for member in self.target.members:
            for path in (member.cert_file, member.key_file, self.target.ca_file):
                for lost in foreign.paths_in(path):
                    text = f"the plan names {path}, which is lost with {lost}"
                    yield finding("path-hard-coded", f"{member.host} {path}", text)
        yield from checks.of_alarms(facts)
        yield from self._more_open(facts)
        had = tuple(int(part) for part in facts["version"].split(".")[:2])
        for member in self.target.members:
            host, where = recovery.host(member.host), f"{recovery.name}/{member.host}"
            said = host.run([f"{self.target.bin_dir}/etcd", "--version"], check=False).text
            has = checks.version_of(said)
            # A member reads the data of its own minor version and of the one before.
            if has != (0, 0) and not (has[0] == had[0] and has[1] - had[1] in (0, 1)):
                text = f"etcd {has[0]}.{has[1]} is there; the set is of {facts['version']}"
                yield finding("engine-version", where, text)
            for path in (member.cert_file, member.key_file, self.target.ca_file):
                if host.run(["test", "-r", path], check=False).exit_code != 0:
                    text = f"{path} cannot be read: no client and no member would trust this one"
                    yield finding("ca-unknown", f"{where} {path}", text)
        tools = self._tools(recovery)
        if not _all_raise(tools):
            where = ", ".join(name for name, tool in tools.items() if not tool.raises_revision)
            text = f"`snapshot restore` has no --bump-revision on {where}"
            yield finding(EtcdFinding.REVISION_REUSED, recovery.name, text)

    def _more_open(self, facts: Facts) -> Iterator[Finding]:
        if facts.get("client_certificates") and not self.target.client_cert_auth:
            text = "the source asks its clients for a certificate; the restored members would not"
            remedy = "Remove `client_cert_auth: false` from engine.target in the plan."
            about = checks.CERTIFICATES
            yield finding("service-more-open", about, text, remedy=remedy)

    # -- the recovery side --------------------------------------------------------------------

    def _tools(self, recovery: FailureDomain) -> Mapping[str, SnapshotTool]:
        hosts = [recovery.host(member.host) for member in self.target.members]
        return snapshot_tools(hosts, self.target.bin_dir)

    def bring_up(self, using: Restoration) -> Service:
        """See Engine: the members are made side by side, and wait for each other."""
        tools = self._tools(using.recovery)
        # All or none: members with other revisions than the others' would be no cluster.
        raised = _all_raise(tools)
        members = {
            item.host: MemberUnderRestore(using, self.target, item, tools[item.host], raised=raised)
            for item in self.target.members
        }
        several = len(members) > 1

        def bring(node: Node) -> None:
            member = members[node.host]
            lead = f"{node.host}: " if several else ""
            with using.steps.step(f"{lead}fetch and open", grows=True) as step:
                step.bytes = member.fetch()
            with using.steps.step(f"{lead}restore snapshot", grows=True):
                member.restore()
                member.start()

        nodes = self.predicted_nodes
        using.spread(bring, nodes)
        with using.steps.step("quorum"):
            for member in members.values():
                member.await_ready()
        first, root = self.target.members[0], self._root(using.recovery)
        facts = using.manifest.engine_facts
        raising = (
            guarded("revision", checks.RAISED, lambda: checks.revision(root, facts))
            if raised
            else ()
        )
        return Service(
            rehearsal_id=using.rehearsal_id,
            host=first.host,
            address=first.address,
            port=first.client_port,
            controls={name: using.work(member.host) for name, member in members.items()},
            administrator=self.source.user,
            reach=f"etcdctl --endpoints={','.join(self.target.endpoints)}"
            f" --cacert={self.target.ca_file} --user={self.application.user} get"
            f" --prefix {self.application.prefix}",
            nodes=_observed(root),
            checks=tuple(raising),
        )

    # -- verification -------------------------------------------------------------------------

    def _client(self, recovery: FailureDomain, user: str, password: str | None) -> Etcdctl:
        first, shows = self.target.members[0], self.target.client_cert_auth
        return Etcdctl(
            recovery.host(first.host),
            self.target.bin_dir,
            self.target.endpoints,
            self.target.ca_file,
            *_login(recovery, user, password),
            first.cert_file if shows else "",
            first.key_file if shows else "",
        )

    def _root(self, recovery: FailureDomain) -> Etcdctl:
        return self._client(recovery, self.source.user, self.target.password)

    def _application(self, recovery: FailureDomain) -> Etcdctl:
        return self._client(recovery, self.application.user, self.application.password)

    def verify(
        self, service: Service, using: Restoration, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        """See Engine."""
        facts, target, app = using.manifest.engine_facts, self.target, self.application
        root, application = self._root(using.recovery), self._application(using.recovery)
        plan: list[tuple[str, str, Callable[[], Check]]] = [
            ("login", "the application logs in", lambda: checks.login(application, app, facts)),
            ("access", "no less than the source's", lambda: checks.access(root, target, facts)),
            ("membership", "the plan's", lambda: checks.membership(root, target)),
            ("identity", "a new cluster", lambda: checks.identity(root, facts)),
            ("leader", "one", lambda: checks.leader(root, target)),
            ("alarms", "none", lambda: checks.alarms(root)),
            (
                "key-space",
                "the manifest's",
                lambda: checks.key_space(root, target, facts, service.rehearsal_id),
            ),
            ("logins", "the manifest's", lambda: checks.logins(root, facts)),
            ("leases", "the manifest's", lambda: checks.leases(root, facts)),
            *((q.name, q.expected, _asked(root, q)) for q in questions),
            (
                "committed-write",
                "a committed value",
                lambda: checks.quorum_write(application, app, target, service.rehearsal_id),
            ),
        ]
        for name, expected, run in plan:
            yield from guarded(name, expected, run)

    def survive(self, service: Service, using: Restoration) -> Iterator[Check]:
        """See Engine: of three or more members, the leader is killed."""
        if len(self.target.members) < 3:
            return
        root, app = self._root(using.recovery), self.application
        application = self._application(using.recovery)

        def run() -> Check:
            checks.whole(root, self.target)
            dead = _leader(root, self.target)
            host = using.host(dead.host)
            kill(host, using.work(host))
            others = [m.client_url for m in self.target.members if m is not dead]
            return checks.survives(application.at(*others), app, service.rehearsal_id, dead.host)

        yield from guarded("failover", "the others serve when one has died", run)

    def value(self, service: Service, recovery: FailureDomain, database: str, query: str) -> str:  # noqa: ARG002 (all members answer alike, and have one key space)
        """See Engine: a query is what follows `etcdctl get`."""
        return checks.answer(self._root(recovery), _words(query))

    def dependencies(
        self,
        service: Service,  # noqa: ARG002 (all members answer alike)
        using: Restoration,
        foreign: Belongings,
        unseen: list[str],
    ) -> list[Finding]:
        """See Engine: keys and values are searched, for in etcd they are the configuration."""
        root = self._root(using.recovery)
        largest = using.manifest.engine_facts["snapshot"].get("largest")
        found = root.read(using.rehearsal_id, 0, foreign, largest=largest)
        ids = {"path": "path-hard-coded", "address": "address-hard-coded"}
        named = [
            finding(
                ids["path" if item.text in foreign.paths else "address"],
                f"key {item.path}" + (f", line {item.line}" if item.line > 1 else ""),
                f"it names {item.text}",
            )
            for item in found.mentions
        ]
        if found.more_hosts:
            unseen.append(f"where names lead beyond the first {len(found.hosts)} in its keys")
        named += resolving.leading_to(root.host, using.rehearsal_id, found.hosts, foreign, unseen)
        return capped(named, {ids[kind]: count for kind, count in found.more.items()})

    def not_verified(self, facts: Facts) -> list[str]:
        """See Engine."""
        missed = ["whether clients that watch or cache notice that they must begin anew"]
        if facts["snapshot"]["digest"] is None:
            missed.append("the keys against the source's: the set has no digest of them")
        if facts["users"]:
            missed.append("users' passwords but those that farside logs in with: etcd shows none")
        if last_look.GRANTED not in facts:
            missed.append("what users and roles are granted: the set does not say")
        elif max(len(facts["users"]), len(facts["roles"])) > last_look.GRANTS_LOOKED_AT:
            most = last_look.GRANTS_LOOKED_AT
            missed.append(f"what users and roles beyond the first {most} are granted")
        if not facts["auth"]:
            missed.append("a login: the source asks no client for a user")
        if self.target.client_cert_auth:
            missed.append("the application's own certificate: farside shows the first member's")
        missed.append("settings of the source's members (quota, compaction): the plan's hold")
        if facts["leases"]:
            missed.append("keys on leases after the restore: who ends a lease takes its keys along")
        if len(facts["leases"]) >= LEASES_LOOKED_AT:
            missed.append(f"leases beyond the first {LEASES_LOOKED_AT}")
        return missed

    def recovered_until(self, service: Service, recovery: FailureDomain) -> datetime | None:  # noqa: ARG002 (nothing there is asked)
        """See Engine: etcd stores no times; the heartbeat's rows tell."""
        return None

    def ticks(
        self,
        service: Service,  # noqa: ARG002 (all members answer alike)
        recovery: FailureDomain,
        database: str,  # noqa: ARG002 (etcd has one key space)
        table: str,
    ) -> Ticks:
        """See Engine: a tick is a key, `table` followed by its number, whose value is its time."""
        rows: dict[int, str] = {}
        for item in self._root(recovery).all(table):
            number = item.key.decode(errors="replace").removeprefix(table)
            if number.isdecimal():
                rows[int(number)] = item.value.decode(errors="replace")
        if not rows:
            return Ticks(0, None, None, None)
        newest = max(rows)
        missing = next((id for id in range(1, newest) if id not in rows), None)
        return Ticks(len(rows), newest, datetime.fromisoformat(rows[newest]), missing)

    def destroy(self, service: Service, recovery: FailureDomain) -> None:
        """See Engine."""
        for name, work in service.controls.items():
            kill(recovery.host(name), work)

    def runbook(
        self,
        manifest: Manifest,
        log: LogIndex,  # noqa: ARG002 (there is none)
        recovery: FailureDomain,
    ) -> tuple[RunbookStep, ...]:
        """See Engine."""
        return commands(manifest, recovery, self.target)


def _read(host: Host, rehearsal_id: str, path: str) -> on_host.Keys | None:
    """What the file of a snapshot holds; None if it has a form that is not known here."""
    try:
        return read_keys(host, rehearsal_id, on_host.KeySpace(snapshot=path))
    except AgentFailed:
        return None


def _all_raise(tools: Mapping[str, SnapshotTool]) -> bool:
    return all(tool.raises_revision for tool in tools.values())


def _leases(client: Etcdctl) -> Mapping[str, int]:
    """Id -> granted seconds of the first leases."""
    found = {}
    for item in client.json("lease", "list").get("leases", ())[:LEASES_LOOKED_AT]:
        # One that ends while it is looked at is none.
        with suppress(PermanentError):
            answer = client.json("lease", "timetolive", "--", f"{int(item['id']):x}")
            if int(answer.get("ttl", -1)) > 0:
                found[str(item["id"])] = int(answer["ttl"])
    return found


def _observed(root: Etcdctl) -> tuple[Node, ...]:
    """The members that the cluster itself knows, and where they say that they are."""
    found = []
    for item in root.json("member", "list")["members"]:
        for url in map(urlsplit, item.get("clientURLs", ())):
            found.append(Node(item["name"], "member", str(url.hostname), int(url.port or 0)))
    return tuple(sorted(found, key=lambda node: node.host))


def _leader(root: Etcdctl, target: TargetCluster) -> Member:
    """The member that leads. Raises TransientError if none does."""
    for member in target.members:
        status = root.at(member.client_url).status()
        if status["leader"] == status["header"]["member_id"]:
            return member
    raise TransientError(
        "no member leads", operation="failover", domain=root.host.domain, host=root.host.name
    )


def _asked(root: Etcdctl, q: SqlQuestion) -> Callable[[], Check]:
    return lambda: asked(q, lambda: checks.answer(root, _words(q.sql)))


def _words(query: str) -> list[str]:
    """What follows `etcdctl get`, as a shell would take it. Raises PermanentError."""
    try:
        return shlex.split(query)
    except ValueError as error:
        raise PermanentError(f"{query!r}: {error}", operation="a plan's query") from None


def _login(domain: FailureDomain, user: str, password: str | None) -> tuple[str, SecretStr]:
    """A user and the password; nobody, where the plan names no password."""
    return (user, domain.secret(password)) if password else ("", SecretStr(""))


def _have_room(host: Host, rehearsal_id: str, folder: str, wanted: int) -> None:
    """Raise PermanentError where a snapshot would fill the disk, which may be a member's own."""
    (disk,) = facts_of(host, rehearsal_id, FactsJob(directories=(folder,))).directories
    if (free := disk.free_bytes) < 2 * wanted + _WAL_BYTES:
        raise PermanentError(
            f"a snapshot of up to {wanted:,} bytes would leave too little of {free:,} in {folder}",
            operation="snapshot",
            domain=host.domain,
            host=host.name,
            hint="give this host a work_dir on another disk than etcd's, or make room",
        )
