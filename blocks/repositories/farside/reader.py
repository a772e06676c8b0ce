"""Reads a backup set of the recovery store."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from blocks.agent import stamp
from blocks.agent.protocol.jobs import ClaimJob, OpenJob
from blocks.agent.protocol.parts import Ending, OpenItem
from blocks.agent.protocol.results import OpenResult
from blocks.artifact.manifest import (
    LogIndex,
    Manifest,
    SealedObject,
)
from blocks.domain import FailureDomain
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host
from blocks.remote.jobs import claim
from blocks.remote.leases import StoreLeases
from blocks.remote.run import run_job
from blocks.repositories.farside.binding import Binding, Document
from blocks.repositories.farside.layout import LOG, MANIFEST, Moved, prefix_of, signed_document
from blocks.stores.store import ObjectStore

ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""S3 storage classes whose objects are retrieved in hours, before they can be read."""


@dataclass(frozen=True, slots=True)
class Defect:
    """An object that a restore could not read: `finding` is the broken assumption's id."""

    finding: str
    key: str
    text: str


class SetReader:
    """A set in the recovery store, and what it takes to open it on a host."""

    def __init__(
        self, recovery: FailureDomain, binding: Binding, set_id: str, rehearsal_id: str
    ) -> None:
        self.set_id = set_id
        self.marked = False
        self._token = secrets.token_hex(16)
        self._recovery = recovery
        self._binding = binding
        self._rehearsal_id = rehearsal_id
        self._prefix = prefix_of(binding.plan, set_id)
        self._moved: Moved = lambda _count, _of: None

    def begin(self, moved: Moved) -> None:
        """Report to `moved` from here on."""
        self._moved = moved

    def manifest(self) -> Manifest:
        """The manifest. Raises ManifestForged, ManifestMalformed, ForeignSet."""
        return self._signed(Manifest, MANIFEST)

    def log(self) -> LogIndex:
        """The index of the log. Raises as `manifest`."""
        return self._signed(LogIndex, LOG)

    def _signed(self, kind: type[Document], name: str) -> Document:
        return signed_document(self._recovery.store, self._binding, kind, self.set_id, name)

    def defects(self, objects: Iterable[SealedObject]) -> Iterator[Defect]:
        """What the recovery store lists of `objects`, other than whole and readable at once."""
        listed = {info.key: info for info in self._recovery.store.objects(self._prefix)}
        for item in objects:
            for volume in item.volumes:
                info = listed.get(self._prefix + volume.key)
                if info is None:
                    yield Defect(
                        FindingId.OBJECT_MISSING,
                        volume.key,
                        "the recovery store has no such object",
                    )
                elif info.size != volume.bytes:
                    text = f"{info.size:,} bytes are stored, the manifest says {volume.bytes:,}"
                    yield Defect(FindingId.OBJECT_CORRUPT, volume.key, text)
                elif info.storage_class in ARCHIVE_CLASSES:
                    text = f"its storage class is {info.storage_class}: it must be retrieved first"
                    yield Defect(FindingId.COPY_IS_COLD, volume.key, text)

    def claim(
        self,
        host: Host,
        directories: Sequence[str],
        ports: Sequence[tuple[str, int]] = (),
        *,
        ended_by: Ending = "SIGTERM",
    ) -> None:
        """Take directories, made or found empty, and ports on `host`. Raises TargetOccupied.

        A sweep ends by the signal `ended_by` what was started there, `stamped`.
        """
        self.marked = True
        job = ClaimJob(
            work_dir=host.work_root,
            rehearsal_id=self._rehearsal_id,
            token=self._token,
            directories=tuple(directories),
            ports=tuple(ports),
            ended_by=ended_by,
        )
        claim(host, job)

    def stamped(self, argv: Sequence[str]) -> list[str]:
        """`argv` with this rehearsal's stamp in its environment: a sweep knows it by that."""
        mark = stamp.text(self._rehearsal_id, self._token)
        return ["env", f"{stamp.VARIABLE}={mark}", *argv]

    def open(self, host: Host, items: Sequence[OpenItem], identity: SecretStr) -> int:
        """Fetch, verify, decrypt and unpack on `host`; returns the bytes read from the store."""
        job = OpenJob(
            items=tuple(items),
            identity=identity.get_secret_value(),
            ca_pem=self._recovery.store.ca_pem,
            marker=f"{host.work_root}/{self._rehearsal_id}",
        )
        leases = StoreLeases(self._recovery.store, self._prefix)
        # Several hosts may fetch the same objects at once.
        moved = self._moved
        done = run_job(
            host,
            self._rehearsal_id,
            job,
            leases,
            lambda count, of: moved(count, f"{host.name}: {of}"),
        )
        assert isinstance(done, OpenResult)
        return done.sealed_bytes


def fetch_commands(store: ObjectStore, plan: str, set_id: str) -> tuple[str, ...]:
    """Shell functions for the runbook: `fetch KEY...` prints objects, `unseal` opens a stream."""
    return (
        "# IDENTITY: a file with the age identity from the recovery vault",
        ': "${IDENTITY:?}"',
        *store.fetch_commands(prefix_of(plan, set_id)),
        'unseal() { age -d -i "$IDENTITY" | zstd -q -d; }',
    )
