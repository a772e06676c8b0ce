"""Publish: the record into the results folder and into the recovery domain's store, signed."""

import logging
from pathlib import Path

from blocks.artifact.manifest import sign_bytes
from blocks.errors import FarsideError
from blocks.evidence.files import write_atomically
from blocks.evidence.record import Record
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
            key = plan.recovery.secret(plan.keys.record_key).get_secret_value()
            signature = sign_bytes(document, key)
            write_atomically(path.with_suffix(".json.sig"), signature)
            copies[f"{plan.name}/{record.rehearsal_id}.json.sig"] = signature
        for name, data in copies.items():
            plan.recovery.store.put(f"records/{name}", data)
    except FarsideError as error:
        log.warning("the record is only in %s: %s", path, error)
    return path
