"""The journal: what a rehearsal has seen so far, kept for the case that it never ends in order.

It is a record as any other, of verdict could-not-verify. Signals have it written at once; on the
recovery hosts it waits for the sweep that finds a rehearsal killed.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from blocks.errors import FarsideError
from blocks.evidence.record import Record, Verdict, load
from blocks.evidence.signature import signature_path
from blocks.evidence.uses import unnoted
from blocks.hosts.host import FileMissing, Host
from blocks.plan.model import Plan
from tasks.context import Rehearsal
from tasks.reporting.publish import Published, in_store, publish, store, stored

FILE = "record.json"
"""In the rehearsal's directory on every recovery host."""
_POLL_SECONDS = 0.5
_MOST_BYTES = 64 << 20


def provisional(record: Record, why: str) -> Record:
    """A record of what was seen until now, which shows nothing, good or bad."""
    reason = f"the rest of the rehearsal: {why}"
    not_verified = (reason, *record.not_verified)
    return replace(record, verdict=Verdict.COULD_NOT_VERIFY, not_verified=not_verified)


class Journal:
    """Keeps the journal of a rehearsal, from `start` to `stop`."""

    def __init__(self, rehearsal: Rehearsal, seen: Callable[[], Record]) -> None:
        self._rehearsal = rehearsal
        self._seen = seen
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._finished = False
        self._threads = [
            threading.Thread(
                target=self._keep, args=(host,), name=f"journal-{host.name}", daemon=True
            )
            for host in rehearsal.recovery.hosts
        ]

    def start(self) -> None:
        """Keep it on the recovery hosts, each by its own thread: one that hangs delays no other."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Write nothing any more on the hosts: what is there is about to be removed."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(2.0)

    def interrupted(self, number: signal.Signals) -> None:
        """Write what was seen so far into the results folder; the final record replaces it."""
        with self._lock, suppress(FarsideError):
            if not self._finished:
                why = f"it was ended by {number.name}, and its teardown has not come to its end yet"
                provisional(self._seen(), why).save(self._rehearsal.options.results)

    def finish(self, record: Record) -> Path:
        """Write the final record. Raises as `publish`."""
        with self._lock:
            self._finished = True
            return publish(self._rehearsal.plan, self._rehearsal.options.results, record).path

    def _keep(self, host: Host) -> None:
        written: object = None
        while not self._stopped.wait(_POLL_SECONDS):
            known = [(item.name, item.state) for item in self._rehearsal.clock.stages()]
            if known == written or f"{host.domain}/{host.name}" not in self._rehearsal.claimed:
                continue
            # A host that is gone is told of elsewhere; nothing that is restored depends on this.
            with suppress(FarsideError), unnoted():
                note = provisional(self._seen(), "it was killed, or its machine stopped")
                host.put(note.to_json().encode(), f"{self._rehearsal.work(host)}/{FILE}")
                written = known


def recover(plan: Plan, rehearsal_id: str, results: Path) -> Published | None:
    """Publish the record of a rehearsal that was killed, from its journal; None if there is none.

    One that is in the results folder already stays as it is; what is missing of its publication
    is made up for. Only one that shows nothing is signed here: any other verdict is for the
    rehearsal itself to sign. What the recovery store holds of a rehearsal that wrote its record
    into another folder is never replaced by what was seen before its end. Raises as `publish`.
    """
    path = results / f"{rehearsal_id}.json"
    record = load(path) if path.exists() else _left(plan, rehearsal_id)
    if record is None or (record.rehearsal_id, record.plan.name) != (rehearsal_id, plan.name):
        return None
    signed = plan.keys.record_key is None or signature_path(path).exists()
    if record.verdict is Verdict.COULD_NOT_VERIFY and not (signed and path.exists()):
        own = path.read_bytes() if path.exists() else record.to_json().encode()
        try:
            if in_store(plan, rehearsal_id) not in (None, own):
                return None
        except FarsideError as error:
            record.save(results)
            return Published(path, (f"whether the store holds one is not known: {error}",))
        return publish(plan, results, record)
    if stored(plan, path):
        return None
    note = "" if signed else "not signed: its rehearsal was killed before it could"
    return Published(path, tuple(store(plan, path)), note)


def _left(plan: Plan, rehearsal_id: str) -> Record | None:
    """What the recovery hosts keep; the furthest one counts.

    A host is not trusted beyond that: such a record is never of another verdict, nor of another
    plan or rehearsal.
    """
    known = []
    for host in plan.recovery.hosts:
        with suppress(FileMissing, FarsideError):
            text = host.get(f"{host.work_root}/{rehearsal_id}/{FILE}", _MOST_BYTES)
            record = Record.from_json(text, f"{host.name} {FILE}")
            if (record.rehearsal_id, record.plan.name) == (rehearsal_id, plan.name):
                known.append(replace(record, verdict=Verdict.COULD_NOT_VERIFY))
    return max(known, key=lambda item: sum(s.attempts for s in item.stages), default=None)
