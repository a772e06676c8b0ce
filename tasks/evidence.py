"""What a plan's records show, from both places that keep them: the results folder and the store."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blocks.artifact.signing import SignatureRefused
from blocks.evidence.history import History, history
from blocks.evidence.record import Record, RecordMalformed, RecordTooNew, Verdict
from blocks.evidence.signature import RecordUnsigned, proven
from blocks.ids import began
from blocks.plan.model import Plan
from blocks.workers import Workers
from tasks.reporting.publish import records_of

MOST_STORED = 1000
"""How many records of the store are read where only those of one set are looked for."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Evidence:
    """Ids of the sets that a verified record proves, and the records that do not count, and why."""

    verified: frozenset[str]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where records lie, by its name; `read` raises what the store raises, and as `history`."""

    name: str
    read: Callable[[], History]


def places(plan: Plan, results: Path, of_set: str | None = None) -> tuple[Place, Place]:
    """Where all records of a plan lie; where it pins who signs them, only the signed ones count.

    With `of_set`, the store's are only those that may tell of that set: not older than it, and the
    newest of them where they are too many.
    """
    store = f"{plan.recovery.name} store"
    return (
        Place("results folder", partial(history, results, plan.name, plan.keys.record_signer)),
        Place(store, partial(_stored, plan, of_set)),
    )


def evidence(plan: Plan, results: Path) -> Evidence:
    """What all records of a plan prove.

    Raises as `Place.read`: a record that cannot be read may be evidence.
    """
    found = [place.read() for place in places(plan, results)]
    records = (record for item in found for record in item.records)
    verified = (item.backup_set for item in records if item.verdict is Verdict.VERIFIED)
    left_out = tuple(text for item in found for text in item.left_out)
    return Evidence(frozenset(item.id for item in verified if item), left_out)


def _stored(plan: Plan, of_set: str | None) -> History:
    """The plan's records in the recovery store, in the order of their keys."""
    store, signer, prefix = plan.recovery.store, plan.keys.record_signer, records_of(plan.name)
    keys = {info.key for info in store.objects(prefix)}

    def read(key: str) -> Record | str:
        document = store.get(key)
        if signer is None:
            return Record.from_json(document, key)
        try:
            signature = store.get(f"{key}.sig") if f"{key}.sig" in keys else None
            return proven(document, signature, signer, key)
        except (RecordUnsigned, SignatureRefused, RecordMalformed, RecordTooNew) as error:
            return f"{store.domain} store, {key}: {error.message}"

    wanted, left_out = sorted(key for key in keys if key.endswith(".json")), list[str]()
    if of_set is not None:
        wanted = [
            key
            for key in wanted
            if not _is_older(key.removeprefix(prefix).removesuffix(".json"), of_set)
        ]
        if older := wanted[:-MOST_STORED]:
            wanted = wanted[-MOST_STORED:]
            left_out.append(f"{store.domain} store: {len(older)} older ones, which were not read")
    with Workers(_AT_ONCE, "records") as pool:
        found = list(pool.map(read, wanted))
    left_out += [item for item in found if isinstance(item, str)]
    records = (item for item in found if isinstance(item, Record))
    return History(tuple(item for item in records if item.plan.name == plan.name), tuple(left_out))


def _is_older(rehearsal_id: str, set_id: str) -> bool:
    """Whether a rehearsal was before the one that made the set; False where an id tells no time."""
    ran, made = began(rehearsal_id), began(set_id)
    return ran is not None and made is not None and ran < made
