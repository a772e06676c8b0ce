"""The facts of a source, and the plan, held against the recovery hosts."""

import re
from collections.abc import Iterator, Mapping

from blocks.domain import FailureDomain
from blocks.engines.etcd import alarms
from blocks.engines.etcd.access import CERTIFICATES
from blocks.engines.etcd.facts import EtcdFacts
from blocks.engines.etcd.findings import EtcdFinding
from blocks.engines.etcd.plan import Member, TargetCluster
from blocks.engines.etcd.restore import SnapshotTool, all_raise
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.ownership import Belongings


def of_plan(facts: EtcdFacts, target: TargetCluster, foreign: Belongings) -> Iterator[Finding]:
    """What needs no host."""
    for member in target.members:
        for path in _paths(target, member):
            for lost in foreign.paths_in(path):
                text = f"the plan names {path}, which is lost with {lost}"
                yield finding(FindingId.PATH_HARD_CODED, f"{member.host} {path}", text)
    yield from alarms.of_source(facts)
    yield from more_open(facts, target)


def more_open(facts: EtcdFacts, target: TargetCluster) -> Iterator[Finding]:
    """The restored members would ask their clients for less than the source does."""
    if facts.client_certificates and not target.client_cert_auth:
        text = "the source asks its clients for a certificate; the restored members would not"
        remedy = "Remove `client_cert_auth: false` from engine.target in the plan."
        yield finding(FindingId.SERVICE_MORE_OPEN, CERTIFICATES, text, remedy=remedy)


def of_hosts(facts: EtcdFacts, target: TargetCluster, recovery: FailureDomain) -> Iterator[Finding]:
    """Versions and certificates. Raises as `Host.run`."""
    had = tuple(int(part) for part in facts.version.split(".")[:2])
    for member in target.members:
        host, where = recovery.host(member.host), f"{recovery.name}/{member.host}"
        said = host.run([f"{target.bin_dir}/etcd", "--version"], check=False).text
        has = version_of(said)
        # A member reads the data of its own minor version and of the one before.
        if has != (0, 0) and not (has[0] == had[0] and has[1] - had[1] in (0, 1)):
            text = f"etcd {has[0]}.{has[1]} is there; the set is of {facts.version}"
            yield finding(FindingId.ENGINE_VERSION, where, text)
        for path in _paths(target, member):
            if host.run(["test", "-r", path], check=False).exit_code != 0:
                text = f"{path} cannot be read: no client and no member would trust this one"
                yield finding(FindingId.CA_UNKNOWN, f"{where} {path}", text)


def of_tools(tools: Mapping[str, SnapshotTool], recovery: FailureDomain) -> Iterator[Finding]:
    """Whether the revision will be raised."""
    if not all_raise(tools):
        where = ", ".join(name for name, tool in tools.items() if not tool.raises_revision)
        text = f"`snapshot restore` has no --bump-revision on {where}"
        yield finding(EtcdFinding.REVISION_REUSED, recovery.name, text)


def version_of(text: str) -> tuple[int, int]:
    """Major and minor version in what `etcd --version` prints; (0, 0) if there is none."""
    match = re.search(r"etcd Version: (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _paths(target: TargetCluster, member: Member) -> tuple[str, ...]:
    return (member.cert_file, member.key_file, target.ca_file)
