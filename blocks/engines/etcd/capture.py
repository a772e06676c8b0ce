"""A snapshot of the source: saved to a file, looked at there, and sealed."""

from dataclasses import replace
from datetime import UTC, datetime

from pydantic import SecretStr

from blocks.agent.protocol.jobs import FactsJob
from blocks.agent.protocol.parts import Source
from blocks.artifact import wire
from blocks.engines.engine import Captured
from blocks.engines.etcd import last_look
from blocks.engines.etcd.etcdctl import ALONE, Etcdctl, read_keys
from blocks.engines.etcd.facts import EtcdFacts, Snapshot
from blocks.engines.etcd.on_host import Keys, KeySpace
from blocks.engines.etcd.restore import SNAPSHOT, snapshot_tool
from blocks.engines.etcd.survey import leases
from blocks.engines.restoration import Steps
from blocks.errors import PermanentError
from blocks.hosts.host import Host
from blocks.remote.failures import AgentFailed
from blocks.remote.jobs import facts_of
from blocks.repositories.farside.writer import SetWriter

WAL_BYTES = 2**28


def capture(
    client: Etcdctl, prefix: str, sink: SetWriter, facts: EtcdFacts, steps: Steps
) -> Captured:
    """Seal a snapshot into `sink`; what is known of it, and still holds, is in the facts.

    etcdctl writes a snapshot to a file, and checks it before it says so. `prefix` is the
    application's. Raises PermanentError, TransientError.
    """
    host = client.host
    _have_room(host, sink.rehearsal_id, sink.work(host), facts.bytes)
    path = f"{sink.work(host)}/snapshot.db"
    taken_at = datetime.now(UTC)
    host.run(["rm", "-f", path, f"{path}.part"])
    with steps.step("snapshot", grows=True):
        client.text("snapshot", "save", path, timeout=6 * 3600)
    tool = snapshot_tool(host, client.bin_dir)
    argv = [*ALONE, *tool.argv, "status", path, "--write-out=json"]
    status = wire.parsed(host.run(argv, timeout=3600).text.rpartition("\n")[2])
    revision = int(status["revision"])
    # The file is read, not the cluster: it costs the source nothing, whatever is compacted.
    with steps.step("digest", grows=True):
        keys = _read(host, sink.rehearsal_id, path)
        if keys is not None and keys.revision != revision:
            keys = None
    # One that ended, or was revoked, since the survey may not be in the snapshot.
    there = leases(client)
    with steps.step("look again"):
        since = last_look.look_again(client)
        at = max(revision, keys.compacted if keys else 0)
        counts = last_look.counts_at(client, at, prefix)
    with steps.step("seal", grows=True) as step:
        sources = [Source(name=SNAPSHOT, kind="stdout")]
        step.bytes = sink.seal(host, ["cat", path], secret=SecretStr(""), sources=sources)
        host.run(["rm", "-f", path])
    kept = Snapshot(
        revision=revision,
        keys=int(status["totalKey"]),
        bytes=int(status["totalSize"]),
        at_source=counts.at_source,
        below_prefix=counts.below_prefix,
    )
    leased = {lease_id: ttl for lease_id, ttl in facts.leases.items() if lease_id in there}
    learned = replace(facts, leases=leased, since=since, snapshot=_with_keys(kept, keys))
    return Captured(taken_at, datetime.now(UTC), learned)


def _with_keys(kept: Snapshot, found: Keys | None) -> Snapshot:
    """The facts of a snapshot, with what its file was found to hold."""
    if found is None:
        return kept
    return replace(
        kept,
        compacted=found.compacted,
        largest=found.largest,
        digest=found.digest,
        lasting=found.lasting,
        live=found.keys,
    )


def _read(host: Host, rehearsal_id: str, path: str) -> Keys | None:
    """What the file of a snapshot holds; None if it has a form that is not known here."""
    try:
        return read_keys(host, rehearsal_id, KeySpace(snapshot=path))
    except AgentFailed:
        return None


def _have_room(host: Host, rehearsal_id: str, folder: str, wanted: int) -> None:
    """Raise PermanentError where a snapshot would fill the disk, which may be a member's own."""
    (disk,) = facts_of(host, rehearsal_id, FactsJob(directories=(folder,))).directories
    if (free := disk.free_bytes) < 2 * wanted + WAL_BYTES:
        raise PermanentError(
            f"a snapshot of up to {wanted:,} bytes would leave too little of {free:,} in {folder}",
            operation="snapshot",
            domain=host.domain,
            host=host.name,
            hint="give this host a work_dir on another disk than etcd's, or make room",
        )
