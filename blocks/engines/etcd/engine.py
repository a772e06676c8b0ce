"""etcd as a plan describes it."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from typing_extensions import override

from blocks.artifact.manifest import LogIndex, Manifest
from blocks.domain import FailureDomain
from blocks.engines.common.programs import asked_by
from blocks.engines.engine import Captured, Engine, Requirements
from blocks.engines.etcd import clients, compare
from blocks.engines.etcd.capture import WAL_BYTES, capture
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.etcd.facts import EtcdFacts, own, read
from blocks.engines.etcd.plan import Application, SourceCluster, TargetCluster
from blocks.engines.etcd.restore import (
    MemberUnderRestore,
    SnapshotTool,
    all_raise,
    observed,
    snapshot_tools,
)
from blocks.engines.etcd.restored import EtcdRestored
from blocks.engines.etcd.runbook import commands
from blocks.engines.etcd.survey import survey
from blocks.engines.facts import Facts
from blocks.engines.restoration import Restoration, Steps
from blocks.evidence.findings import Finding
from blocks.evidence.record import Node, RunbookStep
from blocks.materials import Material
from blocks.ownership import Belongings
from blocks.repositories.farside.writer import SetWriter


class Etcd(Engine):
    """etcd, restored to a snapshot."""

    _block_type_name = "farside etcd engine"
    _block_type_slug = "farside-etcd"

    label: ClassVar[str] = "etcd"
    takes: ClassVar[frozenset[Material]] = frozenset({Material.ETCD_SNAPSHOT})
    version_words: ClassVar[Mapping[str, str]] = {
        **asked_by("--version", "etcd"),
        **asked_by("version", "etcdctl", "etcdutl"),
    }
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
    @override
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        return (("source.host", self.source.host),)

    @property
    @override
    def source_endpoints(self) -> list[tuple[str, int]]:
        parts = [urlsplit(url) for url in self.source.endpoints]
        return [(str(part.hostname), int(part.port or 0)) for part in parts]

    @property
    @override
    def predicted_nodes(self) -> tuple[Node, ...]:
        return tuple(
            Node(item.host, "member", item.address, item.client_port)
            for item in self.target.members
        )

    @property
    @override
    def passwords(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.target.password, self.application.password)))

    # -- the source ---------------------------------------------------------------------------

    def living(self, source: FailureDomain) -> Etcdctl:
        """Etcdctl at the first member of the source that serves; see `clients.living`."""
        return clients.living(source, self.source)

    @override
    def survey(self, source: FailureDomain) -> EtcdFacts:
        return survey(self.living(source), self.application.prefix)

    @override
    def read_facts(self, said: Mapping[str, Any]) -> EtcdFacts:
        return read(said)

    @override
    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        return capture(self.living(source), self.application.prefix, sink, own(facts), steps)

    @override
    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        return []  # a snapshot makes nothing in the cluster

    @override
    def leftovers(self, source: FailureDomain) -> list[str]:
        return []

    # -- the recovery side --------------------------------------------------------------------

    @override
    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        programs = tuple(f"{self.target.bin_dir}/{name}" for name in ("etcd", "etcdctl"))
        size = own(facts).bytes
        return tuple(
            Requirements(
                host=member.host,
                programs=(*programs, "setsid"),
                # A member keeps its log beside the data, and the snapshot until it is read.
                directories={member.data_dir: 2 * size + WAL_BYTES},
                ports=(
                    (member.address, member.client_port),
                    (member.address, member.peer_port),
                ),
                work_bytes=size,
            )
            for member in self.target.members
        )

    @override
    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        yield from compare.of_plan(own(facts), self.target, foreign)
        yield from compare.of_hosts(own(facts), self.target, recovery)
        yield from compare.of_tools(self._tools(recovery), recovery)

    def _tools(self, recovery: FailureDomain) -> Mapping[str, SnapshotTool]:
        hosts = [recovery.host(member.host) for member in self.target.members]
        return snapshot_tools(hosts, self.target.bin_dir)

    @override
    def restore(self, using: Restoration) -> EtcdRestored:
        """The members are made side by side, and wait for each other."""
        tools, target = self._tools(using.recovery), self.target
        # All or none: members with other revisions than the others' would be no cluster.
        raised = all_raise(tools)
        members = {
            item.host: MemberUnderRestore(using, target, item, tools[item.host], raised=raised)
            for item in target.members
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

        using.spread(bring, self.predicted_nodes)
        with using.steps.step("quorum"):
            for member in members.values():
                member.await_ready()
        root = clients.restored(using.recovery, target, self.source.user, target.password)
        return EtcdRestored(
            using,
            nodes=observed(root),
            administrator=self.source.user,
            target=target,
            application=self.application,
            raised=raised,
        )

    @override
    def runbook(
        self, manifest: Manifest, log: LogIndex, recovery: FailureDomain
    ) -> tuple[RunbookStep, ...]:
        return commands(manifest, read(manifest.engine_facts).version, recovery, self.target)
