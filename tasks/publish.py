"""Publish: the record into the results folder and into the recovery domain's store, signed."""

import logging
from pathlib import Path

from blocks.errors import FarsideError
from blocks.evidence.record import Record
from blocks.evidence.signature import sign
from tasks.rehearsal import Rehearsal

log = logging.getLogger("tasks")


def publish(rehearsal: Rehearsal, record: Record) -> Path:
    """Save the record; returns its path. A store that cannot be reached is a warning.

    Raises PermanentError if the results folder cannot be written.
    """
    plan = rehearsal.plan
    path = record.save(rehearsal.options.results)
    document = path.read_bytes()
    copies = {f"{plan.name}/{record.rehearsal_id}.json": document}
    try:
        if plan.keys.record_key is not None:
            signed = sign(path, plan.recovery.secret(plan.keys.record_key))
            copies[f"{plan.name}/{signed.name}"] = signed.read_bytes()
        for name, data in copies.items():
            plan.recovery.store.put(f"records/{name}", data)
    except FarsideError as error:
        log.warning("the record is only in %s: %s", path, error)
    return path
