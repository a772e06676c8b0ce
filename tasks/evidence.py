"""Which backup sets are proven: by records in the results folder and in the recovery store."""

from dataclasses import dataclass
from pathlib import Path

from blocks.artifact.signing import SignatureRefused
from blocks.evidence.history import history
from blocks.evidence.record import Record, RecordMalformed, RecordTooNew, Verdict
from blocks.evidence.signature import RecordUnsigned, proven
from blocks.plan import Plan
from blocks.workers import Workers
from tasks.publish import records_of

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Evidence:
    """Ids of the sets that a verified record proves, and the records that do not count, and why."""

    verified: frozenset[str]
    left_out: tuple[str, ...] = ()


def evidence(plan: Plan, results: Path) -> Evidence:
    """What all records of a plan prove; where it pins who signs them, only the signed ones count.

    Raises what the store raises, and as `history`: a record that cannot be read may be evidence.
    """
    here = history(results, plan.name, plan.keys.record_signer)
    kept = _stored(plan)
    records = [*here.records, *(item for item in kept if isinstance(item, Record))]
    left_out = [*here.left_out, *(item for item in kept if isinstance(item, str))]
    verified = (item.backup_set for item in records if item.verdict is Verdict.VERIFIED)
    return Evidence(frozenset(item.id for item in verified if item), tuple(left_out))


def _stored(plan: Plan) -> list[Record | str]:
    """The plan's records in the recovery store; of one that does not count, why."""
    store, signer = plan.recovery.store, plan.keys.record_signer
    keys = {info.key for info in store.objects(records_of(plan.name))}

    def read(key: str) -> Record | str:
        document = store.get(key)
        if signer is None:
            return Record.from_json(document, key)
        try:
            signature = store.get(f"{key}.sig") if f"{key}.sig" in keys else None
            return proven(document, signature, signer, key)
        except (RecordUnsigned, SignatureRefused, RecordMalformed, RecordTooNew) as error:
            return f"{store.domain} store, {key}: {error.message}"

    with Workers(_AT_ONCE, "records") as pool:
        found = list(pool.map(read, sorted(key for key in keys if key.endswith(".json"))))
    return [item for item in found if isinstance(item, str) or item.plan.name == plan.name]
