"""Copies a backup set from store to store, while it is written."""

from collections.abc import Sequence
from contextlib import nullcontext

from blocks.agent.protocol.jobs import CopyJob
from blocks.artifact.manifest import Manifest, SealedObject
from blocks.domain import FailureDomain
from blocks.hosts.host import Host
from blocks.remote.leases import CopyLeases
from blocks.remote.run import AgentRun
from blocks.repositories.farside.layout import HEADER, MANIFEST, Moved, prefix_of
from blocks.repositories.farside.writer import SetWriter


class SetCopier:
    """Carries a set from the source's store to the recovery domain's, and resumes."""

    def __init__(  # noqa: PLR0913 (from where, to where, and what is copied)
        self,
        source: FailureDomain,
        recovery: FailureDomain,
        host: Host,
        plan: str,
        set_id: str,
        rate: int | None,
    ) -> None:
        self.target = recovery.store
        self._source = source.store
        self._host = host
        self._set_id = set_id
        self._prefix = prefix_of(plan, set_id)
        self._rate = rate
        self._leases = CopyLeases(self._source, self.target, self._prefix)
        self._done: set[str] = set()
        self._moved: Moved = lambda _count, _of: None

    def begin(self, moved: Moved) -> None:
        """Report to `moved` from here on."""
        self._moved = moved

    def copy(self, objects: Sequence[SealedObject], writer: SetWriter | None = None) -> int:
        """Copy those of `objects` that were not copied yet; returns their bytes.

        Ends at once, and raises why, when `writer` cannot follow the log any more.
        """
        wanted = tuple(item for item in objects if item.name not in self._done)
        if not wanted:
            return 0
        job = CopyJob(
            objects=wanted,
            landed=self._leases.landed,
            rate=self._rate,
            ca_source=self._source.ca_pem,
            ca_target=self.target.ca_pem,
        )
        run = AgentRun(self._host, self._set_id, job, self._leases, self._moved)
        with run, nullcontext() if writer is None else writer.guarding(run.kill):
            run.run()
        self._done.update(item.name for item in wanted)
        return sum(item.sealed_bytes for item in wanted)

    def finish(self, manifest: Manifest) -> None:
        """Bring the signed manifest across, last: with it the set is complete there."""
        if MANIFEST not in self._done and {o.name for o in manifest.objects} <= self._done:
            for name in (HEADER, MANIFEST):
                self.target.put(self._prefix + name, self._source.get(self._prefix + name))
            self._done.add(MANIFEST)

    def abandon(self) -> None:
        """Throw away uploads that were not finished. Idempotent."""
        self._leases.abort()
