"""Publish: the record into the results folder and into the recovery domain's store, signed."""

import logging
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import FarsideError
from blocks.evidence.record import Record
from blocks.evidence.signature import sign, signature_path
from blocks.plan.model import Plan
from tasks.reporting.units import printable

log = logging.getLogger("tasks")


@dataclass(frozen=True, slots=True)
class Published:
    """Where a record lies, what of its publication failed, and what else to know of it."""

    path: Path
    problems: tuple[str, ...] = ()
    note: str = ""


def records_of(plan: str) -> str:
    """The prefix of a plan's records in the recovery store."""
    return f"records/{plan}/"


def publish(plan: Plan, results: Path, record: Record) -> Published:
    """Save the record, sign it, and store both. A vault or store that fails is a warning.

    Raises PermanentError if the results folder cannot be written.
    """
    path = record.save(results)
    problems = [*_sign(plan, path), *store(plan, path)]
    for problem in problems:
        log.warning("%s: %s", path, printable(problem))
    return Published(path, tuple(problems))


def _sign(plan: Plan, path: Path) -> list[str]:
    if plan.keys.record_key is None:
        return []
    try:
        sign(path, plan.recovery.secret(plan.keys.record_key))
    except FarsideError as error:
        # A signature of what was there before is not this record's.
        signature_path(path).unlink(missing_ok=True)
        return [f"it is not signed: {error}"]
    return []


def store(plan: Plan, path: Path) -> list[str]:
    """Put a record into the recovery store as it lies in its folder; what failed.

    Raises PermanentError if it cannot be read.
    """
    folder = records_of(plan.name)
    files = [item for item in (path, signature_path(path)) if item.exists()]
    try:
        for item in files:
            plan.recovery.store.put(folder + item.name, item.read_bytes())
    except FarsideError as error:
        return [f"it is only in {path.parent}: {error}"]
    return []


def in_store(plan: Plan, rehearsal_id: str) -> bytes | None:
    """The record of a rehearsal that the recovery store holds, if any. Raises what it raises."""
    key = f"{records_of(plan.name)}{rehearsal_id}.json"
    return plan.recovery.store.get(key) if plan.recovery.store.head(key) is not None else None


def stored(plan: Plan, path: Path) -> bool:
    """Whether the recovery store holds a record, with its signature if there is one here.

    Raises what the store raises.
    """
    files = [item for item in (path, signature_path(path)) if item.exists()]
    known = (plan.recovery.store.head(records_of(plan.name) + item.name) for item in files)
    return all(info is not None for info in known)
