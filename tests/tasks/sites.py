"""A plan whose domains are directories of this machine and two real S3 servers."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from blocks.agent import lease
from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.artifact.manifest import Manifest, generate_signing_key, header_of, public_key_of
from blocks.artifact.manifest import sign as sign_document
from blocks.artifact.signing import sign_bytes
from blocks.domain import FailureDomain
from blocks.evidence.record import BackupSetSummary, Record, Verdict
from blocks.evidence.signature import signature_path
from blocks.plan.model import Plan
from blocks.repositories.farside.layout import HEADER, LOG, MANIFEST
from blocks.repositories.farside.listing import set_ids
from blocks.repositories.farside.retention import Retention
from blocks.stores.store import ObjectStore
from tasks.expiry import Expired, expire_sets
from tasks.lease import store_key, this_process
from tests.conftest import S3

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
KEY, FORMER, RECORD_KEY, OTHER = (generate_signing_key() for _ in range(4))
TWO = Retention(last=2)
ENDED = f"{this_process().rpartition(' ')[0]} 0"
"""The name of a process that is no more: another one has its number."""


@dataclass(frozen=True)
class Site:
    """A plan whose domains are directories of this machine and two S3 servers."""

    plan: Plan
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "rehearsals"

    @property
    def stores(self) -> tuple[ObjectStore, ObjectStore]:
        return self.plan.source.store, self.plan.recovery.store

    def add(
        self, set_id: str, days: float, *stores: ObjectStore, key: str = KEY, **more: Any
    ) -> None:
        """A complete set in stores, by default in both."""
        taken = NOW - timedelta(days=days)
        values: dict[str, Any] = {
            "set_id": set_id,
            "rehearsal_id": set_id,
            "plan": "shop",
            "engine": "command",
            "source": "east",
            "taken_at": taken,
            "completed_at": taken,
            "recipients": ("age1x",),
            "objects": (),
            "engine_facts": {},
            "farside_version": "0",
        }
        manifest = Manifest(**(values | more))
        envelope = sign_document(manifest, key)
        header = sign_document(header_of(manifest, len(envelope)), key)
        for store in stores or self.stores:
            for name, data in ((HEADER, header), (MANIFEST, envelope), (LOG, b"x")):
                store.put(f"sets/shop/{set_id}/{name}", data)
            store.put(f"sets/shop/{set_id}/base.000", b"sealed")

    def prove(
        self,
        record: Record,
        set_id: str,
        *,
        key: str = RECORD_KEY,
        verdict: Verdict = Verdict.VERIFIED,
        stored: bool = False,
    ) -> None:
        """A record that the set was rehearsed: in the results folder, or in the recovery store."""
        made = replace(
            record,
            rehearsal_id=f"of-{set_id}",
            plan=replace(record.plan, name="shop"),
            verdict=verdict,
            backup_set=BackupSetSummary(set_id, NOW, 1, "latest"),
        )
        document = made.to_json().encode()
        signature = sign_bytes(document, key)
        if stored:
            self.plan.recovery.store.put(f"records/shop/of-{set_id}.json", document)
            self.plan.recovery.store.put(f"records/shop/of-{set_id}.json.sig", signature)
        else:
            signature_path(made.save(self.results)).write_bytes(signature)

    def lease(
        self, rehearsal_id: str, plan: str = "shop", *, kept: bool = False, owner: str = ""
    ) -> None:
        """The lease of a rehearsal, in the recovery store."""
        told = lease.Lease(plan, 600, kept, owner)
        self.plan.recovery.store.put(store_key(rehearsal_id), told.dumps())

    def ids(self) -> tuple[list[str], list[str]]:
        """Complete sets in east and in west."""
        east, west = (set_ids(store, "shop") for store in self.stores)
        return east, west

    def expire(self, retention: Retention = TWO) -> Expired:
        return expire_sets(self.plan, retention, self.results, NOW)


def domain(name: str, s3: S3, folder: Path, prefix: str, **more: Any) -> FailureDomain:
    (folder / name).mkdir()
    credentials = folder / f"{name}.ini"
    credentials.write_text(
        f"[default]\naws_access_key_id={s3.access_key}\naws_secret_access_key={s3.secret_key}\n"
    )
    values = {
        "name": name,
        "hosts": [{"kind": "local", "name": "db1", "work_dir": str(folder / name / "work")}],
        "store": {
            "kind": "s3",
            "endpoint": s3.endpoint,
            "bucket": s3.bucket,
            "prefix": prefix,
            "ca_file": str(s3.ca_file),
            "credentials_file": str(credentials),
        },
    }
    return FailureDomain(**(values | more))


def document(east: FailureDomain, west: FailureDomain) -> dict[str, Any]:
    apart = {"store": {"kind": "s3", "endpoint": "https://10.9.9.9", "bucket": "b"}}
    return {
        "name": "shop",
        "source": east.model_dump(exclude={"store"}) | apart,
        "recovery": west,
        "engine": {
            "kind": "command",
            "system": "redis",
            "source": {
                "host": "db1",
                "address": "10.9.9.1",
                "port": 6399,
                "version_argv": ["true"],
                "capture_argv": ["true"],
                "bytes_argv": ["true"],
            },
            "target": {
                "host": "db1",
                "address": "10.8.8.1",
                "port": 6399,
                "directory": "/nowhere",
                "pidfile": "{directory}/pid",
                "programs": ["true"],
                "version_argv": ["true"],
                "restore_argv": ["true"],
                "destroy_argv": ["true"],
                "verify": [{"name": "it", "argv": ["true"], "expected": "x"}],
            },
        },
        "keys": {
            "recipients": [recipient_of(generate_identity())],
            "identity": "id",
            "signer": public_key_of(KEY),
            "former_signers": [public_key_of(FORMER)],
            "record_key": "record-key",
            "record_signer": public_key_of(RECORD_KEY),
        },
        "objectives": {"rto": "15m", "rpo": "60s"},
        "transfer": {"host": "db1"},
        "fence": {"kind": "command", "raise_argv": ["true"], "lift_argv": ["true"]},
        "retention": {"last": 2},
    }


def local_rehearsal(folder: Path, *, fresh: bool = False, **recovery: Any) -> Any:
    """Of a plan whose domains are this machine; nothing answers where their stores are."""
    vault = folder / "vault"
    vault.mkdir()
    local = {"kind": "local", "name": "db1"}
    held = {"kind": "host", "host": {"kind": "local"}, "directory": str(vault)}
    east, west = (
        FailureDomain.model_validate(
            {
                "name": name,
                "paths": [str(folder / name)],
                "hosts": [local | {"work_dir": str(folder / f"work-{name}")}],
                "store": {"kind": "s3", "endpoint": f"https://s3.{name}.example", "bucket": "b"},
            }
            | (({"vault": held} | recovery) if name == "west" else {})
        )
        for name in ("east", "west")
    )
    plan = Plan.model_validate(document(east, west))
    plan = plan.model_copy(update={"source": east, "recovery": west})
    made = SimpleNamespace(plan=plan, source=east, recovery=west, fresh=fresh, claimed=set())
    made.id = "r20260701-120000-1a2b3c"
    return made
